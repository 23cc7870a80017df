package sim

import (
	"bytes"
	"testing"

	"github.com/tidemark-io/tidemark/tiering/batch"
)

func TestBatchesRoundTrip(t *testing.T) {
	for _, size := range []int{0, 20, 63, 64, 200, 9000} {
		values := [][]byte{bytes.Repeat([]byte{1}, size), {2}, bytes.Repeat([]byte{3}, size)}
		b := encodeBatch(7, 5, 1000, values)
		h, err := batch.Validate(bytes.Clone(b), batch.Rules{BytesMax: 1 << 20, InflatedMax: 1 << 20, TimestampMax: 1 << 60})
		if err != nil || h.ProducerID != 7 || h.BaseSequence != 5 || h.LastOffsetDelta != 2 {
			t.Fatalf("size %d: %+v, %v", size, h, err)
		}
		records, err := decodeBatches(append(bytes.Clone(b), b...))
		if err != nil || len(records) != 6 {
			t.Fatalf("size %d: %d records, %v", size, len(records), err)
		}
		for i, r := range records {
			if r.offset != int64(i%3) || !bytes.Equal(r.value, values[i%3]) {
				t.Errorf("size %d record %d: offset %d, %d bytes", size, i, r.offset, len(r.value))
			}
		}
	}
}

// A log that begins elsewhere than records were deleted is found out.
func TestLogStartIsJudged(t *testing.T) {
	for _, c := range []struct {
		start, least int64
		fine         bool
	}{{5, 5, true}, {10, 5, true}, {11, 5, false}, {4, 5, false}, {0, 0, true}} {
		w := newWorld(1, weather{}, newTrace(nil))
		w.judge = newJudge(w)
		w.judge.trims[0] = trimmed{asked: 10, done: 5}
		w.judge.began("r", "b", 0, c.start, c.least)
		if got := len(w.judge.found) == 0; got != c.fine {
			t.Errorf("log start %d, least %d: %v", c.start, c.least, w.judge.found)
		}
	}
}
