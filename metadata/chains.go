package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNoChain: the chain's key does not exist (any more).
	ErrNoChain = errors.New("no such chain")
	// ErrEndVoid: a fence at this slot does not count, because the chain was
	// trimmed or checkpointed beyond it.
	ErrEndVoid = errors.New("chain end is below its trim mark or checkpoint")
	// ErrChainRule: an update would make a chain's checkpoint or trim mark fall,
	// its trim mark pass its checkpoint, or its end change.
	ErrChainRule = errors.New("chain update breaks a rule")
)

// LoadChain reads chains/<inc>, linearizably, and its revision.
func LoadChain(ctx context.Context, kv KV, inc Incarnation) (Chain, int64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	entries, err := get(ctx, kv, ChainKey(inc))
	if err != nil {
		return Chain{}, 0, fmt.Errorf("load chain %s: %w", inc, err)
	}
	c, err := parseChain(entries[0])
	return c, entries[0].ModRevision, err
}

func parseChain(e Entry) (Chain, error) {
	if !e.Exists() {
		return Chain{}, fmt.Errorf("%w: %s", ErrNoChain, e.Key)
	}
	return decode[Chain](e)
}

// UpdateChain changes chains/<inc> by compare-and-swap and returns it as it
// stands. change sets fields to what they should be, may run several times, and
// ends the update by returning an error. It cannot record an end: RecordEnd does.
func UpdateChain(ctx context.Context, kv KV, inc Incarnation, change func(*Chain) error) (Chain, error) {
	e, _, err := update(ctx, kv, ChainKey(inc), func(cur Entry) (*Op, error) {
		c, err := parseChain(cur)
		if err != nil {
			return nil, err
		}
		next := c
		if err := change(&next); err != nil {
			return nil, err
		}
		if err := checkChain(c, next); err != nil {
			return nil, fmt.Errorf("chain %s: %w", inc, err)
		}
		if next == c {
			return nil, nil
		}
		op := Put(cur.Key, encode(next))
		return &op, nil
	})
	if err != nil {
		return Chain{}, err
	}
	return decode[Chain](e)
}

// checkChain holds what must be true of every step of a chain's key. End is
// compared as a pointer: change gets the one that was read, or nil.
func checkChain(c, next Chain) error {
	switch {
	case next.Checkpoint < c.Checkpoint:
		return fmt.Errorf("%w: checkpoint %d after %d", ErrChainRule, next.Checkpoint, c.Checkpoint)
	case next.Trim < c.Trim:
		return fmt.Errorf("%w: trim mark %d after %d", ErrChainRule, next.Trim, c.Trim)
	case next.Trim > next.Checkpoint && !next.Inherited:
		return fmt.Errorf("%w: trim mark %d above checkpoint %d", ErrChainRule, next.Trim, next.Checkpoint)
	case next.End != c.End:
		return fmt.Errorf("%w: end changed", ErrChainRule)
	case next.Inherited && (next.End == nil || next.Trim > *next.End) || c.Inherited && !next.Inherited:
		return fmt.Errorf("%w: inherited, trim mark %d, unlike its end", ErrChainRule, next.Trim)
	case next.Deleted < c.Deleted || next.Deleted > next.Trim || c.Collected && !next.Collected:
		return fmt.Errorf("%w: deleted below %d after %d, trim mark %d", ErrChainRule, next.Deleted, c.Deleted, next.Trim)
	}
	return nil
}

// RecordEnd writes down where inc's chain ends, if that is not written yet, and
// returns the end that stands. The transaction that writes it removes inc's
// registration, broker id and controller key as far as they are inc's, so that
// they are free at once; then its session is revoked, if it can be. ErrEndVoid
// says that a fence at end does not count.
func RecordEnd(ctx context.Context, kv KV, inc Incarnation, end uint64) (uint64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var b backoff
	var lease LeaseID
	for {
		stands, found, err := recordEndOnce(ctx, kv, inc, end)
		if found != 0 {
			lease = found // the key that names it may be gone at the next attempt
		}
		if err == nil && stands != nil {
			revokeQuietly(ctx, kv, lease)
			return *stands, nil
		}
		if err != nil && !errors.Is(err, ErrUnavailable) {
			return 0, fmt.Errorf("record end of chain %s: %w", inc, err)
		}
		if werr := b.wait(ctx); werr != nil {
			if err == nil {
				err = fmt.Errorf("%w: %w", ErrConflict, werr)
			}
			return 0, fmt.Errorf("record end of chain %s: %w", inc, err)
		}
	}
}

// recordEndOnce returns the end that stands, nil when it lost a race, and the
// lease of the session if there was one.
func recordEndOnce(ctx context.Context, kv KV, inc Incarnation, end uint64) (*uint64, LeaseID, error) {
	entries, _, err := kv.Get(ctx, ChainKey(inc), BrokerKey(inc), KeyController)
	if err != nil {
		return nil, 0, err
	}
	chain, err := parseChain(entries[0])
	if err != nil {
		return nil, 0, err
	}
	broker := entries[1]
	if chain.End != nil {
		return chain.End, broker.Lease, nil
	}
	if end < max(chain.Trim, chain.Checkpoint) {
		return nil, 0, fmt.Errorf("%w: end %d, trim mark %d, checkpoint %d", ErrEndVoid, end, chain.Trim, chain.Checkpoint)
	}
	chain.End = &end
	t := Txn{
		If:   []Cond{{entries[0].Key, entries[0].ModRevision}},
		Then: []Op{Put(entries[0].Key, encode(chain))},
	}
	if err := addReleases(ctx, kv, &t, inc, broker, entries[2]); err != nil {
		return nil, 0, err
	}
	res, err := kv.Txn(ctx, t)
	if err != nil || !res.Succeeded {
		return nil, broker.Lease, err
	}
	return chain.End, broker.Lease, nil
}

// addReleases makes t delete the keys of inc's session. They are named rather
// than left to the lease: a zombie may go on renewing that.
func addReleases(ctx context.Context, kv KV, t *Txn, inc Incarnation, broker, controller Entry) error {
	owned := func(e Entry) bool {
		v, err := decode[BrokerID](e) // Controller has the same field
		return e.Exists() && err == nil && v.Incarnation == inc
	}
	release := func(e Entry) {
		t.If = append(t.If, Cond{e.Key, e.ModRevision})
		t.Then = append(t.Then, Delete(e.Key))
	}
	if owned(controller) {
		release(controller)
	}
	if !broker.Exists() {
		// Guarded too: it must not register again behind the end.
		t.If = append(t.If, Cond{broker.Key, 0})
		return nil
	}
	release(broker)
	b, err := decode[Broker](broker)
	if err != nil {
		return nil // unreadable: its id goes with the lease
	}
	ids, _, err := kv.Get(ctx, BrokerIDKey(b.ID))
	if err != nil {
		return err
	}
	if owned(ids[0]) {
		release(ids[0])
	}
	return nil
}

// revokeQuietly ends a lease if the store answers; else it lapses by itself.
func revokeQuietly(ctx context.Context, kv KV, lease LeaseID) {
	if lease == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	var b backoff
	for errors.Is(kv.Revoke(ctx, lease), ErrUnavailable) && b.wait(ctx) == nil {
	}
}
