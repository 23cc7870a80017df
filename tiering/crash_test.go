package tiering

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// mortal is the bucket of a process that dies at one of its writes: before it,
// or after it with the answer lost.
type mortal struct {
	object.Store
	mu    sync.Mutex
	left  int
	after bool
	die   func()
	died  string // at which request
}

var errDead = errors.New("the process is dead")

func (m *mortal) write(kind, key string, f func() error) error {
	m.mu.Lock()
	if m.died != "" {
		m.mu.Unlock()
		return errDead
	}
	m.left--
	dying := m.left == 0
	if dying {
		m.died = kind + " " + key
	}
	m.mu.Unlock()
	if !dying {
		return f()
	}
	if m.after {
		_ = f()
	}
	m.die()
	return errDead
}

func (m *mortal) Create(ctx context.Context, key string, data ...[]byte) error {
	return m.write("create", key, func() error { return m.Store.Create(ctx, key, data...) })
}

func (m *mortal) Delete(ctx context.Context, key string) error {
	return m.write("delete", key, func() error { return m.Store.Delete(ctx, key) })
}

// Wherever in a life of writing, tiering, trimming and deleting a broker dies,
// what it acknowledged is there afterwards, once, and in the end nothing else.
func TestCrashAtEveryWrite(t *testing.T) {
	kinds := make(map[string]bool)
	step := 1
	if testing.Short() {
		step = 5
	}
	for _, after := range []bool{false, true} {
		for n := 1; ; n += step {
			died := ""
			synctest.Test(t, func(t *testing.T) { died = crashAt(t, n, after) })
			if died == "" {
				break // it lived to the end
			}
			if t.Failed() {
				t.Fatalf("it died at its write %d, %s, applied %v", n, died, after)
			}
			kinds[died[:8]] = true
		}
	}
	for _, want := range []string{"create w", "create k", "create s", "create x", "delete w", "delete k"} {
		if !kinds[want] && step == 1 {
			t.Errorf("nobody died at %q", want)
		}
	}
}

func crashAt(t *testing.T, n int, after bool) (died string) {
	w := newTieringWorld(t)
	m := &mortal{Store: w.store, left: n, after: after, die: func() {}}
	dead, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.store = m
	var acked [2][]string
	var asked, deleted [2]int64 // below what records were to be deleted, and are
	w.tune = func(cfg *Config) { tiny(cfg); cfg.SegmentBytes = 1000 }
	m.left++ // a chain that never began
	a, err := w.tryStart(m)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.die = func() { cancel(); go a.kill() }
	m.mu.Unlock()
	list := owners(a)
	var parts [2]*Partition
	for i := range parts {
		w.put(metadata.PartitionKey(partition(int32(i))), metadata.Partition{Owners: list})
		if errs := a.Lead(dead, []LeadRequest{{Partition: partition(int32(i)), Owners: list}}); len(errs) > 0 {
			break
		}
		parts[i], _ = a.Partition(partition(int32(i)))
	}
	for i := 0; i < 60 && dead.Err() == nil; i++ {
		p := min(1, i%5) // four of five to one, the rest to the other
		if parts[p] == nil {
			break
		}
		value := fmt.Sprint("value ", i)
		raw, h := makeBatch(-1, -1, -1, int64(i), value)
		ap, err := parts[p].Append(raw, h, 0, false)
		if err != nil {
			break
		}
		select {
		case <-ap.Done():
		case <-dead.Done():
		}
		if dead.Err() != nil || ap.Err() != nil {
			break
		}
		acked[p] = append(acked[p], value)
		if i%20 == 0 {
			time.Sleep(time.Second)
		}
		if i%25 == 24 {
			asked[p] = int64(len(acked[p]) / 2)
			if low, err := parts[p].DeleteRecords(dead, asked[p]); err == nil {
				deleted[p] = low
			}
		}
	}
	select {
	case <-dead.Done():
	case <-time.After(5 * time.Second):
	}
	died = m.died
	a.kill()
	w.store = m.Store
	b := w.start(w.store)
	for i := range acked {
		tp := partition(int32(i))
		p := w.lead(b, tp, owners(a, b))
		start := p.Offsets().LogStart
		if start < deleted[i] || start > asked[i] {
			t.Errorf("partition %d begins at %d; records below %d were deleted, and below %d were to be", i, start, deleted[i], asked[i])
		}
		acked[i] = acked[i][min(start, int64(len(acked[i]))):]
		values := readAll(t, p, start, 1<<20)
		if len(values) > len(acked[i])+1 { // the one whose fate it never learnt
			t.Errorf("partition %d: %d values, %d acknowledged", i, len(values), len(acked[i]))
		}
		equal(t, values[:min(len(values), len(acked[i]))], acked[i])
	}
	if _, err := b.Seal(t.Context(), a.cfg.Incarnation); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Second)
	w.checkAccounted(b, len(acked))
	for i := range acked {
		p, err := b.Partition(partition(int32(i)))
		if err != nil {
			t.Fatal(err)
		}
		values := readAll(t, p, p.Offsets().LogStart, 1<<20)
		equal(t, values[:min(len(values), len(acked[i]))], acked[i])
	}
	b.kill()
	return died
}

// checkAccounted wants nothing in the bucket but what n's manifests name, and
// what is kept of chains.
func (w *world) checkAccounted(n *node, partitions int) {
	w.t.Helper()
	named := make(map[string]bool)
	for i := range partitions {
		p, err := n.Partition(partition(int32(i)))
		if err != nil {
			w.t.Fatal(err)
		}
		m := p.seen()
		if m.untiered > 0 {
			w.t.Errorf("%d bytes of %s are not tiered", m.untiered, p.tp)
		}
		keys, err := n.namedKeys(w.t.Context(), m)
		if err != nil {
			w.t.Fatal(err)
		}
		for key := range keys {
			named[key] = true
		}
	}
	slots := make(map[metadata.Incarnation]int)
	for _, key := range w.keys("") {
		switch key[0] {
		case 's', 'x', 'm':
			if !named[key] {
				w.t.Errorf("%s is named by nobody and still there", key)
			}
		case 'w':
			inc, err := metadata.ParseIncarnation(key[5:21])
			if err != nil {
				w.t.Fatal(err)
			}
			slots[inc]++
			if _, slot, _ := wal.ParseSlotKey(key); slot < w.chain(inc).Trim {
				w.t.Errorf("%s lies below the trim mark and is still there", key)
			}
		case 'k':
			inc, slot, _ := wal.ParseCheckpointKey(key)
			if c := w.chain(inc); slot != c.Checkpoint || c.Collected {
				w.t.Errorf("%s is still there: %+v", key, c)
			}
		}
	}
	for inc, count := range slots {
		// The newest below the end, what ended it, and what was in flight beyond it.
		if count > slotsKept+1+windowMax && inc != n.cfg.Incarnation {
			w.t.Errorf("%d slots are left of chain %s: %+v", count, inc, w.chain(inc))
		}
	}
}
