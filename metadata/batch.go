package metadata

import (
	"context"
	"errors"
	"fmt"
)

// Bounds of a batched compare-and-swap: keys in one transaction, values in one
// transaction (half of what it may carry), rounds of losing races.
const (
	batchKeys   = 60
	batchBytes  = MaxTxnBytes / 2
	batchRounds = 8
)

// casItem is one key of a batched compare-and-swap: as the caller knows it at
// first, as the store told it after a lost race, and how it ended.
type casItem[T any] struct {
	key   string
	value T
	rev   int64 // 0: absent
	wrote bool
	err   error

	done bool
	next T
	data []byte
}

// casBatch rewrites many keys, each by compare-and-swap, up to batchKeys in one
// transaction; all transactions carry guard. decide gets the i-th item (value
// is its zero value when rev is 0) and returns what to write, or false for
// nothing. It is called again after a lost race or an unknown outcome, and must
// come to "nothing" when its own write has landed. A guard that does not hold
// ends the items left with guardErr.
type casBatch[T any] struct {
	kv       KV
	guard    []Cond
	guardErr error
	items    []casItem[T]
	decide   func(i int, cur *casItem[T]) (T, bool, error)
}

func (b *casBatch[T]) run(ctx context.Context) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var pause backoff
	var last error
	for round := 0; ; round++ {
		size := batchKeys
		if round >= 2 {
			size = 1 // one contended key must not hold up its neighbours
		}
		last = b.round(ctx, size)
		if b.finished() {
			return
		}
		if last == nil && round >= batchRounds {
			last = ErrConflict
		}
		if errors.Is(last, ErrConflict) || pause.wait(ctx) != nil {
			break
		}
	}
	if last == nil {
		last = fmt.Errorf("%w: %w", ErrConflict, ctx.Err())
	}
	b.failRest(last)
}

// round tries every item that is left once. It returns the last error that
// leaves the outcome of items open.
func (b *casBatch[T]) round(ctx context.Context, size int) error {
	var last error
	for next := 0; next < len(b.items); {
		var batch []int
		batch, next = b.gather(next, size)
		if len(batch) == 0 {
			continue
		}
		if err := b.send(ctx, batch); err != nil {
			last = err
		}
	}
	return last
}

// gather decides items from index from on until a transaction is full. It
// returns those to write, and where to go on.
func (b *casBatch[T]) gather(from, size int) (batch []int, next int) {
	bytes := 0
	for i := from; i < len(b.items); i++ {
		it := &b.items[i]
		if it.done {
			continue
		}
		value, write, err := b.decide(i, it)
		if err != nil || !write {
			it.done, it.err = true, err
			continue
		}
		it.next, it.data = value, encode(value)
		bytes += 3*len(it.key) + len(it.data)
		if len(batch) > 0 && bytes > batchBytes {
			return batch, i
		}
		batch = append(batch, i)
		if len(batch) == size {
			return batch, i + 1
		}
	}
	return batch, len(b.items)
}

func (b *casBatch[T]) send(ctx context.Context, batch []int) error {
	res, err := b.kv.Txn(ctx, b.txn(batch))
	switch {
	case errors.Is(err, ErrUnavailable):
		return err // sent again; if it was applied, its conditions tell
	case err != nil:
		b.fail(batch, err)
	case res.Succeeded:
		for _, i := range batch {
			it := &b.items[i]
			it.value, it.rev, it.wrote, it.done = it.next, res.Revision, true, true
		}
	default:
		b.refresh(batch, res.Else)
	}
	return nil
}

func (b *casBatch[T]) txn(batch []int) Txn {
	t := Txn{If: append([]Cond(nil), b.guard...), Else: b.keys(batch)}
	for _, i := range batch {
		it := &b.items[i]
		t.If = append(t.If, Cond{it.key, it.rev})
		t.Then = append(t.Then, Put(it.key, it.data))
	}
	return t
}

// keys names what tells why a transaction failed: the guards, then the items.
func (b *casBatch[T]) keys(batch []int) []string {
	keys := make([]string, 0, len(b.guard)+len(batch))
	for _, g := range b.guard {
		keys = append(keys, g.Key)
	}
	for _, i := range batch {
		keys = append(keys, b.items[i].key)
	}
	return keys
}

// refresh takes over what the store holds; entries are those of keys.
func (b *casBatch[T]) refresh(batch []int, entries []Entry) {
	for n, g := range b.guard {
		if entries[n].ModRevision != g.ModRevision {
			b.failRest(b.guardErr)
			return
		}
	}
	for n, i := range batch {
		it, e := &b.items[i], entries[len(b.guard)+n]
		var zero T
		it.value, it.rev = zero, e.ModRevision
		if e.Exists() {
			if it.value, it.err = decode[T](e); it.err != nil {
				it.done = true
			}
		}
	}
}

func (b *casBatch[T]) fail(batch []int, err error) {
	for _, i := range batch {
		b.items[i].done, b.items[i].err = true, err
	}
}

func (b *casBatch[T]) failRest(err error) {
	for i := range b.items {
		if it := &b.items[i]; !it.done {
			it.done, it.err = true, err
		}
	}
}

func (b *casBatch[T]) finished() bool {
	for i := range b.items {
		if !b.items[i].done {
			return false
		}
	}
	return true
}
