package metadata_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

func value[T any](t *testing.T, e metadata.Entry) T {
	t.Helper()
	var v T
	if !e.Exists() {
		t.Fatalf("%s does not exist", e.Key)
	}
	if err := json.Unmarshal(e.Value, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func createTopic(t *testing.T, kv metadata.KV, name string, partitions int32) *metadata.Topic {
	t.Helper()
	topic, _, err := metadata.CreateTopic(t.Context(), kv, metadata.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: 1})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// wholeTopic asserts that the topic, its name and its partitions are there.
func wholeTopic(t *testing.T, kv metadata.KV, topic *metadata.Topic) {
	t.Helper()
	if got := value[metadata.Topic](t, entry(t, kv, metadata.TopicKey(topic.ID))); got.ID != topic.ID || got.Partitions != topic.Partitions {
		t.Fatalf("stored %+v, returned %+v", got, topic)
	}
	if got := value[metadata.TopicName](t, entry(t, kv, metadata.TopicNameKey(topic.Name))); got.ID != topic.ID {
		t.Fatalf("the name is of %s", got.ID)
	}
	if got := keys(t, kv, metadata.PrefixPartitions+topic.ID.Hex()); len(got) != int(topic.Partitions) {
		t.Fatalf("%d partitions, want %d", len(got), topic.Partitions)
	}
}

func TestCreateTopic(t *testing.T) {
	for _, partitions := range []int32{1, 117, 118, 119, 120, 500} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
				topic, rev, err := metadata.CreateTopic(t.Context(), kv, metadata.TopicSpec{
					Name: "t", Partitions: partitions, ReplicationFactor: 3,
					Configs:   map[string]string{"retention.ms": "1"},
					Preferred: func(p int32) metadata.Incarnation { return metadata.Incarnation(p + 1) },
				})
				if err != nil {
					t.Fatal(err)
				}
				wholeTopic(t, kv, topic)
				e := entry(t, kv, metadata.TopicKey(topic.ID))
				if e.ModRevision != rev {
					t.Errorf("created at %d, said %d", e.ModRevision, rev)
				}
				if got := value[metadata.Topic](t, e); got.Configs["retention.ms"] != "1" || got.ReplicationFactor != 3 || got.Created.IsZero() {
					t.Errorf("%+v", got)
				}
				last := metadata.TopicPartition{Topic: topic.ID, Partition: partitions - 1}
				if p := value[metadata.Partition](t, entry(t, kv, metadata.PartitionKey(last))); p.Preferred != metadata.Incarnation(partitions) {
					t.Errorf("%+v", p)
				}
				time.Sleep(time.Second)
				if got := keys(t, kv, metadata.PrefixTopics); len(got) != 1 {
					t.Errorf("topics %v", got)
				}
			})
		})
	}
}

// A create whose answers come late must not undo what happened since.
func TestCreateTopicLateDuplicateKeepsOwners(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		kv.FailLate(1, 2*time.Second)
		topic := createTopic(t, kv, "t", 300)
		tp := metadata.TopicPartition{Topic: topic.ID}
		setPartition(t, kv, tp, metadata.Partition{Preferred: 7})
		claimOne(t, kv, 7, tp)
		time.Sleep(5 * time.Second)
		if p := value[metadata.Partition](t, entry(t, kv, metadata.PartitionKey(tp))); len(p.Owners) != 1 {
			t.Errorf("the owner is gone: %+v", p)
		}
	})
}

func TestCreateTopicRefusals(t *testing.T) {
	kv := client(t, mem.New())
	createTopic(t, kv, "taken", 1)
	f := func(name string, partitions int32, want error) {
		t.Helper()
		_, _, err := metadata.CreateTopic(t.Context(), kv, metadata.TopicSpec{Name: name, Partitions: partitions})
		if !errors.Is(err, want) {
			t.Errorf("%.20q, %d: got %v, want %v", name, partitions, err, want)
		}
	}
	f("taken", 1, metadata.ErrTopicExists)
	f("taken", 500, metadata.ErrTopicExists)
	f("", 1, metadata.ErrInvalidName)
	f(".", 1, metadata.ErrInvalidName)
	f("..", 1, metadata.ErrInvalidName)
	f("a/b", 1, metadata.ErrInvalidName)
	f("a b", 1, metadata.ErrInvalidName)
	f("é", 1, metadata.ErrInvalidName)
	f(strings.Repeat("a", 250), 1, metadata.ErrInvalidName)
	f("p", 0, metadata.ErrInvalidPartitions)
	f("p", -1, metadata.ErrInvalidPartitions)
	f("p", metadata.MaxPartitions+1, metadata.ErrInvalidPartitions)
	f(strings.Repeat("a", 249), 1, nil)
	f("...", 1, nil)
	if got := keys(t, kv, metadata.PrefixTopics); len(got) != 3 {
		t.Errorf("topics %v", got)
	}
}

func TestCreateTopicRace(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		results := make(chan error)
		const n = 8
		for i := range n {
			kv := client(t, store)
			go func() {
				_, _, err := metadata.CreateTopic(t.Context(), kv, metadata.TopicSpec{Name: "t", Partitions: int32(1 + 40*i)})
				results <- err
			}()
		}
		won := 0
		for range n {
			if err := <-results; err == nil {
				won++
			} else if !errors.Is(err, metadata.ErrTopicExists) {
				t.Error(err)
			}
		}
		if won != 1 {
			t.Errorf("%d won", won)
		}
		kv := client(t, store)
		name := value[metadata.TopicName](t, entry(t, kv, metadata.TopicNameKey("t")))
		topic := value[metadata.Topic](t, entry(t, kv, metadata.TopicKey(name.ID)))
		wholeTopic(t, kv, &topic)
	})
}

func TestDeleteTopic(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		topic, other := createTopic(t, store.Client(), "t", 200), createTopic(t, store.Client(), "o", 2)
		rev, err := metadata.DeleteTopic(t.Context(), kv, topic.ID)
		if err != nil || rev == 0 {
			t.Fatal(rev, err)
		}
		time.Sleep(time.Second)
		wholeTopic(t, kv, other)
		again := createTopic(t, kv, "t", 3)
		wholeTopic(t, kv, again)
		if got := keys(t, kv, metadata.PrefixPartitions); len(got) != 5 {
			t.Errorf("partitions %v", got)
		}
		if _, err := metadata.DeleteTopic(t.Context(), kv, topic.ID); !errors.Is(err, metadata.ErrUnknownTopic) {
			t.Errorf("second deletion: %v", err)
		}
	})
}

func TestCreatePartitions(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		topic := createTopic(t, store.Client(), "t", 3)
		for _, total := range []int32{4, 300} {
			grown, rev, err := metadata.CreatePartitions(t.Context(), kv, topic.ID, total, nil)
			if err != nil || rev == 0 || grown.Partitions != total {
				t.Fatal(grown, rev, err)
			}
			wholeTopic(t, kv, grown)
		}
		for _, total := range []int32{300, 299, 0} {
			if _, _, err := metadata.CreatePartitions(t.Context(), kv, topic.ID, total, nil); !errors.Is(err, metadata.ErrInvalidPartitions) {
				t.Errorf("to %d: %v", total, err)
			}
		}
		if _, _, err := metadata.CreatePartitions(t.Context(), kv, metadata.NewTopicID(), 5, nil); !errors.Is(err, metadata.ErrUnknownTopic) {
			t.Errorf("unknown topic: %v", err)
		}
	})
}

func TestAlterTopicConfigs(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		topic := createTopic(t, store.Client(), "t", 1)
		for i := range 4 {
			_, rev, err := metadata.AlterTopicConfigs(t.Context(), kv, topic.ID, func(c map[string]string) error {
				c[fmt.Sprint(i)] = "v"
				delete(c, fmt.Sprint(i-2))
				return nil
			})
			if err != nil || rev == 0 {
				t.Fatal(err)
			}
		}
		got := value[metadata.Topic](t, entry(t, kv, metadata.TopicKey(topic.ID)))
		if len(got.Configs) != 2 || got.Configs["2"] != "v" || got.Configs["3"] != "v" {
			t.Errorf("%v", got.Configs)
		}
		refuse := errors.New("no")
		if _, _, err := metadata.AlterTopicConfigs(t.Context(), kv, topic.ID, func(map[string]string) error { return refuse }); !errors.Is(err, refuse) {
			t.Error(err)
		}
		if _, _, err := metadata.AlterTopicConfigs(t.Context(), kv, metadata.NewTopicID(), func(map[string]string) error { return nil }); !errors.Is(err, metadata.ErrUnknownTopic) {
			t.Error(err)
		}
	})
}

func TestAlterConfigs(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		set := func(kind, name, key, v string) error {
			_, _, err := metadata.AlterConfigs(t.Context(), kv, kind, name, func(c map[string]string) error {
				if c[key] = v; v == "" {
					delete(c, key)
				}
				return nil
			})
			return err
		}
		group := "../a/b %\x00é"
		for _, err := range []error{
			set(metadata.ConfigBroker, "1", "a", "x"), set(metadata.ConfigBroker, "", "a", "y"),
			set(metadata.ConfigGroup, group, "b", "z"), set(metadata.ConfigBroker, "1", "a", ""),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		want := []string{metadata.ConfigKey(metadata.ConfigBroker, ""), metadata.ConfigKey(metadata.ConfigGroup, group)}
		if got := keys(t, kv, metadata.PrefixConfigs); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("keys %q, want %q", got, want)
		}
		if kind, name, err := metadata.ParseConfigKey(want[1]); kind != metadata.ConfigGroup || name != group || err != nil {
			t.Errorf("parsed %q, %q, %v", kind, name, err)
		}
		if err := errors.Join(set("topic", "t", "a", "b")); !errors.Is(err, metadata.ErrInvalidName) {
			t.Error(err)
		}
		if err := set(metadata.ConfigGroup, strings.Repeat("g", 1025), "a", "b"); !errors.Is(err, metadata.ErrInvalidName) {
			t.Error(err)
		}
	})
}

func TestAllocateProducerIDs(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		other := client(t, store)
		taken := make(map[int64]bool)
		for range 5 {
			for _, c := range []metadata.KV{kv, other} {
				first, err := metadata.AllocateProducerIDs(t.Context(), c, 10)
				if err != nil {
					t.Fatal(err)
				}
				for id := first; id < first+10; id++ {
					if taken[id] || id < 0 {
						t.Fatalf("id %d given twice", id)
					}
					taken[id] = true
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
	})
}

func TestCollidesWith(t *testing.T) {
	f := func(a, b string, want bool) {
		t.Helper()
		if metadata.CollidesWith(a, b) != want || metadata.CollidesWith(b, a) != want {
			t.Errorf("%s, %s", a, b)
		}
	}
	f("a.b", "a_b", true)
	f("a._b", "a_.b", true)
	f("a.b", "a.b", false)
	f("a.b", "a-b", false)
	f("a", "b", false)
}

// Without the store an operation ends with its context.
func TestOperationsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		topic := createTopic(t, kv, "t", 1)
		store.SetUnavailable(true)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begun := time.Now()
		if _, err := metadata.DeleteTopic(ctx, kv, topic.ID); !errors.Is(err, metadata.ErrUnavailable) {
			t.Error(err)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("took %v of 3 s", took)
		}
		begun = time.Now()
		if _, _, err := metadata.CreateTopic(t.Context(), kv, metadata.TopicSpec{Name: "u", Partitions: 1}); !errors.Is(err, metadata.ErrUnavailable) {
			t.Error(err)
		}
		if took := time.Since(begun); took > metadata.OpTimeout {
			t.Errorf("took %v", took)
		}
	})
}
