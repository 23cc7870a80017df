package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Collection of chains. An incarnation's own extents are protected by itself as
// long as it lives: its trim mark passes none that a manifest names. What its
// heirs still name of them, they say under chains/<inc>/owed/<heir>, before the
// owner entry of the predecessor goes. So a mark that no debt lies below, read
// after the entries went, is one that nobody rests on.

// Debt is the value of chains/<inc>/owed/<heir>: the lowest slot of inc that
// something in a manifest of heir's still lies in.
type Debt struct {
	Slot uint64 `json:"slot"`
}

// DebtKey is what heir owes of a chain.
func DebtKey(of, heir Incarnation) string { return debtPrefix(of) + heir.String() }

func debtPrefix(of Incarnation) string { return ChainKey(of) + "/owed/" }

// Owe writes what heir owes of a chain; nil: nothing any more. ErrChainEnded when
// heir's own chain has ended: what it owed is its heirs' business then.
func Owe(ctx context.Context, kv KV, heir, of Incarnation, slot *uint64) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var b backoff
	for {
		done, err := oweOnce(ctx, kv, heir, of, slot)
		if done || err != nil && !errors.Is(err, ErrUnavailable) {
			return err
		}
		if werr := b.wait(ctx); werr != nil {
			if err == nil {
				err = fmt.Errorf("%w: %w", ErrConflict, werr)
			}
			return fmt.Errorf("write debt of %s to %s: %w", heir, of, err)
		}
	}
}

// ErrChainEnded: the end of the chain is recorded.
var ErrChainEnded = errors.New("chain has ended")

// oweOnce is guarded by what it read, and always writes: a request that arrives
// late, after a newer one, does nothing. One that writes a debt anew where none is
// may, and holds slots back for longer than it need.
func oweOnce(ctx context.Context, kv KV, heir, of Incarnation, slot *uint64) (done bool, err error) {
	entries, _, err := kv.Get(ctx, ChainKey(heir), DebtKey(of, heir))
	if err != nil {
		return false, err
	}
	chain, err := parseChain(entries[0])
	if err != nil {
		return false, err
	}
	if chain.End != nil {
		return false, fmt.Errorf("%w: %s at slot %d", ErrChainEnded, heir, *chain.End)
	}
	debt := entries[1]
	op := Delete(debt.Key)
	switch {
	case slot == nil && !debt.Exists():
		return true, nil
	case slot != nil:
		// Also where it says that already: an earlier request that is still on its
		// way, to raise it, must find another revision than the one it read.
		op = Put(debt.Key, encode(Debt{*slot}))
	}
	res, err := kv.Txn(ctx, Txn{
		If:   []Cond{{entries[0].Key, entries[0].ModRevision}, {debt.Key, debt.ModRevision}},
		Then: []Op{op},
	})
	return err == nil && res.Succeeded, err
}

// LowestDebt returns the lowest slot of a chain that any heir owes, false when
// none owes any.
func LowestDebt(ctx context.Context, kv KV, of Incarnation) (slot uint64, any bool, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	entries, _, err := kv.Range(ctx, debtPrefix(of))
	if err != nil {
		return 0, false, fmt.Errorf("read debts to %s: %w", of, err)
	}
	for _, e := range entries {
		d, err := decode[Debt](e)
		if err != nil {
			return 0, false, err
		}
		if !any || d.Slot < slot {
			slot, any = d.Slot, true
		}
	}
	return slot, any, nil
}

// SealedChain is a chain whose end is recorded.
type SealedChain struct {
	Incarnation Incarnation
	Chain
}

// CollectChains raises the marks of sealed chains as far as they may be raised
// now, and returns those that something may be deleted of. window is how many slots below its end a chain keeps
// for ever: a writer that does not know that it was sealed looks there.
//
// A sealed chain is inherited once no owner list has an entry of it: each of its
// partitions has a later leader, in whose durable checkpoint it is. Entries that
// a zombie adds later never opened. The lists are read after the ends, because
// whoever is not sealed may be listed and lead after a look at them, and before
// the debts, which were written before the entries went.
func CollectChains(ctx context.Context, kv KV, window uint64) ([]SealedChain, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	sealed, _, err := rangeChains(ctx, kv)
	if err != nil || len(sealed) == 0 {
		return nil, err
	}
	owners, err := listedOwners(ctx, kv)
	if err != nil {
		return nil, err
	}
	// Of the chains that were sealed before the lists were read: one that was
	// sealed meanwhile may have led, and have been listed, meanwhile.
	_, debts, err := rangeChains(ctx, kv)
	if err != nil {
		return nil, err
	}
	var list []SealedChain
	for _, c := range sealed {
		if owners[c.Incarnation] && !c.Inherited {
			continue
		}
		mark := *c.End - min(*c.End, window)
		for _, d := range debts[c.Incarnation] {
			mark = min(mark, d)
		}
		c.Chain, err = UpdateChain(ctx, kv, c.Incarnation, func(chain *Chain) error {
			chain.Inherited = true
			chain.Trim = max(chain.Trim, mark)
			return nil
		})
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, forgetDebts(ctx, kv, list)
}

// AbandonedChains returns the chains that have no end and whose incarnation is
// not registered. The chains are read first: what registers has no chain before.
func AbandonedChains(ctx context.Context, kv KV) ([]Incarnation, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	chains, _, err := kv.Range(ctx, PrefixChains)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	brokers, _, err := kv.Range(ctx, PrefixBrokers)
	if err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	live := make(map[string]bool, len(brokers))
	for _, b := range brokers {
		live[strings.TrimPrefix(b.Key, PrefixBrokers)] = true
	}
	var out []Incarnation
	for _, e := range chains {
		name := strings.TrimPrefix(e.Key, PrefixChains)
		if strings.Contains(name, "/") || live[name] {
			continue
		}
		inc, err := ParseIncarnation(name)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", e.Key, err)
		}
		c, err := decode[Chain](e)
		if err != nil {
			return nil, err
		}
		if c.End == nil {
			out = append(out, inc)
		}
	}
	return out, nil
}

// Collected notes that everything below slot has been deleted of a chain, and,
// with all, that nothing more ever will be.
func Collected(ctx context.Context, kv KV, inc Incarnation, slot uint64, all bool) error {
	_, err := UpdateChain(ctx, kv, inc, func(c *Chain) error {
		c.Deleted = max(c.Deleted, slot)
		c.Collected = c.Collected || all
		return nil
	})
	return err
}

// rangeChains returns the sealed chains of which not everything is deleted yet,
// and all debts, by the chain owed to.
func rangeChains(ctx context.Context, kv KV) ([]SealedChain, map[Incarnation][]uint64, error) {
	entries, _, err := kv.Range(ctx, PrefixChains)
	if err != nil {
		return nil, nil, fmt.Errorf("list chains: %w", err)
	}
	var sealed []SealedChain
	debts := make(map[Incarnation][]uint64)
	for _, e := range entries {
		name, heir, owed := strings.Cut(strings.TrimPrefix(e.Key, PrefixChains), "/owed/")
		inc, err := ParseIncarnation(name)
		if err != nil {
			return nil, nil, fmt.Errorf("key %s: %w", e.Key, err)
		}
		if owed {
			d, err := decode[Debt](e)
			if err != nil {
				return nil, nil, fmt.Errorf("debt of %s: %w", heir, err)
			}
			debts[inc] = append(debts[inc], d.Slot)
			continue
		}
		c, err := decode[Chain](e)
		if err != nil {
			return nil, nil, err
		}
		if c.End != nil && !c.Collected {
			sealed = append(sealed, SealedChain{inc, c})
		}
	}
	return sealed, debts, nil
}

// listedOwners returns every incarnation that is in an owner list.
func listedOwners(ctx context.Context, kv KV) (map[Incarnation]bool, error) {
	owners := make(map[Incarnation]bool)
	list, err := PartitionOwners(ctx, kv)
	for _, entries := range list {
		for _, o := range entries {
			owners[o.Incarnation] = true
		}
	}
	return owners, err
}

// PartitionOwners returns the owner lists of all partitions as they are at one
// moment after the call.
func PartitionOwners(ctx context.Context, kv KV) (map[TopicPartition][]Owner, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	entries, _, err := kv.Range(ctx, PrefixPartitions)
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	out := make(map[TopicPartition][]Owner, len(entries))
	for _, e := range entries {
		tp, err := ParsePartitionKey(e.Key)
		if err != nil {
			return nil, err
		}
		p, err := decode[Partition](e)
		if err != nil {
			return nil, err
		}
		out[tp] = p.Owners
	}
	return out, nil
}

// forgetDebts deletes what inherited chains owed: their heirs have written down
// what they took over before the owner entries went.
func forgetDebts(ctx context.Context, kv KV, inherited []SealedChain) error {
	gone := make(map[string]bool, len(inherited))
	for _, c := range inherited {
		gone[c.Incarnation.String()] = true
	}
	entries, _, err := kv.Range(ctx, PrefixChains)
	if err != nil {
		return fmt.Errorf("list debts: %w", err)
	}
	var ops []Op
	for _, e := range entries {
		if _, heir, owed := strings.Cut(e.Key, "/owed/"); owed && gone[heir] {
			ops = append(ops, Delete(e.Key))
		}
	}
	for chunk := range slices.Chunk(ops, MaxTxnOps) {
		if _, err := kv.Txn(ctx, Txn{Then: chunk}); err != nil {
			return fmt.Errorf("delete debts: %w", err)
		}
	}
	return nil
}
