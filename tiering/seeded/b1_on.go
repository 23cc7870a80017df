//go:build seeded_b1

package seeded

// FlushFateShared: see Bugs.
const FlushFateShared = true
