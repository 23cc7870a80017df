package tiering

import (
	"math"
	"testing"
)

// The rules of Kafka's ProducerAppendInfo, step by step.
func TestProducerRules(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	step := func(name string, epoch int16, seq int32, n int, want error, dup int64) {
		t.Helper()
		raw, h := makeBatch(7, epoch, seq, 0, make([]string, n)...)
		ap, err := p.Append(raw, h, 0, false)
		if err != want {
			t.Fatalf("%s: %v, want %v", name, err, want)
		}
		if err != nil {
			return
		}
		if ap.Duplicate != (dup >= 0) || ap.Duplicate && ap.BaseOffset != dup {
			t.Fatalf("%s: duplicate %v at offset %d, want %d", name, ap.Duplicate, ap.BaseOffset, dup)
		}
		if <-ap.Done(); ap.Err() != nil {
			t.Fatal(ap.Err())
		}
	}
	step("unknown producer in the middle", 0, 5, 1, ErrOutOfOrderSequence, -1)
	step("first", 0, 0, 3, nil, -1)
	step("the same again", 0, 0, 3, nil, 0)
	step("the same, cut short", 0, 0, 2, ErrOutOfOrderSequence, -1)
	step("gap", 0, 4, 1, ErrOutOfOrderSequence, -1)
	for i := range 5 {
		step("next", 0, int32(3+i), 1, nil, -1)
	}
	step("oldest of the window", 0, 3, 1, nil, 3)
	step("beyond the window", 0, 0, 3, ErrOutOfOrderSequence, -1)
	step("newer epoch in the middle", 1, 8, 1, ErrOutOfOrderSequence, -1)
	step("newer epoch", 1, 0, 1, nil, -1)
	step("older epoch", 0, 8, 1, ErrInvalidProducerEpoch, -1)
	step("older epoch, known batch", 0, 7, 1, ErrInvalidProducerEpoch, -1)
	p.mu.Lock()
	s := p.manifest.producers.byID[7] // as after a long life
	s.batches[0].BaseSequence = math.MaxInt32 - 1
	s.now.sequence = math.MaxInt32 - 1
	s.ahead = s.now
	p.mu.Unlock()
	step("up to the wrap", 1, math.MaxInt32, 3, nil, -1)
	step("that again", 1, math.MaxInt32, 3, nil, 9)
	step("after the wrap", 1, 2, 1, nil, -1)
	// A successor goes on from there.
	a.kill()
	b := w.start(w.store)
	p = w.lead(b, partition(0), owners(a, b))
	step("duplicate across leaders", 1, math.MaxInt32, 3, nil, 9)
	step("next after leaders changed", 1, 3, 1, nil, -1)
}
