//go:build !seeded_b6

package seeded

// AnyFirstSequence: see Bugs.
const AnyFirstSequence = false
