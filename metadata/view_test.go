package metadata_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

// viewing runs a View of kv and waits until it is ready.
func viewing(t *testing.T, kv metadata.KV) *metadata.View {
	t.Helper()
	v := metadata.NewView(kv, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := v.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return v
}

func settled(t *testing.T, store *mem.Store, v *metadata.View) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := v.WaitRevision(ctx, store.Revision()); err != nil {
		t.Fatalf("the view is at %d, the store at %d: %v", v.Revision(), store.Revision(), err)
	}
}

func TestViewFollows(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		one := register(t, kv, nil)
		before := createTopic(t, kv, "before", 2)
		v := viewing(t, kv)
		if _, ok := v.Topic("before"); !ok || len(v.Brokers()) != 1 {
			t.Fatal("not listed")
		}
		two := register(t, kv, nil)
		after := createTopic(t, kv, "after", 3)
		putJSON(t, kv, metadata.KeyController, metadata.Controller{Incarnation: two.Incarnation(), Epoch: 4})
		putJSON(t, kv, metadata.CoordinatorKey(9), metadata.Coordinator{Incarnation: one.Incarnation(), Epoch: 2})
		if _, _, err := metadata.AlterConfigs(t.Context(), kv, metadata.ConfigGroup, "a/b", func(c map[string]string) error { c["k"] = "v"; return nil }); err != nil {
			t.Fatal(err)
		}
		tp := metadata.TopicPartition{Topic: after.ID, Partition: 2}
		setPartition(t, kv, tp, metadata.Partition{Preferred: 5})
		rev := entry(t, kv, metadata.PartitionKey(tp)).ModRevision
		settled(t, store, v)

		if b := v.Brokers(); len(b) != 2 || b[0] != one.Broker() || b[1] != two.Broker() {
			t.Errorf("brokers %+v", b)
		}
		if b, ok := v.BrokerByID(2); !ok || b != two.Broker() {
			t.Errorf("broker 2: %+v", b)
		}
		if c, ok := v.Controller(); !ok || c.Incarnation != two.Incarnation() || c.Epoch != 4 {
			t.Errorf("controller %+v", c)
		}
		if c, r, ok := v.Coordinator(9); !ok || c.Epoch != 2 || r != entry(t, kv, metadata.CoordinatorKey(9)).ModRevision {
			t.Errorf("coordinator %+v at %d", c, r)
		}
		if c := v.Config(metadata.ConfigGroup, "a/b"); c["k"] != "v" {
			t.Errorf("configs %v", c)
		}
		if p, r, ok := v.PartitionEntry(tp); !ok || p.Preferred != 5 || r != rev {
			t.Errorf("partition %+v at %d", p, r)
		}
		if ts := v.Topics(); len(ts) != 2 || ts[0].Name != "after" || ts[1].Name != "before" {
			t.Errorf("topics %v", ts)
		}
		n := 0
		v.Partitions(func(tp metadata.TopicPartition, _ *metadata.Partition) bool {
			if _, ok := v.Partition(tp); ok {
				n++
			}
			return true
		})
		if n != 5 {
			t.Errorf("%d partitions", n)
		}

		if _, err := metadata.DeleteTopic(t.Context(), kv, before.ID); err != nil {
			t.Fatal(err)
		}
		again := createTopic(t, kv, "before", 1)
		store.DropLease(one.Lease())
		if _, err := kv.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Delete(metadata.KeyController), metadata.DeletePrefix(metadata.PrefixConfigs), metadata.DeletePrefix(metadata.PrefixCoordinators)}}); err != nil {
			t.Fatal(err)
		}
		settled(t, store, v)
		if topic, ok := v.Topic("before"); !ok || topic.ID != again.ID {
			t.Errorf("topic made again: %+v", topic)
		}
		if _, ok := v.TopicByID(before.ID); ok {
			t.Error("a deleted topic is shown")
		}
		if _, ok := v.Partition(metadata.TopicPartition{Topic: before.ID}); ok {
			t.Error("its partition is shown")
		}
		if b := v.Brokers(); len(b) != 1 || b[0].ID != 2 {
			t.Errorf("brokers %+v", b)
		}
		_, controller := v.Controller()
		_, _, shard := v.Coordinator(9)
		if controller || shard || v.Config(metadata.ConfigGroup, "a/b") != nil {
			t.Error("deleted keys are shown")
		}
	})
}

// same compares the view with the store.
func same(t *testing.T, kv metadata.KV, v *metadata.View) {
	t.Helper()
	want := map[string]int64{}
	entries, _, err := kv.Range(t.Context(), metadata.PrefixPartitions)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		want[e.Key] = e.ModRevision
	}
	v.Partitions(func(tp metadata.TopicPartition, _ *metadata.Partition) bool {
		key := metadata.PartitionKey(tp)
		if _, rev, _ := v.PartitionEntry(tp); want[key] != rev {
			t.Errorf("%s at %d, want %d", key, rev, want[key])
		}
		delete(want, key)
		return true
	})
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
}

// Random changes with compactions and outages between: the view comes to be what
// the store is.
func TestViewThroughFaults(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, store *mem.Store) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				kv, watching := client(t, store), client(t, store)
				v := viewing(t, watching)
				id := metadata.NewTopicID()
				for range 300 {
					tp := metadata.TopicPartition{Topic: id, Partition: rnd.Int32N(20)}
					switch rnd.IntN(12) {
					case 0:
						store.Compact(0)
					case 1:
						watching.SetUnavailable(true)
					case 2:
						watching.SetUnavailable(false)
					case 3:
						watching.Pause()
					case 4:
						watching.Resume()
					case 5:
						time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
					case 6, 7:
						if _, err := kv.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Delete(metadata.PartitionKey(tp))}}); err != nil {
							t.Fatal(err)
						}
					default:
						setPartition(t, kv, tp, metadata.Partition{Preferred: metadata.Incarnation(rnd.Uint64())})
					}
				}
				watching.SetUnavailable(false)
				watching.Resume()
				settled(t, store, v)
				same(t, kv, v)
			})
		})
	}
}

func TestViewSubscribe(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		v := viewing(t, kv)
		ch, cancel := v.Subscribe()
		synctest.Wait()
		got := func() bool {
			synctest.Wait()
			select {
			case <-ch:
				return true
			default:
				return false
			}
		}
		got()
		createTopic(t, kv, "a", 3)
		createTopic(t, kv, "b", 3)
		if !got() || got() {
			t.Error("want one signal for changes that came together")
		}
		putJSON(t, kv, metadata.PrefixOffsets+"1/g", 1)
		if got() {
			t.Error("a signal for a change that is none of the view's")
		}
		cancel()
		createTopic(t, kv, "c", 3)
		if got() {
			t.Error("a signal after the end")
		}
	})
}

func TestViewPartitionChanges(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		own := many(t, kv, 10, 7)
		v := viewing(t, kv)
		c := v.SubscribePartitions()
		<-c.Changed()
		if tps, all := c.Take(); !all || len(tps) != 0 {
			t.Errorf("at first: %v, %v", tps, all)
		}
		claimOne(t, kv, 7, own[3])
		claimOne(t, kv, 7, own[3])
		synctest.Wait()
		<-c.Changed()
		if tps, all := c.Take(); all || len(tps) != 1 || tps[0] != own[3] {
			t.Errorf("%v, %v", tps, all)
		}
		createTopic(t, kv, "t", 1)
		synctest.Wait()
		if tps, all := c.Take(); all || len(tps) != 1 {
			t.Errorf("%v, %v", tps, all)
		}
		c.Close()
	})
}

func TestViewUnreadable(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		topic := createTopic(t, kv, "t", 1)
		v := viewing(t, kv)
		for _, key := range []string{metadata.TopicKey(topic.ID), metadata.PrefixTopics + "zz", metadata.PrefixPartitions + "x", metadata.PrefixCoordinators + "x", metadata.PrefixBrokers + "x", metadata.PrefixConfigs + "x"} {
			putJSON(t, kv, key, []int{1})
		}
		putJSON(t, kv, metadata.TopicKey(metadata.NewTopicID()), topic)
		settled(t, store, v)
		if got, ok := v.Topic("t"); !ok || got.ID != topic.ID || len(v.Topics()) != 1 || len(v.Brokers()) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestWaitRevisionEnds(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		v := viewing(t, client(t, store))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := v.WaitRevision(ctx, store.Revision()+1); err != context.DeadlineExceeded {
			t.Error(err)
		}
	})
}

// BenchmarkViewChange: one change among 10,000 partitions.
func BenchmarkViewChange(b *testing.B) {
	store := mem.New()
	kv := store.Client()
	defer kv.Close()
	for range 10 {
		if _, _, err := metadata.CreateTopic(b.Context(), kv, metadata.TopicSpec{Name: metadata.NewTopicID().Hex(), Partitions: 1000}); err != nil {
			b.Fatal(err)
		}
	}
	v := metadata.NewView(kv, nil)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	if err := v.WaitReady(ctx); err != nil {
		b.Fatal(err)
	}
	key := metadata.PartitionKey(metadata.TopicPartition{Topic: v.Topics()[0].ID})
	for b.Loop() {
		if _, err := kv.Txn(ctx, metadata.Txn{Then: []metadata.Op{metadata.Put(key, []byte(`{"preferred":"0000000000000001"}`))}}); err != nil {
			b.Fatal(err)
		}
		if err := v.WaitRevision(ctx, store.Revision()); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	<-done
}
