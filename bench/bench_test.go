package main

import (
	"os"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var sorted []time.Duration
	for i := range 100 {
		sorted = append(sorted, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, .5: 51, .99: 100, 1: 100} {
		if got := percentile(sorted, q); got != want {
			t.Errorf("percentile %v = %d, want %d", q, got, want)
		}
	}
	if percentile(nil, .5) != 0 {
		t.Error("no samples")
	}
}

func TestProcessorTime(t *testing.T) {
	got, err := parseStat("7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20")
	if err != nil || got != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseStat("7 (x) S 1"); err == nil {
		t.Error("a short line was read")
	}
	for begun := time.Now(); time.Since(begun) < 50*time.Millisecond; {
	}
	if got, err := cpuSeconds(os.Getpid()); err != nil || got <= 0 {
		t.Errorf("own time %v, %v", got, err)
	}
}
