//go:build seeded_b5

package seeded

// AckBeforeDurable: see Bugs.
const AckBeforeDurable = true
