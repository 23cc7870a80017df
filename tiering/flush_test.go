package tiering

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// What is stored compressed can be read again, whatever its size.
func TestCompressedSizesRoundTrip(t *testing.T) {
	var c compressor
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{512, 4 << 10, 1 << 20, 1<<20 + 1, 2<<20 + 1, 3 << 20, 4<<20 + 7, 16 << 20, 20<<20 + 3} {
		raw := make([]byte, n)
		for i := 0; i < n; i += 4 {
			raw[i] = byte(r.Uint32())
		}
		out, ok := c.compress(metadata.TopicID{byte(n)}, raw)
		if !ok {
			continue
		}
		back, err := wal.Inflate(out, int64(n))
		if err != nil || !bytes.Equal(back, raw) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// The incarnation may end while a flush is being encoded (run with -race).
func TestFailWhileEncoding(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	raw, hd := makeBatch(-1, -1, -1, 0, string(bytes.Repeat([]byte("long to compress "), 200_000)))
	ap, err := p.Append(raw, hd, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	for taken := false; !taken; {
		a.mu.Lock()
		_, taken = a.unresolved[a.nextSlot-1]
		a.mu.Unlock()
	}
	a.fail(ErrFenced)
	<-ap.Done()
	_ = ap.Trace()
}

// A partition that stays does not hold on to the object that carried its OPEN.
func TestCommittedFlushIsStripped(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	if p.opened.raw != nil || p.opened.parts != nil || p.opened.head != nil {
		t.Fatal("an open partition pins the object that carried its OPEN")
	}
}
