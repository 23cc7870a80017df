// Package jitter draws the random part of pauses, which keeps those that
// failed together from trying again together.
//
// A draw is a hash of the clock's nanoseconds. That is as good as a random
// number here, where nothing depends on its being hard to guess, and it makes a
// program on fake time (testing/synctest) pause for the same time in each run.
package jitter

import "time"

// N returns a duration in [0, n), 0 when n is not positive.
func N(n time.Duration) time.Duration {
	if n <= 0 {
		return 0
	}
	return time.Duration(mix(uint64(time.Now().UnixNano())) % uint64(n))
}

// mix is the finalizer of splitmix64: neighbouring inputs have unrelated outputs.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
