package tiering

import (
	"math"
	"math/bits"
	"time"
)

const (
	windowMax    = 8          // PUTs in flight
	windowStart  = 2          // at first, while the store's latency is learnt
	windowFull   = 4          // what congestion never takes from full buffers
	budgetBurst  = 40         // time-triggered flushes saved up
	slowdown     = math.Ln2   // of smoothed latency over the least seen, as a logarithm, that means congestion
	smoothing    = 32         // PUTs that a smoothed latency rests on
	fading       = 1. / 32768 // a PUT, of the least mean: twice as slow becomes usual after 23,000
	recoverAfter = 32         // unhurried PUTs before the window grows
	spacingScale = 4          // the most that congestion stretches the spacing
)

// pacer decides when the next flush may start. It is pure: time is passed in.
//
// Adaptive group commit: a store that answers slower the more is asked of it
// (a small MinIO: 8 ms for 64 KiB alone, 30 ms with eight in flight) gets fewer
// and larger objects; the window and the spacing recover slowly.
//
// Latencies are compared as smoothed logarithms, with the least such mean of
// objects of the size. A store far away answers one PUT in 20 ms and the next in
// 200, whatever is asked of it: the best single latency would make every other
// look congested, while the mean of 32 logarithms varies by a few percent.
type pacer struct {
	spacing time.Duration // configured
	budget  float64       // time-triggered flushes a second, 0 none

	window  int
	stretch int  // factor on spacing
	pressed bool // the store was congested once; the window then grows more slowly
	calm    int
	excess  float64         // smoothed, of the logarithm of a latency over the least of its size
	sizes   [64]sizeLatency // by size class
	last    time.Duration   // when the last flush started
	tokens  float64
	refill  time.Duration
	started bool
}

// sizeLatency is what is known of PUTs of about one size, in logarithms.
type sizeLatency struct {
	puts int     // counted up to smoothing
	mean float64 // smoothed
	best float64 // the least mean seen; valid once puts has reached smoothing
}

func newPacer(spacing time.Duration, budget float64) pacer {
	return pacer{spacing: spacing, budget: budget, window: windowStart, stretch: 1, tokens: budgetBurst}
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
	class := &p.sizes[bits.Len(uint(size)>>12)]
	over := class.add(math.Log(max(latency, 100*time.Microsecond).Seconds()))
	if alone {
		over = min(over, slowdown)
	}
	p.excess += (over - p.excess) / smoothing
	if p.excess > slowdown {
		p.window = max(1, p.window/2)
		p.stretch = min(spacingScale, p.stretch*2)
		p.excess, p.calm, p.pressed = 0, 0, true
		return
	}
	if p.calm++; p.calm < recoverAfter {
		return
	}
	grow := p.window
	if p.pressed {
		grow = 1
	}
	p.window = min(windowMax, p.window+grow)
	p.stretch = max(1, p.stretch/2)
	p.calm = 0
}

// add takes a PUT into account and returns how far it lies above the least mean,
// 0 while too little is known.
func (s *sizeLatency) add(latency float64) (over float64) {
	if s.puts < smoothing {
		s.puts++
		s.mean += (latency - s.mean) / float64(s.puts)
		s.best = s.mean
		return 0
	}
	s.mean += (latency - s.mean) / smoothing
	// Let the best fade, so that a store that became slower for good is not
	// taken for congested for ever.
	s.best = min(s.best+fading, s.mean)
	return latency - s.best
}
