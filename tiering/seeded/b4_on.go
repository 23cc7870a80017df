//go:build seeded_b4

package seeded

// GroupUnfenced: see Bugs.
const GroupUnfenced = true
