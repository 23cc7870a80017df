package metadata

import (
	"context"
	"errors"
	"fmt"
	"maps"
)

// DeleteTopic removes a topic, its name and its partitions at one revision, and
// returns a revision at which they are gone. An absent topic is ErrUnknownTopic.
func DeleteTopic(ctx context.Context, kv KV, id TopicID) (int64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var b backoff
	tried := false
	for {
		found, rev, err := deleteTopicOnce(ctx, kv, id)
		switch {
		case err == nil && rev != 0 && (found || tried): // tried: the answer of that attempt was lost
			return rev, nil
		case err == nil && !found:
			return 0, fmt.Errorf("%w: %s", ErrUnknownTopic, id)
		case err != nil && !errors.Is(err, ErrUnavailable):
			return 0, fmt.Errorf("delete topic %s: %w", id, err)
		}
		tried = tried || err != nil && found
		if werr := b.wait(ctx); werr != nil {
			return 0, fmt.Errorf("delete topic %s: %w", id, werr)
		}
	}
}

// deleteTopicOnce tells whether the topic was found, and the revision at which
// it is gone, 0 when a race was lost.
func deleteTopicOnce(ctx context.Context, kv KV, id TopicID) (found bool, rev int64, err error) {
	entries, now, err := kv.Get(ctx, TopicKey(id))
	if err != nil || !entries[0].Exists() {
		return false, now, err
	}
	topic := entries[0]
	t, err := decode[Topic](topic)
	if err != nil {
		return true, 0, err
	}
	txn := Txn{
		If:   []Cond{{topic.Key, topic.ModRevision}},
		Then: []Op{Delete(topic.Key), DeletePrefix(partitionPrefix(id))},
	}
	names, _, err := kv.Get(ctx, TopicNameKey(t.Name))
	if err != nil {
		return true, 0, err
	}
	if n, err := decode[TopicName](names[0]); err == nil && n.ID == id {
		txn.If = append(txn.If, Cond{names[0].Key, names[0].ModRevision})
		txn.Then = append(txn.Then, Delete(names[0].Key))
	}
	res, err := kv.Txn(ctx, txn)
	if err != nil || !res.Succeeded {
		return true, 0, err
	}
	return true, res.Revision, nil
}

// CreatePartitions grows a topic to total partitions. It returns the topic as it
// stands and a revision at which it does. The partitions appear at once.
func CreatePartitions(ctx context.Context, kv KV, id TopicID, total int32, preferred func(partition int32) Incarnation) (*Topic, int64, error) {
	if total > MaxPartitions {
		return nil, 0, fmt.Errorf("%w: %d, at most %d", ErrInvalidPartitions, total, MaxPartitions)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	var b backoff
	tried := false
	for {
		t, rev, err := createPartitionsOnce(ctx, kv, id, total, preferred, tried)
		if err == nil && rev != 0 {
			return t, rev, nil
		}
		if err != nil && !errors.Is(err, ErrUnavailable) {
			return nil, 0, fmt.Errorf("grow topic %s: %w", id, err)
		}
		tried = tried || err != nil
		if werr := b.wait(ctx); werr != nil {
			return nil, 0, fmt.Errorf("grow topic %s: %w", id, werr)
		}
	}
}

// createPartitionsOnce returns revision 0 when it lost a race. After an attempt
// whose answer was lost, a topic of the size asked for is success.
func createPartitionsOnce(ctx context.Context, kv KV, id TopicID, total int32, preferred func(int32) Incarnation, tried bool) (*Topic, int64, error) {
	entries, now, err := kv.Get(ctx, TopicKey(id))
	if err != nil {
		return nil, 0, err
	}
	t, err := parseTopic(entries[0])
	if err != nil {
		return nil, 0, err
	}
	if tried && t.Partitions == total {
		return &t, now, nil
	}
	if total <= t.Partitions {
		return nil, 0, fmt.Errorf("%w: the topic has %d, asked for %d", ErrInvalidPartitions, t.Partitions, total)
	}
	last, err := addPartitions(ctx, kv, id, t.Partitions, total, preferred)
	if err != nil {
		return nil, 0, err
	}
	t.Partitions = total
	res, err := kv.Txn(ctx, Txn{
		If:   []Cond{{entries[0].Key, entries[0].ModRevision}},
		Then: append(last, Put(entries[0].Key, encode(t))),
	})
	if err != nil || !res.Succeeded {
		return nil, 0, err
	}
	return &t, res.Revision, nil
}

func parseTopic(e Entry) (Topic, error) {
	if !e.Exists() {
		return Topic{}, fmt.Errorf("%w: %s", ErrUnknownTopic, e.Key)
	}
	return decode[Topic](e)
}

// AlterTopicConfigs changes the explicitly set configs of a topic and returns
// the topic with a revision at which it stands. change gets a copy it may
// modify, may run several times, and ends the call by returning an error.
func AlterTopicConfigs(ctx context.Context, kv KV, id TopicID, change func(configs map[string]string) error) (*Topic, int64, error) {
	e, rev, err := update(ctx, kv, TopicKey(id), func(cur Entry) (*Op, error) {
		t, err := parseTopic(cur)
		if err != nil {
			return nil, err
		}
		next, err := changed(t.Configs, change)
		if err != nil || maps.Equal(next, t.Configs) {
			return nil, err
		}
		t.Configs = next
		op := Put(cur.Key, encode(t))
		return &op, nil
	})
	if err != nil {
		return nil, 0, err
	}
	t, err := decode[Topic](e)
	return &t, rev, err
}

func changed(configs map[string]string, change func(map[string]string) error) (map[string]string, error) {
	next := maps.Clone(configs)
	if next == nil {
		next = make(map[string]string)
	}
	return next, change(next)
}
