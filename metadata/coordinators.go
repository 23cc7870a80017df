package metadata

import (
	"context"
	"slices"
)

// CoordinatorResult is what became of one shard in AssignCoordinators.
type CoordinatorResult struct {
	Shard       int
	Coordinator Coordinator
	ModRevision int64
	Err         error
}

// AssignCoordinators gives shards to incarnations as long as controller holds.
// A shard that changes hands, or is assigned for the first time, gets an epoch
// one above its last (0 for the first). A shard that has its owner already is
// left alone, so its revision, which guards the owner's writes, stays.
func AssignCoordinators(ctx context.Context, kv KV, controller Cond, owners map[int]Incarnation) []CoordinatorResult {
	ctx, cancel := bounded(ctx)
	defer cancel()
	shards := make([]int, 0, len(owners))
	for shard := range owners {
		shards = append(shards, shard)
	}
	slices.Sort(shards)
	items, err := loadCoordinators(ctx, kv, shards)
	if err == nil {
		b := casBatch[Coordinator]{kv: kv, items: items, guard: []Cond{controller}, guardErr: ErrNotController}
		b.decide = func(i int, cur *casItem[Coordinator]) (Coordinator, bool, error) {
			next := Coordinator{Incarnation: owners[shards[i]]}
			if cur.rev != 0 {
				next.Epoch = cur.value.Epoch + 1
			}
			return next, cur.rev == 0 || cur.value.Incarnation != next.Incarnation, nil
		}
		b.run(ctx)
	}
	out := make([]CoordinatorResult, len(shards))
	for i, shard := range shards {
		out[i] = CoordinatorResult{Shard: shard, Err: err}
		if err == nil {
			out[i].Coordinator, out[i].ModRevision, out[i].Err = items[i].value, items[i].rev, items[i].err
		}
	}
	return out
}

func loadCoordinators(ctx context.Context, kv KV, shards []int) ([]casItem[Coordinator], error) {
	items := make([]casItem[Coordinator], 0, len(shards))
	for chunk := range slices.Chunk(shards, MaxTxnOps) {
		keys := make([]string, len(chunk))
		for i, shard := range chunk {
			keys[i] = CoordinatorKey(shard)
		}
		entries, err := get(ctx, kv, keys...)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			it := casItem[Coordinator]{key: e.Key, rev: e.ModRevision}
			if e.Exists() {
				it.value, it.err = decode[Coordinator](e)
				it.done = it.err != nil
			}
			items = append(items, it)
		}
	}
	return items, nil
}
