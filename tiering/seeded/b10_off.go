//go:build !seeded_b10

package seeded

// OutOfRangeUnproven: see Bugs.
const OutOfRangeUnproven = false
