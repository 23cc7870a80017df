package metadata

import (
	"context"
	"errors"
	"fmt"
)

// update rewrites one key by compare-and-swap until it succeeds, the decision
// is to leave the key alone, or ctx ends. decide gets the key as it is now
// (possibly absent) and returns the write, or nil for none. It is called again
// after a lost race and after a write whose outcome is unknown, so it must come
// to "none" when its own write has landed. update returns the key as it stands
// and a revision of the store at which it does.
func update(ctx context.Context, kv KV, key string, decide func(cur Entry) (*Op, error)) (Entry, int64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var b backoff
	for {
		e, rev, err := updateOnce(ctx, kv, key, decide)
		if rev != 0 || err != nil && !errors.Is(err, ErrUnavailable) {
			return e, rev, err
		}
		if werr := b.wait(ctx); werr != nil {
			if err == nil {
				err = fmt.Errorf("%w: %w", ErrConflict, werr)
			}
			return Entry{}, 0, fmt.Errorf("update %s: %w", key, err)
		}
	}
}

// updateOnce returns revision 0 when it lost a race.
func updateOnce(ctx context.Context, kv KV, key string, decide func(cur Entry) (*Op, error)) (Entry, int64, error) {
	entries, now, err := kv.Get(ctx, key)
	if err != nil {
		return Entry{}, 0, err
	}
	cur := entries[0]
	op, err := decide(cur)
	if err != nil {
		return Entry{}, 0, err
	}
	if op == nil {
		return cur, now, nil
	}
	res, err := kv.Txn(ctx, Txn{If: []Cond{{key, cur.ModRevision}}, Then: []Op{*op}})
	if err != nil || !res.Succeeded {
		return Entry{}, 0, err
	}
	return written(cur, *op, res.Revision), res.Revision, nil
}

// written is cur after op was applied to it at rev.
func written(cur Entry, op Op, rev int64) Entry {
	if op.Delete {
		return Entry{Key: cur.Key}
	}
	e := Entry{Key: cur.Key, Value: op.Value, CreateRevision: cur.CreateRevision, ModRevision: rev, Lease: op.Lease}
	if !cur.Exists() {
		e.CreateRevision = rev
	}
	return e
}
