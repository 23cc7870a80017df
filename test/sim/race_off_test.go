//go:build !race

package sim

// seedsShort is how many seeds -short runs.
const seedsShort = 50
