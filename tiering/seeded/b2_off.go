//go:build !seeded_b2

package seeded

// KeyFromBaseOffset: see Bugs.
const KeyFromBaseOffset = false
