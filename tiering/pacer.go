package tiering

import (
	"math/bits"
	"time"
)

const (
	windowMax    = 8  // PUTs in flight
	windowFull   = 4  // what congestion never takes from full buffers
	budgetBurst  = 40 // time-triggered flushes saved up
	slowdown     = 2  // smoothed latency over the best of its size that means congestion
	recoverAfter = 32 // unhurried PUTs before the window grows by one
	spacingScale = 4  // the most that congestion stretches the spacing
)

// pacer decides when the next flush may start. It is pure: time is passed in.
//
// Adaptive group commit: a store that answers slower the more is asked of it
// (a small MinIO: 8 ms for 64 KiB alone, 30 ms with eight in flight) gets fewer
// and larger objects; the window and the spacing recover slowly.
type pacer struct {
	spacing time.Duration // configured
	budget  float64       // time-triggered flushes a second, 0 none

	window  int
	stretch int // factor on spacing
	calm    int
	smooth  float64           // smoothed latency ÷ best of its size
	best    [64]time.Duration // by size class: the best latency seen
	last    time.Duration     // when the last flush started
	tokens  float64
	refill  time.Duration
	started bool
}

func newPacer(spacing time.Duration, budget float64) pacer {
	return pacer{spacing: spacing, budget: budget, window: windowMax, stretch: 1, smooth: 1, tokens: budgetBurst}
}

// wait returns how long until a flush may start, and false when only a finished
// PUT can make room. Urgent flushes, which clients or peers wait for, and full
// ones ignore spacing and budget. Full ones keep a window of their own: a store
// at its bandwidth answers slower the more is in flight, and there a window of
// one would halve the throughput without making anything faster.
func (p *pacer) wait(now time.Duration, inFlight int, urgent, full bool) (time.Duration, bool) {
	window := p.window
	if full {
		window = max(window, windowFull)
	}
	if inFlight >= window {
		return 0, false
	}
	if urgent || full || !p.started {
		return 0, true
	}
	w := max(0, p.last+p.spacing*time.Duration(p.stretch)-now)
	if p.budget > 0 {
		if t := p.tokensAt(now); t < 1 {
			w = max(w, time.Duration((1-t)/p.budget*float64(time.Second)))
		}
	}
	return w, true
}

func (p *pacer) tokensAt(now time.Duration) float64 {
	return min(budgetBurst, p.tokens+float64(now-p.refill)/float64(time.Second)*p.budget)
}

// start notes that a flush began.
func (p *pacer) start(now time.Duration, pressing bool) {
	if p.budget > 0 {
		p.tokens, p.refill = p.tokensAt(now), now
		if !pressing {
			p.tokens--
		}
	}
	p.last, p.started = now, true
}

// finish learns from a PUT of size bytes that took latency and had others in
// flight beside it, or not. A lone PUT that is slow is no congestion of ours:
// asking less of the store would not make it faster.
func (p *pacer) finish(size int, latency time.Duration, alone bool) {
	class := bits.Len(uint(size) >> 12)
	best := p.best[class]
	if best == 0 || latency < best {
		best = max(latency, 100*time.Microsecond)
	}
	// Let the best fade, so that a store that became slower for good is not
	// taken for congested for ever.
	p.best[class] = best + best/1024
	if alone {
		latency = min(latency, slowdown*best)
	}
	p.smooth += (float64(latency)/float64(best) - p.smooth) / 8
	if p.smooth > slowdown {
		p.window = max(1, p.window/2)
		p.stretch = min(spacingScale, p.stretch*2)
		p.smooth, p.calm = 1, 0
		return
	}
	if p.calm++; p.calm >= recoverAfter {
		p.window = min(windowMax, p.window+1)
		p.stretch = max(1, p.stretch/2)
		p.calm = 0
	}
}
