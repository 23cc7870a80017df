package tiering

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestPacerSpacing(t *testing.T) {
	p := newPacer(25*time.Millisecond, 0)
	if w, ok := p.wait(0, 0, false, false); !ok || w != 0 {
		t.Fatalf("the first flush waits %v, %v", w, ok)
	}
	p.start(0, false)
	if w, _ := p.wait(5*time.Millisecond, 1, false, false); w != 20*time.Millisecond {
		t.Fatalf("the second flush waits %v, want the rest of the spacing", w)
	}
	if w, _ := p.wait(5*time.Millisecond, 1, true, false); w != 0 {
		t.Fatalf("an urgent flush waits %v", w)
	}
	if _, ok := p.wait(time.Hour, windowMax, true, true); ok {
		t.Fatal("more in flight than the window")
	}
}

func TestPacerBudget(t *testing.T) {
	p := newPacer(time.Millisecond, 10)
	var now time.Duration
	for range budgetBurst {
		if w, _ := p.wait(now, 0, false, false); w != 0 {
			t.Fatalf("a flush within the burst waits %v", w)
		}
		p.start(now, false)
		now += time.Millisecond
	}
	n := 0
	for end := now + 10*time.Second; now < end; {
		w, _ := p.wait(now, 0, false, false)
		if now += w; w == 0 {
			p.start(now, false)
			n++
			now += time.Millisecond
		}
	}
	if n < 95 || n > 105 {
		t.Fatalf("%d flushes in 10 s at 10 a second", n)
	}
	before := p.tokensAt(now)
	p.start(now, true)
	if p.tokensAt(now) != before {
		t.Fatal("a full flush used up the budget")
	}
}

func TestPacerCongestion(t *testing.T) {
	p := newPacer(2*time.Millisecond, 0)
	for range 3 * recoverAfter {
		p.finish(64<<10, 8*time.Millisecond, true)
	}
	if p.window != windowMax {
		t.Fatalf("an idle store has a window of %d", p.window)
	}
	for range 100 {
		p.finish(64<<10, 30*time.Millisecond, false)
	}
	if p.window != 1 || p.stretch == 1 {
		t.Fatalf("congested: window %d, spacing stretched by %d", p.window, p.stretch)
	}
	if _, ok := p.wait(time.Hour, 1, false, false); ok {
		t.Fatal("a small flush started into a congested store")
	}
	if _, ok := p.wait(time.Hour, windowFull-1, false, true); !ok {
		t.Fatal("a full flush has less than its window")
	}
	for range recoverAfter * windowMax * 2 {
		p.finish(64<<10, 8*time.Millisecond, false)
	}
	if p.window != windowMax || p.stretch != 1 {
		t.Fatalf("recovered: window %d, spacing stretched by %d", p.window, p.stretch)
	}
	// The slowness of lone PUTs is not ours to mend.
	for range 100 {
		p.finish(64<<10, 100*time.Millisecond, true)
	}
	if p.window != windowMax || p.stretch != 1 {
		t.Fatalf("after slow lone PUTs: window %d, spacing stretched by %d", p.window, p.stretch)
	}
	// A store that is slower for good is not congested for good.
	for range 60_000 {
		p.finish(64<<10, 40*time.Millisecond, false)
	}
	if p.window < windowMax/2 {
		t.Fatalf("a store that became slower holds the window at %d", p.window)
	}
}

// A store whose latency varies by itself, as one far away does, is not congested.
func TestPacerVariableStore(t *testing.T) {
	stores := map[string]struct{ median, p99, slow time.Duration }{
		"far":  {60 * time.Millisecond, 250 * time.Millisecond, 800 * time.Millisecond},
		"near": {6 * time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond},
	}
	for name, store := range stores {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 1))
			sigma := math.Log(float64(store.p99)/float64(store.median)) / 2.326
			p := newPacer(time.Millisecond, 0)
			narrow := 0
			const puts = 20_000
			for i := range puts {
				median := store.median
				if r.Float64() < 0.005 {
					median = store.slow
				}
				p.finish(100<<10, time.Duration(float64(median)*math.Exp(sigma*r.NormFloat64())), false)
				if i > 4*recoverAfter && (p.window < windowMax || p.stretch > 1) {
					narrow++
				}
			}
			if narrow > puts/50 {
				t.Errorf("%s store, seed %d: taken for congested during %d of %d PUTs", name, seed, narrow, puts)
			}
		}
	}
}

// A store that serves one request after the other is not kept full of them.
func TestPacerQueueingStore(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	p := newPacer(time.Millisecond, 0)
	sum, puts := 0, 5_000
	for range puts {
		each := 4 * time.Millisecond * time.Duration(p.window)
		p.finish(64<<10, time.Duration(float64(each)*math.Exp(.2*r.NormFloat64())), p.window == 1)
		sum += p.window
	}
	if mean := float64(sum) / float64(puts); mean > windowMax/2+1 {
		t.Errorf("a mean window of %.1f", mean)
	}
}
