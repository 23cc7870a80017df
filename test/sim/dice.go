package sim

import "time"

// dice is a stream of numbers that follows from the seed and from what they are
// drawn for. Each thing that is drawn for has a stream of its own: so one call
// more or less, which the Go runtime may bring about, changes nothing for the
// calls that have other names.
type dice struct{ state uint64 }

// newDice makes the stream of the seed for something that has this name.
func newDice(seed uint64, name string) *dice {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	d := &dice{state: seed*0x9e3779b97f4a7c15 ^ h}
	d.next()
	return d
}

// next is splitmix64.
func (d *dice) next() uint64 {
	d.state += 0x9e3779b97f4a7c15
	x := d.state
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// float is in [0, 1).
func (d *dice) float() float64 { return float64(d.next()>>11) / (1 << 53) }

// chance is true with probability p.
func (d *dice) chance(p float64) bool { return d.float() < p }

// n is in [0, n).
func (d *dice) n(n int) int { return int(d.next() % uint64(n)) }

// between is in [lo, hi).
func (d *dice) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(d.float()*float64(hi-lo))
}
