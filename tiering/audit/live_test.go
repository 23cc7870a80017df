package audit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/audit"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// TestLive audits a cluster again and again while producers write, leaders
// change, brokers die, close and come back.
func TestLive(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { live(t, seed, nil) })
		})
		t.Run(fmt.Sprint(seed, " tiering"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { live(t, seed, tiny) })
		})
	}
}

func live(t *testing.T, seed uint64, tune func(*tiering.Config)) {
	const partitions = 4
	w := newWorld(t)
	w.tune = tune
	r := rand.New(rand.NewPCG(seed, 0))
	slow := &slowStore{Store: w.store, r: rand.New(rand.NewPCG(seed, 1))}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for p := range int32(partitions) {
		wg.Go(func() {
			prod := &producer{id: int64(p)}
			for ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
				part := w.leader(p)
				if part == nil {
					continue
				}
				if err := prod.write(part, 1); err != nil && !errors.Is(err, tiering.ErrNotLeader) {
					prod.id, prod.next = prod.id+partitions, 0 // its fate is unknown: a new producer
				}
			}
		})
	}
	nodes := []*node{w.start(), w.start()}
	for p := range int32(partitions) {
		if _, err := w.lead(nodes[p%2], p); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex // r
	number := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
	wg.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(time.Duration(10+number(200)) * time.Millisecond)
			i := number(len(nodes))
			switch number(4) {
			case 0:
				nodes[i].kill()
				nodes[i] = w.start()
			case 1:
				_ = nodes[i].Close(ctx)
				nodes[i] = w.start()
			}
			for p := range int32(partitions) {
				if w.leader(p) == nil || number(4) == 0 {
					if _, err := w.lead(nodes[number(len(nodes))], p); err != nil && ctx.Err() == nil {
						t.Log("lead:", err)
					}
				}
			}
		}
	})
	var records int64
	for range 6 {
		time.Sleep(300 * time.Millisecond)
		cfg := w.config()
		cfg.Store = slow
		rep := w.audit(cfg)
		if !rep.Clean {
			t.Errorf("a live cluster is reported as broken\n%s", text(rep))
		}
		if rep.Totals.Records < records {
			t.Errorf("%d records after %d", rep.Totals.Records, records)
		}
		records = rep.Totals.Records
	}
	stop()
	wg.Wait()
	rep := w.audit(w.config())
	expect(t, rep)
	if tune != nil && (rep.Totals.Segments == 0 || rep.Totals.Extents == rep.Totals.Batches) {
		t.Errorf("nothing was tiered: %+v", rep.Totals)
	}
	if rep.Totals.Records < 500 || rep.Totals.ChainsSealed == 0 {
		t.Errorf("too little happened: %+v", rep.Totals)
	}
}

// A chain whose heirs have everything of it in checkpoints of their own loses its
// checkpoint, which an audit that saw it before does not take for damage.
func TestChainInheritedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b, c := w.build()
		for _, n := range []*node{a, b, c} {
			chain, _, err := metadata.LoadChain(context.Background(), w.kv, n.inc)
			if err != nil || chain.End == nil || chain.Checkpoint == 0 || chain.Inherited {
				continue
			}
			cfg := w.config()
			key := wal.CheckpointKey(n.inc, chain.Checkpoint)
			cfg.Store = &beforeGet{Store: w.store, key: key, f: func() {
				chain.Inherited = true
				w.put(metadata.ChainKey(n.inc), chain)
				w.delete(key)
			}}
			for _, p := range w.audit(cfg).Problems {
				if p.Kind == audit.KindCheckpoint {
					t.Errorf("%s: %s", p.Kind, p.What)
				}
			}
			return
		}
		t.Fatal("no sealed chain has a checkpoint")
	})
}

// beforeGet has f happen right before an object is read for the first time.
type beforeGet struct {
	object.Store
	key  string
	f    func()
	once sync.Once
}

func (s *beforeGet) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	if key == s.key {
		s.once.Do(s.f)
	}
	return s.Store.Get(ctx, key, pos, length)
}

// leader is the partition where it is led now, nil where nobody leads it.
func (w *world) leader(p int32) *tiering.Partition {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.logs {
		if part, err := n.Partition(w.tp(p)); err == nil {
			return part
		}
	}
	return nil
}

// slowStore takes its time, so that the cluster moves on while it is read.
type slowStore struct {
	object.Store
	mu sync.Mutex
	r  *rand.Rand
}

func (s *slowStore) wait() {
	s.mu.Lock()
	d := time.Duration(s.r.IntN(2000)) * time.Microsecond
	s.mu.Unlock()
	time.Sleep(d)
}

func (s *slowStore) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	s.wait()
	return s.Store.Get(ctx, key, pos, length)
}

func (s *slowStore) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	s.wait()
	return s.Store.List(ctx, prefix, after, limit)
}
