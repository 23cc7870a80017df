package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// committer gathers commits for a moment and writes them in few transactions. A
// chunk is in one transaction at a time, and a commit waits behind earlier ones
// of the same chunks, so that the order per chunk is that of acceptance.
type committer struct {
	c *Coordinator

	mu    sync.Mutex
	queue []*commit
	bytes int
	// timer fires when the oldest commit has waited long enough; armed says
	// that it will.
	timer *time.Timer
	armed bool
	// forming: one goroutine has the queue and makes batches of it.
	forming  bool
	inflight int
	ended    uint64 // transactions that are over
	stopped  bool
	idle     []chan struct{} // closed when there is nothing left to write
}

// enqueue takes a commit, unless too much waits already.
func (m *committer) enqueue(cm *commit) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped || len(m.queue) >= queuedCommitsMax || m.bytes+cm.bytes > queuedBytesMax {
		return false
	}
	m.queue = append(m.queue, cm)
	m.bytes += cm.bytes
	if len(m.queue) >= txnOpsMax || m.bytes >= txnBytesMax || m.c.cfg.Gather < 0 || m.c.draining.Load() {
		m.start()
	} else if !m.armed {
		m.arm()
	}
	return true
}

func (m *committer) arm() {
	m.armed = true
	if m.timer == nil {
		m.timer = time.AfterFunc(m.c.cfg.Gather, func() { m.c.within(m.fire) })
		return
	}
	m.timer.Reset(m.c.cfg.Gather)
}

func (m *committer) fire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.armed = false
	m.start()
}

// start begins to make batches if there is anything to make them of and room in
// flight. Otherwise the end of what is in flight does.
func (m *committer) start() {
	if m.forming || m.inflight >= commitsInFlight || len(m.queue) == 0 {
		return
	}
	queue, slots := m.queue, commitsInFlight-m.inflight
	m.queue, m.bytes = nil, 0
	ended := m.ended
	m.forming = m.c.spawn(func() { m.form(queue, slots, ended) })
	if !m.forming {
		m.putBack(queue)
	}
}

// putBack returns commits to the head of the queue.
func (m *committer) putBack(rest []*commit) {
	m.queue = append(rest, m.queue...)
	for _, cm := range rest {
		m.bytes += cm.bytes
	}
}

// form makes batches of the queue and sends them.
func (m *committer) form(queue []*commit, slots int, ended uint64) {
	f := former{slots: slots, blocked: map[*chunk]bool{}}
	for _, cm := range queue {
		f.place(cm)
	}
	f.close()
	for _, b := range f.done {
		b.seal()
	}
	m.formed(f.done, f.rest, ended)
}

// formed begins to send batches and queues again what has to wait.
func (m *committer) formed(batches []*batch, rest []*commit, ended uint64) {
	m.mu.Lock()
	arrived, stopped := len(m.queue) > 0, m.stopped
	if !stopped {
		m.putBack(rest)
	}
	m.forming = false
	var late []*batch
	for _, b := range batches {
		m.inflight++
		if !m.c.spawn(func() { m.send(b) }) {
			m.inflight--
			late = append(late, b)
		}
	}
	if arrived && !m.armed {
		m.arm()
	}
	if m.ended != ended {
		m.start() // what ended meanwhile found the queue taken
	}
	m.signalIdle()
	m.mu.Unlock()
	for _, b := range late {
		for _, op := range b.ops {
			op.fail(kerr.NotCoordinator)
		}
	}
	if stopped {
		abandonAll(rest)
	}
}

func abandonAll(queue []*commit) {
	for _, cm := range queue {
		cm.sh.mu.Lock()
		cm.abandon(kerr.NotCoordinator)
		cm.sh.mu.Unlock()
	}
}

// send writes a batch and tells its commits.
func (m *committer) send(b *batch) {
	m.c.metrics.txnOps.Observe(float64(len(b.ops)))
	m.c.metrics.txnCommits.Observe(float64(b.commits))
	ops := make([]storeOp, len(b.ops))
	for i, op := range b.ops {
		ops[i] = op
	}
	m.c.store(ops)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inflight--
	m.ended++
	m.start()
	m.signalIdle()
}

// succeed makes the changes in memory and tells the commits. What is in memory
// is durable, always.
func (op *batchOp) succeed(rev int64) {
	op.end(func() {
		committed := op.chunk.committed(op.parts)
		op.chunk.apply(op.parts)
		op.sh.c.mirror.offsets(op.sh, op.e.id, op.id.topic, committed)
		op.chunk.rev = rev
		if op.op.Delete {
			op.chunk.rev = 0
		}
	}, nil)
}

func (op *batchOp) fail(err *kerr.Error) { op.end(func() {}, err) }

// end lets go of the chunk. In a later term the chunk is nobody's.
func (op *batchOp) end(change func(), err *kerr.Error) {
	op.sh.mu.Lock()
	defer op.sh.mu.Unlock()
	if op.sh.term == op.term {
		change()
		op.chunk.batch = nil
		if op.chunk.rev == 0 && len(op.chunk.parts) == 0 && op.e.chunks[op.id] == op.chunk {
			delete(op.e.chunks, op.id)
		}
	}
	for _, cm := range op.commits {
		cm.resolve(op.id, err)
	}
}

// drain writes what is queued, at once.
func (m *committer) drain(ctx context.Context) error {
	m.mu.Lock()
	idle := make(chan struct{})
	m.idle = append(m.idle, idle)
	m.start()
	m.signalIdle()
	m.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *committer) signalIdle() {
	if len(m.queue) > 0 || m.forming || m.inflight > 0 {
		return
	}
	for _, ch := range m.idle {
		close(ch)
	}
	m.idle = nil
}

// stop refuses everything that is still queued. No batch is made any more.
func (m *committer) stop() {
	m.mu.Lock()
	queue := m.queue
	m.queue, m.bytes, m.stopped = nil, 0, true
	if m.timer != nil {
		m.timer.Stop()
	}
	m.mu.Unlock()
	abandonAll(queue)
}
