package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/tidemark-io/tidemark/cache/flow"
)

// queue makes one after the other wait, and returns in which order they are
// served when one token goes round.
func queue(t *testing.T, flows ...flow.Flow) string {
	t.Helper()
	var got []string
	synctest.Test(t, func(t *testing.T) {
		q := newTurns(1)
		if err := q.acquire(t.Context(), flow.Flow{}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i, f := range flows {
			wg.Go(func() {
				if err := q.acquire(t.Context(), f); err != nil {
					t.Error(err)
				}
				got = append(got, fmt.Sprintf("%v%v%d", f.Reader, f.Stream, i))
				q.release()
			})
			synctest.Wait()
		}
		q.release()
		wg.Wait()
		if q.free != 1 || len(q.waiting.byKey) != 0 {
			t.Errorf("%d tokens, %d readers are left", q.free, len(q.waiting.byKey))
		}
	})
	return strings.Join(got, " ")
}

func TestReadersTakeTurns(t *testing.T) {
	a, b, c := flow.Flow{Reader: "a", Stream: "x"}, flow.Flow{Reader: "b", Stream: "x"}, flow.Flow{Reader: "c", Stream: "x"}
	if got, want := queue(t, a, a, a, a, b, b, c), "ax0 bx4 cx6 ax1 bx5 ax2 ax3"; got != want {
		t.Errorf("served %s, want %s", got, want)
	}
}

func TestStreamsOfAReaderTakeTurns(t *testing.T) {
	ax, ay, bx := flow.Flow{Reader: "a", Stream: "x"}, flow.Flow{Reader: "a", Stream: "y"}, flow.Flow{Reader: "b", Stream: "x"}
	if got, want := queue(t, ax, ax, ax, ay, ay, bx), "ax0 bx5 ay3 ax1 ay4 ax2"; got != want {
		t.Errorf("served %s, want %s", got, want)
	}
}

// However many give up, no token is lost and none is made.
func TestTurnsUnderCancellation(t *testing.T) {
	const tokens = 3
	q := newTurns(tokens)
	var mu sync.Mutex
	held, most := 0, 0
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if r.IntN(2) == 0 {
				n := r.IntN(3000)
				go func() {
					for range n {
					}
					cancel()
				}()
			}
			if q.acquire(ctx, flow.Flow{Reader: r.IntN(5), Stream: r.IntN(5)}) != nil {
				return
			}
			mu.Lock()
			held++
			most = max(most, held)
			mu.Unlock()
			for range r.IntN(3000) {
			}
			mu.Lock()
			held--
			mu.Unlock()
			q.release()
		})
	}
	wg.Wait()
	if most > tokens || q.free != tokens || len(q.waiting.byKey) != 0 {
		t.Errorf("%d held at once, %d free, %d readers left", most, q.free, len(q.waiting.byKey))
	}
}

// A reader that prefetches all it can leaves the next its share.
func TestPrefetchesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openMemory(t, Config{LoadsMax: 8})
		s := &store{delay: 1 << 40}
		defer c.Close()
		prefetch := func(reader string, n int) (begun int) {
			ctx := flow.WithReader(t.Context(), reader)
			before := c.prefetches
			for i := range n {
				c.Prefetch(ctx, reader, int64(i), s.load(reader, int64(i)))
			}
			return c.prefetches - before
		}
		got := []int{prefetch("a", 10), prefetch("b", 10)}
		if want := []int{4, 1}; !slices.Equal(got, want) {
			t.Errorf("prefetches of two readers: %v, want %v", got, want)
		}
	})
}
