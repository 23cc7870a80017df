//go:build !seeded_b7

package seeded

// LastStableIsHigh: see Bugs.
const LastStableIsHigh = false
