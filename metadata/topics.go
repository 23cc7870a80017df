package metadata

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"
)

var (
	// ErrTopicExists: the name is taken.
	ErrTopicExists = errors.New("topic exists")
	// ErrUnknownTopic: no topic has this id (any more).
	ErrUnknownTopic = errors.New("unknown topic")
	// ErrInvalidPartitions: not a number of partitions this topic can have.
	ErrInvalidPartitions = errors.New("invalid number of partitions")
)

// MaxPartitions bounds the partitions of one topic.
const MaxPartitions = 100_000

// TopicSpec is what CreateTopic makes a topic from. Preferred, when not nil,
// names the leader each partition should get; else the controller will.
type TopicSpec struct {
	Name string
	// ID is zero for a new one; only an internal topic, which is never deleted,
	// may have one of its own.
	ID                TopicID
	Partitions        int32
	ReplicationFactor int16
	Configs           map[string]string
	Preferred         func(partition int32) Incarnation
}

// CreateTopic makes a topic and returns it with the revision it appeared at. It
// appears whole: the partition keys are written first, under an id nobody knows
// yet, then the topic and its name in one transaction. What a failed attempt
// leaves behind has an id that is never used.
func CreateTopic(ctx context.Context, kv KV, spec TopicSpec) (*Topic, int64, error) {
	if err := CheckTopicName(spec.Name); err != nil {
		return nil, 0, err
	}
	if spec.Partitions < 1 || spec.Partitions > MaxPartitions {
		return nil, 0, fmt.Errorf("%w: %d, must be 1 to %d", ErrInvalidPartitions, spec.Partitions, MaxPartitions)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	t := &Topic{
		ID: spec.ID, Name: spec.Name, Partitions: spec.Partitions, ReplicationFactor: spec.ReplicationFactor,
		Configs: maps.Clone(spec.Configs), Created: time.Now().UTC().Truncate(time.Millisecond),
	}
	if t.ID.IsZero() {
		t.ID = NewTopicID()
	}
	rev, err := createTopic(ctx, kv, t, spec.Preferred)
	if err != nil {
		return nil, 0, fmt.Errorf("create topic %s: %w", spec.Name, err)
	}
	return t, rev, nil
}

func createTopic(ctx context.Context, kv KV, t *Topic, preferred func(int32) Incarnation) (int64, error) {
	entries, err := get(ctx, kv, TopicNameKey(t.Name))
	if err != nil {
		return 0, err
	}
	if entries[0].Exists() {
		return 0, ErrTopicExists
	}
	last, err := addPartitions(ctx, kv, t.ID, 0, t.Partitions, preferred)
	if err != nil {
		return 0, err
	}
	return publishTopic(ctx, kv, t, last)
}

// publishTopic makes the topic visible, with the last of its partitions.
func publishTopic(ctx context.Context, kv KV, t *Topic, last []Op) (int64, error) {
	name := TopicNameKey(t.Name)
	txn := Txn{
		If:   []Cond{{name, 0}, {TopicKey(t.ID), 0}},
		Then: append(last, Put(name, encode(TopicName{ID: t.ID})), Put(TopicKey(t.ID), encode(t))),
		Else: []string{name},
	}
	return settle(ctx, kv, txn, func(cur []Entry) (int64, error) {
		if !cur[0].Exists() {
			return 0, nil
		}
		v, err := decode[TopicName](cur[0])
		if err != nil {
			return 0, err
		}
		if v.ID != t.ID {
			deleteQuietly(ctx, kv, partitionPrefix(t.ID))
			return 0, ErrTopicExists
		}
		return cur[0].ModRevision, nil
	})
}

// addPartitions writes the keys of partitions from up to to, but for the last
// batch, which it returns for the transaction that makes them visible. Keys
// that exist are left alone: they are of an earlier attempt, or of this one
// with its answer lost, and they may have owners by now.
func addPartitions(ctx context.Context, kv KV, id TopicID, from, to int32, preferred func(int32) Incarnation) ([]Op, error) {
	const batch = MaxTxnOps - 2 // leaves room for the topic and its name
	var ops []Op
	for p := from; p < to; p++ {
		var value Partition
		if preferred != nil {
			value.Preferred = preferred(p)
		}
		ops = append(ops, Put(PartitionKey(TopicPartition{id, p}), encode(value)))
		if len(ops) < batch || p == to-1 {
			continue
		}
		if err := createAll(ctx, kv, ops); err != nil {
			return nil, err
		}
		ops = nil
	}
	return missing(ctx, kv, ops)
}

// createAll puts those keys of ops that do not exist.
func createAll(ctx context.Context, kv KV, ops []Op) error {
	t := Txn{Then: ops}
	for _, op := range ops {
		t.If = append(t.If, Cond{op.Key, 0})
		t.Else = append(t.Else, op.Key)
	}
	_, err := settle(ctx, kv, t, func(cur []Entry) (int64, error) {
		var left []Op
		for i, e := range cur {
			if !e.Exists() {
				left = append(left, ops[i])
			}
		}
		if len(left) == 0 {
			return 1, nil
		}
		if len(left) == len(ops) {
			return 0, nil
		}
		return 1, createAll(ctx, kv, left)
	})
	return err
}

// missing returns those of ops whose keys do not exist.
func missing(ctx context.Context, kv KV, ops []Op) ([]Op, error) {
	keys := make([]string, len(ops))
	for i, op := range ops {
		keys[i] = op.Key
	}
	entries, err := get(ctx, kv, keys...)
	if err != nil {
		return nil, err
	}
	var left []Op
	for i, e := range entries {
		if !e.Exists() {
			left = append(left, ops[i])
		}
	}
	return left, nil
}

// settle sends t until its outcome is known. When a condition failed or the
// answer was lost, settled gets the entries of t.Else as they are now and
// returns the revision at which t's aim was reached, 0 to send t again, or an
// error.
func settle(ctx context.Context, kv KV, t Txn, settled func(cur []Entry) (int64, error)) (int64, error) {
	var b backoff
	for {
		res, err := kv.Txn(ctx, t)
		if err == nil && res.Succeeded {
			return res.Revision, nil
		}
		cur := res.Else
		if errors.Is(err, ErrUnavailable) {
			if cur, _, err = kv.Get(ctx, t.Else...); err != nil {
				cur = nil
			}
		}
		if err != nil && !errors.Is(err, ErrUnavailable) {
			return 0, err
		}
		if err == nil {
			if rev, serr := settled(cur); rev != 0 || serr != nil {
				return rev, serr
			}
			err = ErrConflict
		}
		if b.wait(ctx) != nil {
			return 0, err
		}
	}
}

func partitionPrefix(id TopicID) string { return PrefixPartitions + id.Hex() + "/" }

// deleteQuietly removes leftovers; if it cannot, they do no harm.
func deleteQuietly(ctx context.Context, kv KV, prefix string) {
	_, _ = kv.Txn(ctx, Txn{Then: []Op{DeletePrefix(prefix)}})
}
