package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/jitter"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/seeded"
)

var (
	// errUnknownFate: the write may have been applied, or may be later.
	errUnknownFate = errors.New("fate of the write is unknown")
	// errConflict: the write was not applied, because keys were not as known.
	errConflict = errors.New("stored state is not as known")
	errFenced   = errors.New("shard has another coordinator")
)

// guard names the revision of a shard's key that a write is made under.
type guard struct {
	shard int
	rev   int64
}

// write is one transaction. It is safe to send again if every key that it
// replaces is among conds: then it is applied at most once.
type write struct {
	guards []guard
	conds  []metadata.Cond
	ops    []metadata.Op
	once   bool // not safe to send again
	// ambiguous is set once a transaction with these operations was sent and
	// not answered.
	ambiguous bool
}

// outcome is what became of a write that did not fail.
type outcome struct {
	applied bool
	// revs are the revisions of the keys in conds, in order, when applied.
	revs []int64
	// fenced are the shards that have another coordinator. A write for
	// several shards can have been applied before one of them moved.
	fenced []int
}

// apply sends w until its fate is known or ctx ends. An error other than
// errUnknownFate means that nothing was written.
func (c *Coordinator) apply(ctx context.Context, w *write) (outcome, error) {
	txn := w.txn()
	for attempt := 0; ; attempt++ {
		began := time.Now()
		attemptCtx, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
		res, err := c.send(attemptCtx, txn)
		cancel()
		c.metrics.txn(time.Since(began), err)
		switch {
		case err == nil && res.Succeeded:
			return w.succeeded(res.Revision), nil
		case err == nil:
			return w.refused(res)
		case !isAmbiguous(err) && w.ambiguous:
			return outcome{}, fmt.Errorf("%w: %w", errUnknownFate, err)
		case !isAmbiguous(err):
			return outcome{}, err
		}
		w.ambiguous = true
		if w.once || !pause(ctx, attempt) {
			return outcome{}, fmt.Errorf("%w: %w", errUnknownFate, err)
		}
	}
}

func (c *Coordinator) send(ctx context.Context, txn metadata.Txn) (metadata.TxnResult, error) {
	if err := failpoint.Hit(failpoint.GroupBeforeTxn); err != nil {
		return metadata.TxnResult{}, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	res, err := c.cfg.KV.Txn(ctx, txn)
	if err != nil {
		return res, err
	}
	if err := failpoint.Hit(failpoint.GroupAfterTxn); err != nil {
		return metadata.TxnResult{}, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	return res, nil
}

func (w *write) txn() metadata.Txn {
	txn := metadata.Txn{Then: w.ops}
	if seeded.GroupUnfenced {
		return txn
	}
	for _, g := range w.guards {
		key := metadata.CoordinatorKey(g.shard)
		txn.If = append(txn.If, metadata.Cond{Key: key, ModRevision: g.rev})
		txn.Else = append(txn.Else, key)
	}
	for _, cond := range w.conds {
		txn.If = append(txn.If, cond)
		txn.Else = append(txn.Else, cond.Key)
	}
	return txn
}

func (w *write) succeeded(rev int64) outcome {
	o := outcome{applied: true, revs: make([]int64, len(w.conds))}
	puts := w.puts()
	for i, cond := range w.conds {
		switch op, ok := puts[cond.Key]; {
		case !ok:
			o.revs[i] = cond.ModRevision
		case !op.Delete:
			o.revs[i] = rev
		}
	}
	return o
}

// puts are the operations on the keys in conds.
func (w *write) puts() map[string]metadata.Op {
	m := make(map[string]metadata.Op, len(w.ops))
	for _, op := range w.ops {
		m[op.Key] = op
	}
	return m
}

// refused explains a transaction whose conditions did not hold. After an
// ambiguous attempt the reason may be that this very write was applied: then
// every key that it changes is as it left it.
func (w *write) refused(res metadata.TxnResult) (outcome, error) {
	if len(res.Else) != len(w.guards)+len(w.conds) {
		return outcome{}, fmt.Errorf("%w: %d of %d keys read", errConflict, len(res.Else), len(w.guards)+len(w.conds))
	}
	var o outcome
	for i, g := range w.guards {
		if res.Else[i].ModRevision != g.rev {
			o.fenced = append(o.fenced, g.shard)
		}
	}
	if revs, own := w.own(res.Else[len(w.guards):]); w.ambiguous && own {
		o.applied, o.revs = true, revs
		return o, nil
	}
	if len(o.fenced) > 0 {
		return o, nil
	}
	return outcome{}, errConflict
}

// own tells whether the keys in conds are as w leaves them. A shard that moved
// may already have been written by its next coordinator; then this says no,
// although the write may have been applied. Both answers are true to a caller
// whose shard is gone.
func (w *write) own(now []metadata.Entry) ([]int64, bool) {
	puts := w.puts()
	revs := make([]int64, len(w.conds))
	changed := false
	for i, cond := range w.conds {
		op, ok := puts[cond.Key]
		revs[i] = now[i].ModRevision
		if !ok {
			continue
		}
		changed = true
		if op.Delete {
			if now[i].Exists() {
				return nil, false
			}
			continue
		}
		if !now[i].Exists() || now[i].ModRevision == cond.ModRevision || !bytes.Equal(now[i].Value, op.Value) {
			return nil, false
		}
	}
	return revs, changed
}

// isAmbiguous tells errors after which a write may have been applied.
func isAmbiguous(err error) bool {
	return errors.Is(err, metadata.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

const (
	pauseMin = 20 * time.Millisecond
	pauseMax = 2 * time.Second
)

// pause waits before attempt n+1, longer each time, and reports false if ctx
// ended instead.
func pause(ctx context.Context, n int) bool { return pauseUpTo(ctx, n, pauseMax) }

func pauseUpTo(ctx context.Context, n int, most time.Duration) bool {
	d := min(pauseMin<<min(n, 10), most)
	d = d/2 + jitter.N(d/2+1) // apart from others who failed at the same moment
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
