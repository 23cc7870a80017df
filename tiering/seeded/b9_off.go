//go:build !seeded_b9

package seeded

// MarkerNotAwaited: see Bugs.
const MarkerNotAwaited = false
