package tiering

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/batch"
)

// A compressed batch that does not inflate spoils no lookup by time.
func TestLookupPastBatchThatDoesNotInflate(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	write(t, p, "before")
	raw, _ := makeBatch(-1, -1, -1, 5000, "not a zstd frame")
	raw[22] |= byte(batch.Zstd)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	h, err := batch.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	ap, err := p.Append(raw, h, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	<-ap.Done()
	if at, err := p.OffsetForTimestamp(t.Context(), 4000); err != nil || at.Offset != 1 || at.Timestamp != 5000 {
		t.Fatalf("%+v, %v", at, err)
	}
	if at, err := p.MaxTimestamp(t.Context()); err != nil || at.Offset != 1 {
		t.Fatalf("%+v, %v", at, err)
	}
}

func TestReadLimits(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	raw, h := makeBatch(-1, -1, -1, 0, "0", "1", "2")
	if _, err := p.Append(raw, h, 0, false); err != nil {
		t.Fatal(err)
	}
	write(t, p, "3", "4")
	for _, maxBytes := range []int{math.MinInt, -1, 0, 1, h.Length - 1, h.Length} {
		res, err := p.Read(t.Context(), 1, maxBytes)
		if err != nil || len(res.Records) != h.Length {
			t.Fatalf("maxBytes %d: %d bytes, %v; want the one batch that holds the offset", maxBytes, len(res.Records), err)
		}
		res.Release()
	}
	for _, limit := range []int64{math.MinInt64, -1, 0} {
		if n := p.Available(0, limit); n > 0 {
			t.Fatalf("%d bytes available of at most %d", n, limit)
		}
	}
	if n := p.Available(5, 100); n != 0 {
		t.Fatalf("%d bytes available at the high watermark", n)
	}
}

func TestEpochEndOfNoEpoch(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	for _, epoch := range []int32{-1, 1, math.MinInt32, math.MaxInt32} {
		if got := p.EpochEnd(epoch); got != (EpochEnd{Epoch: -1, End: -1}) {
			t.Errorf("end of epoch %d: %+v", epoch, got)
		}
	}
}

// What a read returns goes on without a gap: where a batch does not fit any more it
// ends, though a smaller one that comes later, elsewhere, would.
func TestReadEndsWhereItIsFull(t *testing.T) {
	w := newWorld(t)
	w.tune = func(cfg *Config) { cfg.FlushSpacing = 50 * time.Millisecond }
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	write(t, p, "first") // the next flush waits for what comes in the meantime
	release, err := a.Admit(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	many, few, large := numbered("v", 200), []string{"few"}, []string{strings.Repeat("large", 200)}
	var last *Appended
	for _, values := range [][]string{many, few, large} {
		raw, h := makeBatch(-1, -1, -1, 0, values...)
		if last, err = p.Append(raw, h, 0, false); err != nil {
			t.Fatal(err)
		}
	}
	release()
	settled(t, last, nil)
	write(t, p, "later")
	if n := len(p.seen().tail); n != 3 {
		t.Fatalf("%d extents", n)
	}
	for maxBytes := 1; maxBytes < 2000; maxBytes += 50 {
		res, err := p.Read(t.Context(), 201, maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		next := int64(201)
		for b := res.Records; len(b) > 0; {
			h, err := batch.Parse(b)
			if err != nil || h.BaseOffset != next {
				t.Fatalf("at most %d bytes: offset %d follows %d, %v", maxBytes, h.BaseOffset, next, err)
			}
			next, b = h.LastOffset()+1, b[h.Length:]
		}
		res.Release()
	}
}
