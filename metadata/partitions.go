package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// MaxOwners bounds a partition's owner list. It is reached only when no leader
// ever got as far as a durable checkpoint in so many hand-overs.
const MaxOwners = 4096

var (
	// ErrNotPreferred: the controller wants another broker to lead.
	ErrNotPreferred = errors.New("not the preferred leader")
	// ErrNotOwner: another incarnation has claimed the partition since.
	ErrNotOwner = errors.New("not the newest owner")
	// ErrUnknownPartition: there is no such partition (any more).
	ErrUnknownPartition = errors.New("unknown partition")
	// ErrTooManyOwners: the owner list is at MaxOwners.
	ErrTooManyOwners = errors.New("owner list is full")
	// ErrNotController: the controller key is not at the revision given.
	ErrNotController = errors.New("not the controller")
)

// ClaimRequest asks to lead a partition. Partition and ModRevision are how the
// caller saw it, which is not relied on: ClaimPartitions says why.
type ClaimRequest struct {
	TP          TopicPartition
	Partition   Partition
	ModRevision int64
}

// Claimed is the answer to the ClaimRequest of the same index. With Err nil the
// caller is the newest owner, at the last entry's epoch, as of ModRevision.
type Claimed struct {
	TP          TopicPartition
	Owners      []Owner
	ModRevision int64
	Err         error
}

// ClaimPartitions appends inc to the owner lists of the partitions that prefer
// it, each with an epoch one above the newest (0 for the first). A broker that
// is the newest owner already claims anew, with a new epoch. Only one call at a
// time may claim a given partition for inc, and it reads the partition first: so
// when the answer to its write is lost, it can tell its claim from an older one,
// whose epoch must not be used again. A View's value would not do for that.
//
// Err is ErrNotPreferred, ErrUnknownPartition, ErrTooManyOwners, ErrConflict or
// a store error; after ErrUnavailable the claim may have been made.
func ClaimPartitions(ctx context.Context, kv KV, inc Incarnation, requests []ClaimRequest) []Claimed {
	tps := make([]TopicPartition, len(requests))
	for i, r := range requests {
		tps[i] = r.TP
	}
	out := make([]Claimed, len(tps))
	for i, r := range claimPartitions(ctx, kv, inc, tps) {
		out[i] = Claimed{TP: r.TP, Err: r.Err}
		if r.Err == nil {
			out[i].Owners, out[i].ModRevision = r.Partition.Owners, r.ModRevision
		}
	}
	return out
}

func claimPartitions(ctx context.Context, kv KV, inc Incarnation, tps []TopicPartition) []PartitionResult {
	items, err := loadPartitions(ctx, kv, tps)
	if err != nil {
		return allPartitions(tps, err)
	}
	attempted := make(map[int]Owner)
	b := casBatch[Partition]{kv: kv, items: items}
	b.decide = func(i int, cur *casItem[Partition]) (Partition, bool, error) {
		newest, _ := cur.value.Newest()
		if own, ok := attempted[i]; ok && newest == own {
			return Partition{}, false, nil // the claim whose answer was lost
		}
		next, err := claim(cur.value, cur.rev, inc)
		if err == nil {
			attempted[i], _ = next.Newest()
		}
		return next, true, err
	}
	b.run(ctx)
	return partitionResults(tps, items)
}

func claim(p Partition, rev int64, inc Incarnation) (Partition, error) {
	switch {
	case rev == 0:
		return p, ErrUnknownPartition
	case p.Preferred != inc:
		return p, fmt.Errorf("%w: that is %s", ErrNotPreferred, p.Preferred)
	case len(p.Owners) >= MaxOwners:
		return p, ErrTooManyOwners
	}
	var epoch int32
	if newest, ok := p.Newest(); ok {
		epoch = newest.Epoch + 1
	}
	p.Owners = append(slices.Clone(p.Owners), Owner{Incarnation: inc, Epoch: epoch})
	return p, nil
}

// PartitionResult is what became of one partition in a batch.
type PartitionResult struct {
	TP          TopicPartition
	Partition   Partition
	ModRevision int64
	Err         error
}

// OwnerEntry names one entry of a partition's owner list.
type OwnerEntry struct {
	TP TopicPartition
	Owner
}

// TrimOwners drops the entries older than each of the given ones. The caller
// has made durable that nothing of the predecessors of exactly these entries is
// needed. Err is ErrNotOwner where an entry is not the newest: then others may
// rest on what came before, the same incarnation under a later epoch included.
func TrimOwners(ctx context.Context, kv KV, entries []OwnerEntry) []PartitionResult {
	tps := make([]TopicPartition, len(entries))
	for i := range entries {
		tps[i] = entries[i].TP
	}
	items, err := loadPartitions(ctx, kv, tps)
	if err != nil {
		return allPartitions(tps, err)
	}
	b := casBatch[Partition]{kv: kv, items: items}
	b.decide = func(i int, cur *casItem[Partition]) (Partition, bool, error) {
		return trimOwners(cur.value, cur.rev, entries[i].Owner)
	}
	b.run(ctx)
	return partitionResults(tps, items)
}

func trimOwners(p Partition, rev int64, own Owner) (Partition, bool, error) {
	newest, ok := p.Newest()
	switch {
	case rev == 0:
		return p, false, ErrUnknownPartition
	case !ok || newest != own:
		return p, false, ErrNotOwner
	case len(p.Owners) == 1:
		return p, false, nil
	}
	p.Owners = []Owner{newest}
	return p, true, nil
}

// PreferredChange names the leader the controller wants, and the partition as
// the controller saw it when it decided.
type PreferredChange struct {
	Partition   Partition
	ModRevision int64
	Preferred   Incarnation
}

// SetPreferred writes preferred leaders as long as controller holds. A partition
// that changed since is read again and still given its new leader: owner lists
// change without touching what the controller decided. Err is ErrNotController
// once the guard fails; earlier batches then stand.
func SetPreferred(ctx context.Context, kv KV, controller Cond, changes map[TopicPartition]PreferredChange) []PartitionResult {
	tps := make([]TopicPartition, 0, len(changes))
	items := make([]casItem[Partition], 0, len(changes))
	for tp, c := range changes {
		tps = append(tps, tp)
		items = append(items, casItem[Partition]{key: PartitionKey(tp), value: c.Partition, rev: c.ModRevision})
	}
	b := casBatch[Partition]{kv: kv, items: items, guard: []Cond{controller}, guardErr: ErrNotController}
	b.decide = func(i int, cur *casItem[Partition]) (Partition, bool, error) {
		if cur.rev == 0 {
			return Partition{}, false, ErrUnknownPartition
		}
		next := cur.value
		next.Preferred = changes[tps[i]].Preferred
		return next, next.Preferred != cur.value.Preferred, nil
	}
	b.run(ctx)
	return partitionResults(tps, items)
}

func loadPartitions(ctx context.Context, kv KV, tps []TopicPartition) ([]casItem[Partition], error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	items := make([]casItem[Partition], 0, len(tps))
	for chunk := range slices.Chunk(tps, MaxTxnOps) {
		keys := make([]string, len(chunk))
		for i, tp := range chunk {
			keys[i] = PartitionKey(tp)
		}
		entries, err := get(ctx, kv, keys...)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			it := casItem[Partition]{key: e.Key, rev: e.ModRevision}
			if e.Exists() {
				it.value, it.err = decode[Partition](e)
				it.done = it.err != nil
			}
			items = append(items, it)
		}
	}
	return items, nil
}

func partitionResults(tps []TopicPartition, items []casItem[Partition]) []PartitionResult {
	out := make([]PartitionResult, len(tps))
	for i, it := range items {
		out[i] = PartitionResult{TP: tps[i], Partition: it.value, ModRevision: it.rev, Err: it.err}
	}
	return out
}

func allPartitions(tps []TopicPartition, err error) []PartitionResult {
	out := make([]PartitionResult, len(tps))
	for i, tp := range tps {
		out[i] = PartitionResult{TP: tp, Err: err}
	}
	return out
}
