//go:build race

package sim

// seedsShort is fewer with the race detector, which makes a seed take seconds.
const seedsShort = 16
