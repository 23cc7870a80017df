//go:build seeded_b3

package seeded

// CommitWithoutRace: see Bugs.
const CommitWithoutRace = true
