package metadata_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

// A debt is what was written last, however requests are lost, repeated and late.
func TestDebts(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		of, heir := register(t, store.Client(), nil).Incarnation(), register(t, store.Client(), nil).Incarnation()
		owe := func(slot uint64) {
			if err := metadata.Owe(t.Context(), kv, heir, of, &slot); err != nil {
				t.Fatal(err)
			}
		}
		want := func(slot uint64, owed bool) {
			t.Helper()
			if got, any, err := metadata.LowestDebt(t.Context(), kv, of); err != nil || got != slot || any != owed {
				t.Errorf("lowest debt %d, %v, %v; want %d, %v", got, any, err, slot, owed)
			}
		}
		want(0, false)
		owe(7)
		owe(3)
		time.Sleep(time.Second)
		want(3, true)
		owe(9)
		if err := metadata.Owe(t.Context(), kv, heir, of, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		want(0, false)
		owe(0)
		time.Sleep(time.Second)
		want(0, true)
		if _, err := metadata.RecordEnd(t.Context(), kv, heir, 5); err != nil {
			t.Fatal(err)
		}
		if err := metadata.Owe(t.Context(), kv, heir, of, nil); !errors.Is(err, metadata.ErrChainEnded) {
			t.Errorf("a sealed heir pays: %v", err)
		}
		want(0, true)
	})
}

// A sealed chain is collected when no owner list has it, up to the lowest debt;
// what it owed itself goes then.
func TestCollectChains(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		a, b, c := register(t, kv, nil).Incarnation(), register(t, kv, nil).Incarnation(), register(t, kv, nil).Incarnation()
		tp := metadata.TopicPartition{Topic: metadata.TopicID{1}}
		owners := func(list ...metadata.Owner) {
			putJSON(t, kv, metadata.PartitionKey(tp), metadata.Partition{Owners: list})
		}
		collect := func() map[metadata.Incarnation]metadata.Chain {
			t.Helper()
			list, err := metadata.CollectChains(t.Context(), kv, 8)
			if err != nil {
				t.Fatal(err)
			}
			out := make(map[metadata.Incarnation]metadata.Chain)
			for _, s := range list {
				out[s.Incarnation] = s.Chain
			}
			return out
		}
		seal := func(inc metadata.Incarnation, end uint64) {
			t.Helper()
			if _, err := metadata.RecordEnd(t.Context(), kv, inc, end); err != nil {
				t.Fatal(err)
			}
		}
		owners(metadata.Owner{Incarnation: a, Epoch: 0}, metadata.Owner{Incarnation: b, Epoch: 1})
		if got := collect(); len(got) > 0 {
			t.Errorf("nothing is sealed: %+v", got)
		}
		seal(a, 100)
		if got := collect(); len(got) > 0 {
			t.Errorf("the owner list has it: %+v", got)
		}
		slot := uint64(40)
		if err := metadata.Owe(t.Context(), kv, b, a, &slot); err != nil {
			t.Fatal(err)
		}
		owners(metadata.Owner{Incarnation: b, Epoch: 1})
		if got := collect(); len(got) != 1 || got[a].Trim != 40 || !got[a].Inherited {
			t.Errorf("with a debt at 40: %+v", got)
		}
		// The heir dies too; its heir has written down what it took over.
		seal(b, 5)
		slot = 60
		if err := metadata.Owe(t.Context(), kv, c, a, &slot); err != nil {
			t.Fatal(err)
		}
		if got := collect(); got[a].Trim != 40 {
			t.Errorf("the debt of a sealed heir that is listed: %+v", got)
		}
		owners(metadata.Owner{Incarnation: c, Epoch: 2})
		collect()
		if got := collect(); got[a].Trim != 60 || !got[b].Inherited || got[b].Trim != 0 {
			t.Errorf("after the heir's heir: %+v", got)
		}
		if err := metadata.Owe(t.Context(), kv, c, a, nil); err != nil {
			t.Fatal(err)
		}
		if got := collect(); got[a].Trim != 92 {
			t.Errorf("without debts: %+v", got)
		}
		if err := metadata.Collected(t.Context(), kv, a, 93, false); !errors.Is(err, metadata.ErrChainRule) {
			t.Errorf("deleted above the mark: %v", err)
		}
		if err := metadata.Collected(t.Context(), kv, a, 92, true); err != nil {
			t.Fatal(err)
		}
		if got := collect(); len(got) != 1 {
			t.Errorf("what is collected is not looked at again: %+v", got)
		}
	})
}

// Chains without end and without broker are abandoned.
func TestAbandonedChains(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		register(t, kv, nil)
		dead, sealed := metadata.Incarnation(1<<48|1), metadata.Incarnation(1<<48|2)
		putJSON(t, kv, metadata.ChainKey(dead), metadata.Chain{})
		end := uint64(3)
		putJSON(t, kv, metadata.ChainKey(sealed), metadata.Chain{End: &end})
		putJSON(t, kv, metadata.DebtKey(dead, sealed), metadata.Debt{})
		got, err := metadata.AbandonedChains(t.Context(), kv)
		if err != nil || len(got) != 1 || got[0] != dead {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// between calls f once, after the owner lists were read.
type between struct {
	metadata.KV
	f func()
}

func (b *between) Range(ctx context.Context, prefix string) ([]metadata.Entry, int64, error) {
	entries, rev, err := b.KV.Range(ctx, prefix)
	if f := b.f; f != nil && prefix == metadata.PrefixPartitions {
		b.f = nil
		f()
	}
	return entries, rev, err
}

// Whoever begins to lead after a look at the owner lists, and is sealed before
// the collector goes on, is listed and not inherited.
func TestCollectWhatWasSealedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		a, b := register(t, kv, nil).Incarnation(), register(t, kv, nil).Incarnation()
		if _, err := metadata.RecordEnd(t.Context(), kv, a, 20); err != nil {
			t.Fatal(err)
		}
		slow := &between{KV: kv, f: func() {
			tp := metadata.TopicPartition{Topic: metadata.TopicID{1}}
			putJSON(t, kv, metadata.PartitionKey(tp), metadata.Partition{Owners: []metadata.Owner{{Incarnation: b, Epoch: 0}}})
			if _, err := metadata.RecordEnd(t.Context(), kv, b, 50); err != nil {
				t.Fatal(err)
			}
		}}
		list, err := metadata.CollectChains(t.Context(), slow, 8)
		if err != nil || len(list) != 1 || list[0].Incarnation != a {
			t.Errorf("%+v, %v; want only %s, which nobody lists", list, err, a)
		}
		if c, _, err := metadata.LoadChain(t.Context(), kv, b); err != nil || c.Inherited || c.Trim != 0 {
			t.Errorf("chain that is listed: %+v, %v", c, err)
		}
	})
}

// A request to raise a debt that is late does not raise one that was written
// after it, and says what it said before.
func TestLateDebt(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		of, heir := register(t, kv, nil).Incarnation(), register(t, kv, nil).Incarnation()
		low, high := uint64(5), uint64(9)
		if err := metadata.Owe(t.Context(), kv, heir, of, &low); err != nil {
			t.Fatal(err)
		}
		kv.Inject(func(c mem.Call) (mem.Fault, bool) { return mem.FailLate(time.Minute), c.Writes() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := metadata.Owe(ctx, kv, heir, of, &high); err == nil {
			t.Fatal("a request without an answer succeeded")
		}
		kv.Inject(nil)
		if err := metadata.Owe(t.Context(), kv, heir, of, &low); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if got, _, err := metadata.LowestDebt(t.Context(), kv, of); err != nil || got != low {
			t.Errorf("debt %d, %v; want %d", got, err, low)
		}
	})
}
