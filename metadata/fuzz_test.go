package metadata

import (
	"log/slog"
	"testing"
)

// FuzzView shows a view what could be in the store, as a list and as events, and
// asks it everything.
func FuzzView(f *testing.F) {
	topic, inc := TopicID{1}, Incarnation(7)
	tp := TopicPartition{topic, 3}
	seeds := []struct {
		key   string
		value any
	}{
		{BrokerKey(inc), Broker{ID: 1, Incarnation: inc, Host: "h", Port: 1}},
		{KeyController, Controller{}},
		{TopicKey(topic), Topic{ID: topic, Name: "t", Partitions: 4, Configs: map[string]string{"a": "b"}}},
		{PartitionKey(tp), Partition{Owners: []Owner{{inc, 2}}, Preferred: inc}},
		{CoordinatorKey(49), Coordinator{Incarnation: inc}},
		{ConfigKey(ConfigBroker, "1"), map[string]string{"a": "b"}},
	}
	for _, s := range seeds {
		f.Add(s.key, encode(s.value), s.key, []byte(`{"partitions":-1}`))
		f.Add(s.key, []byte("null"), TopicKey(topic), encode(s.value))
	}
	f.Add(PartitionKey(tp)[:len(PrefixPartitions)], []byte("[]"), CoordinatorKey(-1), []byte("{}"))
	f.Fuzz(func(t *testing.T, key string, value []byte, other string, next []byte) {
		v := NewView(nil, slog.New(slog.DiscardHandler))
		for _, p := range v.parts {
			v.applyList(p, []Entry{{Key: key, Value: value, ModRevision: 1}}, 1)
			v.applyEvents(p, Events{Revision: 2, Events: []Event{{Entry: Entry{Key: other, Value: next, ModRevision: 2}}}})
			v.applyEvents(p, Events{Revision: 3, Events: []Event{{Entry: Entry{Key: key, Value: next, ModRevision: 3}}}})
		}
		v.Brokers()
		v.Topics()
		v.Partitions(func(TopicPartition, *Partition) bool { return true })
		for shard := range GroupShards {
			v.Coordinator(shard)
		}
		for _, p := range v.parts {
			v.applyEvents(p, Events{Revision: 4, Events: []Event{{Entry: Entry{Key: key, ModRevision: 4}, Deleted: true}, {Entry: Entry{Key: other, ModRevision: 4}, Deleted: true}}})
			v.applyList(p, nil, 5)
		}
		if len(v.Brokers())+len(v.Topics()) > 0 {
			t.Errorf("%q, %q: something is left of an empty store", key, other)
		}
	})
}

// FuzzKeys parses names of every kind; what is accepted is spelt in one way only.
func FuzzKeys(f *testing.F) {
	f.Add(PartitionKey(TopicPartition{TopicID{1}, 3}))
	f.Add(ConfigKey(ConfigGroup, "a/b %"))
	f.Add(Incarnation(1 << 48).String())
	f.Add(PrefixPartitions + TopicID{}.Hex() + "/-1")
	f.Fuzz(func(t *testing.T, s string) {
		if tp, err := ParsePartitionKey(s); err == nil && (tp.Partition < 0 || len(PartitionKey(tp)) > len(s)) {
			t.Errorf("%q is %v", s, tp)
		}
		if kind, name, err := ParseConfigKey(s); err == nil {
			if k, n, err := ParseConfigKey(ConfigKey(kind, name)); err != nil || k != kind || n != name {
				t.Errorf("%q is %q of %q, and again %q of %q, %v", s, name, kind, n, k, err)
			}
		}
		if i, err := ParseIncarnation(s); err == nil {
			if again, err := ParseIncarnation(i.String()); err != nil || again != i {
				t.Errorf("%q is %v and then %v, %v", s, i, again, err)
			}
		}
		_ = CheckTopicName(s)
		_, _ = parseShard(s)
	})
}
