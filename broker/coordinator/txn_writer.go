package coordinator

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/metadata"
)

// txnWritesInFlight transactions of the store carry states of transactions at a
// time. What comes meanwhile shares the next.
const txnWritesInFlight = 4

// txnWriter writes states of transactions, many in one transaction of the store.
// The queue is bounded by the number of transactional ids, each of which has at
// most one state on its way.
type txnWriter struct {
	c *Coordinator

	mu       sync.Mutex // taken after a shard's
	queue    []*txnOp
	inflight int
	stopped  bool
	idle     []chan struct{} // closed when there is nothing left to write
}

func (w *txnWriter) enqueue(op *txnOp) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false
	}
	w.queue = append(w.queue, op)
	w.start()
	return true
}

// start sends what waits, as far as there is room in flight.
func (w *txnWriter) start() {
	for w.inflight < txnWritesInFlight && len(w.queue) > 0 {
		n := w.fits()
		ops := make([]storeOp, n)
		for i, op := range w.queue[:n] {
			ops[i] = op
		}
		if !w.c.spawn(func() { w.send(ops) }) {
			return // stop refuses them
		}
		w.inflight++
		if w.queue = w.queue[n:]; len(w.queue) == 0 {
			w.queue = nil
		}
	}
}

// fits is how many of the queue one transaction holds, at least one.
func (w *txnWriter) fits() int {
	shards, bytes := map[*shard]bool{}, 0
	for i, op := range w.queue {
		shards[op.sh] = true
		bytes += len(op.op.Value) + 3*len(op.op.Key) + 2*opOverhead
		if i > 0 && (i+1 > txnOpsMax || i+1+len(shards) > metadata.MaxTxnOps || bytes > txnBytesMax) {
			return i
		}
	}
	return len(w.queue)
}

func (w *txnWriter) send(ops []storeOp) {
	w.c.metrics.txnWriteStates.Observe(float64(len(ops)))
	w.c.store(ops)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inflight--
	w.start()
	w.signalIdle()
}

func (w *txnWriter) signalIdle() {
	if len(w.queue) > 0 || w.inflight > 0 {
		return
	}
	for _, ch := range w.idle {
		close(ch)
	}
	w.idle = nil
}

// drain waits until what is queued is written.
func (w *txnWriter) drain(ctx context.Context) error {
	w.mu.Lock()
	idle := make(chan struct{})
	w.idle = append(w.idle, idle)
	w.signalIdle()
	w.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop refuses what is still queued, and whatever comes.
func (w *txnWriter) stop() {
	w.mu.Lock()
	queue := w.queue
	w.queue, w.stopped = nil, true
	w.mu.Unlock()
	for _, op := range queue {
		op.fail(kerr.NotCoordinator)
	}
}
