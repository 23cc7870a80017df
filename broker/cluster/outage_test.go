package cluster

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
	"github.com/tidemark-io/tidemark/tiering"
)

// A report of a failing bucket that was written although its answer was lost is
// taken back: others would hold it against the broker, and the bucket, for ever.
func TestBucketStateOfUnknownFateIsWrittenAgain(t *testing.T) {
	inCluster(t, 2, func(r *rig) {
		time.Sleep(2 * time.Second)
		m := r.other()
		key := metadata.BrokerKey(m.inc)
		var lost atomic.Bool
		m.client.Inject(func(c mem.Call) (mem.Fault, bool) {
			switch {
			case c.Op == "txn" && len(c.Txn.Then) > 0 && c.Txn.Then[0].Key == key && !lost.Swap(true):
				return mem.FailAfter(), true
			case lost.Load() && c.Op == "get" && slices.Contains(c.Keys, key):
				return mem.FailBefore(), true
			}
			return mem.Fault{}, false
		})
		shown := func() bool { b, _ := r.view.Broker(m.inc); return b.BucketFailing }
		m.log.stick(time.Now())
		r.eventually(5*time.Second, "told", shown)
		m.log.stick(time.Time{})
		time.Sleep(2 * registerTimeout)
		m.client.Inject(nil)
		r.eventually(5*time.Second, "taken back", func() bool { return !shown() })
	})
}

// A broker that cannot close its chain still ends its registration: its keys
// would stay for the time of a lease, its id be another's.
func TestDrainWithoutBucketEndsTheSession(t *testing.T) {
	inCluster(t, 1, func(r *rig) {
		topic := r.topic("orders", 3)
		r.settle(topic, 3)
		m := r.nodes[0]
		m.log.hang()
		begun := time.Now()
		if err := m.Drain(r.ctx); err == nil {
			t.Error("the chain was closed without a bucket")
		}
		if took := time.Since(begun); took > drainMax+closeMax+endMax {
			t.Errorf("took %v", took)
		}
		if entries, _, err := r.admin.Get(r.ctx, metadata.BrokerKey(m.inc)); err != nil || entries[0].Exists() {
			t.Errorf("still registered: %v", err)
		}
	})
}

// behind is a view that shows nothing new.
type behind struct{ View }

func (behind) Revision() int64 { return 0 }

func (behind) WaitRevision(context.Context, int64) error { return context.DeadlineExceeded }

// Nothing is assigned on the ground of a view that is older than the term.
func TestControllerWaitsForItsView(t *testing.T) {
	inCluster(t, 1, func(r *rig) {
		m := r.nodes[0]
		r.settle(r.topic("orders", 3), 3)
		n, err := New(Config{
			Incarnation: m.inc, KV: m.client, View: behind{r.view}, Session: m.session, Log: newFakeLog(r.bucket, m.client, m.inc), Single: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		n.controller.elected(metadata.Controller{Incarnation: m.inc}, 1)
		for range 2 {
			if _, err := n.controller.step(r.ctx); err == nil {
				t.Fatal("assigned")
			}
		}
	})
}

// stalled is a view that shows nothing new until it moves, and notes for how long
// nobody waited for it.
type stalled struct {
	View
	moves chan struct{}
	mu    sync.Mutex
	left  time.Time // when the last wait ended
	gaps  []time.Duration
}

func (v *stalled) WaitRevision(ctx context.Context, _ int64) error {
	v.mu.Lock()
	if !v.left.IsZero() {
		v.gaps = append(v.gaps, time.Since(v.left))
	}
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		v.left = time.Now()
		v.mu.Unlock()
	}()
	select {
	case <-v.moves:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A controller whose view has been behind for long goes on as soon as it no longer
// is: the wait is no failure of the store, to be left alone ever longer.
func TestControllerWaitsWithoutBackoff(t *testing.T) {
	inCluster(t, 1, func(r *rig) {
		m := r.nodes[0]
		r.settle(r.topic("orders", 3), 3)
		v := &stalled{View: r.view, moves: make(chan struct{})}
		n, err := New(Config{
			Incarnation: m.inc, KV: m.client, View: v, Session: m.session, Log: newFakeLog(r.bucket, m.client, m.inc), Single: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		n.controller.elected(metadata.Controller{Incarnation: m.inc}, 1)
		ctx, cancel := context.WithCancel(r.ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = n.controller.run(ctx) // ends with ctx alone
		}()
		time.Sleep(time.Minute)
		cancel()
		<-done
		if len(v.gaps) < 8 || slices.Max(v.gaps) > 200*time.Millisecond {
			t.Errorf("not waiting for %v", v.gaps)
		}
	})
}

// A partition whose topic is deleted while it could not be released is let go.
func TestDeletedWhileReleasing(t *testing.T) {
	inCluster(t, 1, func(r *rig) {
		topic := r.topic("orders", 1)
		r.settle(topic, 1)
		m, tp := r.nodes[0], metadata.TopicPartition{Topic: topic.ID}
		r.bucket.setDown(true)
		if got, _ := m.Release(r.ctx, 99, []tiering.Claim{{Partition: tp, Epoch: 0}}); len(got) != 0 {
			t.Fatalf("released %v", got)
		}
		if _, err := metadata.DeleteTopic(r.ctx, r.admin, topic.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * releaseTimeout)
		r.bucket.setDown(false)
		time.Sleep(2 * releaseTimeout)
		if l := r.bucket.leaders(tp); len(l) != 0 {
			t.Errorf("led by %v", l)
		}
	})
}
