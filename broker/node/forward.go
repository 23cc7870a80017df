package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tidemark-io/tidemark/metadata"
)

// forward is the metadata store as long as it only goes forward. One that is put
// back in time under a running broker answers a linearizable call at a revision
// lower than was known before the call began; what it says is then never used.
type forward struct {
	metadata.KV
	seen atomic.Int64
	once sync.Once
	back chan struct{} // closed when it went back
	err  error         // valid once back is closed
}

func newForward(kv metadata.KV) *forward { return &forward{KV: kv, back: make(chan struct{})} }

// at takes down that a call that began when before was known was answered at rev.
func (f *forward) at(before, rev int64, err error) error {
	if err == nil && rev < before {
		f.once.Do(func() {
			f.err = fmt.Errorf("%w: etcd went back from revision %d to %d: it was restored under a running cluster", metadata.ErrIdentity, before, rev)
			close(f.back)
		})
	}
	select {
	case <-f.back:
		return f.err
	default:
	}
	for err == nil {
		seen := f.seen.Load()
		if rev <= seen || f.seen.CompareAndSwap(seen, rev) {
			break
		}
	}
	return err
}

// watch returns the error that ends the process, once there is one.
func (f *forward) watch(ctx context.Context) error {
	select {
	case <-f.back:
		return f.err
	case <-ctx.Done():
		return nil
	}
}

func (f *forward) Get(ctx context.Context, keys ...string) ([]metadata.Entry, int64, error) {
	before := f.seen.Load()
	entries, rev, err := f.KV.Get(ctx, keys...)
	if err = f.at(before, rev, err); err != nil {
		return nil, 0, err
	}
	return entries, rev, nil
}

func (f *forward) Range(ctx context.Context, prefix string) ([]metadata.Entry, int64, error) {
	before := f.seen.Load()
	entries, rev, err := f.KV.Range(ctx, prefix)
	if err = f.at(before, rev, err); err != nil {
		return nil, 0, err
	}
	return entries, rev, nil
}

func (f *forward) Txn(ctx context.Context, t metadata.Txn) (metadata.TxnResult, error) {
	before := f.seen.Load()
	res, err := f.KV.Txn(ctx, t)
	if err = f.at(before, res.Revision, err); err != nil {
		return metadata.TxnResult{}, err
	}
	return res, nil
}

// Compact implements metadata.Compactor where the store does.
func (f *forward) Compact(ctx context.Context, rev int64) error {
	if c, ok := f.KV.(metadata.Compactor); ok {
		return c.Compact(ctx, rev)
	}
	return nil
}
