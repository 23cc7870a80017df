package batch

import (
	"errors"
	"runtime"
	"slices"
	"testing"
)

// TestScanAgreesWithWalk: what is inflated record by record says the same as
// what is inflated first.
func TestScanAgreesWithWalk(t *testing.T) {
	type seen struct {
		offset  int32
		ts      int64
		key     bool
		value   bool
		headers int
	}
	see := func(to *[]seen) func(*Record) error {
		return func(r *Record) error {
			*to = append(*to, seen{r.OffsetDelta, r.TimestampDelta, r.Key != nil, r.Value != nil, r.Headers})
			return nil
		}
	}
	var want []seen
	if err := Walk(three(), 3, see(&want)); err != nil {
		t.Fatal(err)
	}
	payloads := map[Codec][][]byte{Snappy: {xerial(three()), xerial(three()[:5], nil, three()[5:])}}
	for c := None; c <= Zstd; c++ {
		payloads[c] = append(payloads[c], compress(t, c, three()))
	}
	for c, all := range payloads {
		for i, payload := range all {
			b := build(payload, 3, int16(c))
			h, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			var got []seen
			if err := Scan(b, &h, 1<<20, see(&got)); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s %d: %v, %v, want %v", c, i, got, err, want)
			}
		}
	}
}

// TestScanHoldsLittle: a record far larger than the window is passed over.
func TestScanHoldsLittle(t *testing.T) {
	const inflated = 48 << 20
	for c := Gzip; c <= Zstd; c++ {
		if c == Snappy {
			continue // one block is inflated as a whole
		}
		b := build(compress(t, c, record(0, 0, []byte("k"), make([]byte, inflated))), 1, int16(c))
		h, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := Scan(b, &h, inflated+1024, func(*Record) error { return nil }); err != nil {
			t.Errorf("%s: %v", c, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > inflated/2 {
			t.Errorf("%s: %d MiB allocated for %d", c, n>>20, inflated>>20)
		}
		if err := Scan(b, &h, inflated, func(*Record) error { return nil }); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s above the limit: %v", c, err)
		}
	}
}
