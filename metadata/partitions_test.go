package metadata_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

func putJSON(t *testing.T, kv metadata.KV, key string, v any) int64 {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	res, err := kv.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Put(key, data)}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Revision
}

func setPartition(t *testing.T, kv metadata.KV, tp metadata.TopicPartition, p metadata.Partition) int64 {
	t.Helper()
	return putJSON(t, kv, metadata.PartitionKey(tp), p)
}

func partition(t *testing.T, kv metadata.KV, tp metadata.TopicPartition) metadata.Partition {
	t.Helper()
	return value[metadata.Partition](t, entry(t, kv, metadata.PartitionKey(tp)))
}

func claimOne(t *testing.T, kv metadata.KV, inc metadata.Incarnation, tp metadata.TopicPartition) metadata.Claimed {
	t.Helper()
	got := metadata.ClaimPartitions(t.Context(), kv, inc, requests(tp))[0]
	if got.Err != nil {
		t.Fatal(got.Err)
	}
	return got
}

func requests(tps ...metadata.TopicPartition) []metadata.ClaimRequest {
	out := make([]metadata.ClaimRequest, len(tps))
	for i, tp := range tps {
		out[i].TP = tp
	}
	return out
}

// many makes n partitions that prefer inc.
func many(t *testing.T, kv metadata.KV, n int, inc metadata.Incarnation) []metadata.TopicPartition {
	t.Helper()
	id := metadata.NewTopicID()
	var out []metadata.TopicPartition
	for i := range n {
		tp := metadata.TopicPartition{Topic: id, Partition: int32(i)}
		setPartition(t, kv, tp, metadata.Partition{Preferred: inc})
		out = append(out, tp)
	}
	return out
}

func TestClaimPartitions(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		tps := many(t, store.Client(), 150, 7)
		// One has had an owner, one is gone, one is another's.
		setPartition(t, store.Client(), tps[3], metadata.Partition{Preferred: 7, Owners: []metadata.Owner{{Incarnation: 5, Epoch: 41}}})
		setPartition(t, store.Client(), tps[70], metadata.Partition{Preferred: 8})
		if _, err := store.Client().Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Delete(metadata.PartitionKey(tps[100]))}}); err != nil {
			t.Fatal(err)
		}
		for i, c := range metadata.ClaimPartitions(t.Context(), kv, 7, requests(tps...)) {
			if c.TP != tps[i] {
				t.Fatalf("answer %d is for %s", i, c.TP)
			}
			switch i {
			case 70:
				if !errors.Is(c.Err, metadata.ErrNotPreferred) {
					t.Errorf("of another: %v", c.Err)
				}
				continue
			case 100:
				if !errors.Is(c.Err, metadata.ErrUnknownPartition) {
					t.Errorf("deleted: %v", c.Err)
				}
				continue
			}
			if c.Err != nil {
				t.Fatalf("%d: %v", i, c.Err)
			}
			want := []metadata.Owner{{Incarnation: 7, Epoch: 0}}
			if i == 3 {
				want = []metadata.Owner{{Incarnation: 5, Epoch: 41}, {Incarnation: 7, Epoch: 42}}
			}
			time.Sleep(time.Millisecond)
			e := entry(t, kv, metadata.PartitionKey(c.TP))
			stored := value[metadata.Partition](t, e)
			if fmt.Sprint(c.Owners) != fmt.Sprint(want) || fmt.Sprint(stored.Owners) != fmt.Sprint(want) || e.ModRevision != c.ModRevision {
				t.Fatalf("%d: claimed %+v at %d, stored %+v at %d", i, c.Owners, c.ModRevision, stored, e.ModRevision)
			}
		}
	})
}

func TestClaimAnewAndTrim(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		tp := metadata.TopicPartition{Topic: metadata.NewTopicID(), Partition: 5}
		setPartition(t, store.Client(), tp, metadata.Partition{Preferred: 7})
		for range 3 {
			claimOne(t, kv, 7, tp)
		}
		if p := partition(t, kv, tp); len(p.Owners) != 3 || p.Owners[2].Epoch != 2 {
			t.Fatalf("%+v", p)
		}
		missing := metadata.TopicPartition{Topic: metadata.NewTopicID()}
		entry := func(tp metadata.TopicPartition, inc metadata.Incarnation, epoch int32) metadata.OwnerEntry {
			return metadata.OwnerEntry{TP: tp, Owner: metadata.Owner{Incarnation: inc, Epoch: epoch}}
		}
		res := metadata.TrimOwners(t.Context(), kv, []metadata.OwnerEntry{entry(tp, 6, 2), entry(missing, 7, 2)})
		if !errors.Is(res[0].Err, metadata.ErrNotOwner) || !errors.Is(res[1].Err, metadata.ErrUnknownPartition) {
			t.Errorf("%+v", res)
		}
		for range 2 {
			// A trim that is late must not take away what a later claim of the
			// same incarnation rests on.
			if res = metadata.TrimOwners(t.Context(), kv, []metadata.OwnerEntry{entry(tp, 7, 1)}); !errors.Is(res[0].Err, metadata.ErrNotOwner) {
				t.Fatalf("trimmed by an entry that is not the newest: %+v", res[0])
			}
			res = metadata.TrimOwners(t.Context(), kv, []metadata.OwnerEntry{entry(tp, 7, 2)})
			if res[0].Err != nil || res[0].ModRevision == 0 {
				t.Fatal(res[0])
			}
		}
		if p := partition(t, kv, tp); len(p.Owners) != 1 || p.Owners[0] != (metadata.Owner{Incarnation: 7, Epoch: 2}) || p.Preferred != 7 {
			t.Errorf("%+v", p)
		}
	})
}

func TestClaimFullOwnerList(t *testing.T) {
	kv := client(t, mem.New())
	p := metadata.Partition{Preferred: 7, Owners: make([]metadata.Owner, metadata.MaxOwners)}
	tp := metadata.TopicPartition{Topic: metadata.NewTopicID()}
	setPartition(t, kv, tp, p)
	got := metadata.ClaimPartitions(t.Context(), kv, 7, requests(tp))
	if !errors.Is(got[0].Err, metadata.ErrTooManyOwners) {
		t.Error(got[0].Err)
	}
}

// A controller that goes on changing its mind must not make a claim fail as long
// as it prefers the claimant, nor let the batch's other members wait for ever.
func TestClaimUnderContention(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv, other := client(t, store), client(t, store)
		tps := many(t, kv, 100, 7)
		busy := tps[0]
		n := 0
		kv.Inject(func(c mem.Call) (mem.Fault, bool) {
			if c.Op != "txn" || !c.Writes() {
				return mem.Fault{}, false
			}
			for _, cond := range c.Txn.If {
				if n < 4 && cond.Key == metadata.PartitionKey(busy) {
					n++
					setPartition(t, other, busy, metadata.Partition{Preferred: 7})
				}
			}
			return mem.Fault{}, false
		})
		for i, c := range metadata.ClaimPartitions(t.Context(), kv, 7, requests(tps...)) {
			if c.Err != nil || len(c.Owners) != 1 {
				t.Errorf("%d: %+v", i, c)
			}
		}
		if n != 4 {
			t.Errorf("contended %d times", n)
		}
	})
}

func TestSetPreferred(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		admin := store.Client()
		guard := metadata.Cond{Key: metadata.KeyController, ModRevision: putJSON(t, admin, metadata.KeyController, metadata.Controller{Incarnation: 1})}
		tps := many(t, admin, 130, 7)
		changes := make(map[metadata.TopicPartition]metadata.PreferredChange)
		for _, tp := range tps {
			e := entry(t, kv, metadata.PartitionKey(tp))
			changes[tp] = metadata.PreferredChange{Partition: value[metadata.Partition](t, e), ModRevision: e.ModRevision, Preferred: 8}
		}
		claimOne(t, admin, 7, tps[9]) // changed since
		for _, r := range metadata.SetPreferred(t.Context(), kv, guard, changes) {
			if r.Err != nil || r.Partition.Preferred != 8 {
				t.Fatalf("%+v", r)
			}
			if p := partition(t, kv, r.TP); p.Preferred != 8 {
				t.Fatalf("%s: %+v", r.TP, p)
			}
		}
		if p := partition(t, kv, tps[9]); len(p.Owners) != 1 {
			t.Errorf("owners lost: %+v", p)
		}
		time.Sleep(time.Second)
		putJSON(t, admin, metadata.KeyController, metadata.Controller{Incarnation: 2})
		for tp, c := range changes {
			c.Preferred = 9
			changes[tp] = c
		}
		for _, r := range metadata.SetPreferred(t.Context(), kv, guard, changes) {
			if !errors.Is(r.Err, metadata.ErrNotController) {
				t.Fatalf("deposed: %+v", r)
			}
			if p := partition(t, kv, r.TP); p.Preferred != 8 {
				t.Fatalf("deposed, and yet %+v", p)
			}
		}
	})
}

func TestAssignCoordinators(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		guard := metadata.Cond{Key: metadata.KeyController, ModRevision: putJSON(t, store.Client(), metadata.KeyController, metadata.Controller{Incarnation: 1})}
		owners := make(map[int]metadata.Incarnation)
		for i := range metadata.GroupShards {
			owners[i] = 7
		}
		check := func(shard int, inc metadata.Incarnation, epoch int32) int64 {
			t.Helper()
			e := entry(t, kv, metadata.CoordinatorKey(shard))
			if c := value[metadata.Coordinator](t, e); c.Incarnation != inc || c.Epoch != epoch {
				t.Errorf("shard %d: %+v, want %v at %d", shard, c, inc, epoch)
			}
			return e.ModRevision
		}
		for _, r := range metadata.AssignCoordinators(t.Context(), kv, guard, owners) {
			if r.Err != nil || check(r.Shard, 7, 0) != r.ModRevision {
				t.Fatalf("%+v", r)
			}
		}
		rev := check(1, 7, 0)
		owners[2] = 8
		for _, r := range metadata.AssignCoordinators(t.Context(), kv, guard, owners) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		check(2, 8, 1)
		if check(1, 7, 0) != rev {
			t.Error("a shard that stayed was written")
		}
		guard.ModRevision++
		owners[3] = 8
		for _, r := range metadata.AssignCoordinators(t.Context(), kv, guard, owners) {
			if r.Shard == 3 && !errors.Is(r.Err, metadata.ErrNotController) {
				t.Errorf("%+v", r)
			}
		}
	})
}

// Two brokers that both think they should lead never get the same epoch.
func TestClaimEpochsUnique(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := mem.New()
		tp := metadata.TopicPartition{Topic: metadata.NewTopicID()}
		admin := client(t, store)
		setPartition(t, admin, tp, metadata.Partition{Preferred: 1})
		done := make(chan bool)
		for inc := metadata.Incarnation(1); inc <= 2; inc++ {
			kv := client(t, store)
			go func() {
				for range 50 {
					metadata.ClaimPartitions(t.Context(), kv, inc, requests(tp))
					p := partition(t, kv, tp)
					p.Preferred = 3 - inc
					putIf(t, kv, metadata.PartitionKey(tp), p)
					time.Sleep(time.Duration(1+2*inc) * time.Millisecond) // out of step
				}
				done <- true
			}()
		}
		<-done
		<-done
		p := partition(t, admin, tp)
		for i, o := range p.Owners {
			if int(o.Epoch) != i {
				t.Fatalf("owner %d has epoch %d", i, o.Epoch)
			}
		}
		if len(p.Owners) < 2 {
			t.Errorf("%d claims", len(p.Owners))
		}
	})
}

// putIf writes p over the owners it was read with.
func putIf(t *testing.T, kv metadata.KV, key string, p metadata.Partition) {
	e := entry(t, kv, key)
	cur := value[metadata.Partition](t, e)
	cur.Preferred = p.Preferred
	data, err := json.Marshal(cur)
	if err != nil {
		t.Error(err)
	}
	_, err = kv.Txn(t.Context(), metadata.Txn{If: []metadata.Cond{{Key: key, ModRevision: e.ModRevision}}, Then: []metadata.Op{metadata.Put(key, data)}})
	if err != nil {
		t.Error(err)
	}
}
