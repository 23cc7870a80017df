package franz

import (
	"context"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/checker"
)

// Transient errors are shown to a polling application and retried by the client
// itself.
func Transient(err error) bool {
	var code *kerr.Error
	return !errors.As(err, &code) || code.Retriable
}

// Member is a consumer that is a member of a group, and tells what it is
// assigned, commits and reads.
type Member struct {
	Client *kgo.Client
	h      *checker.History
	c      *checker.Consumer
	proc   string
	group  string
	topic  string

	mu    sync.Mutex // guards what follows
	owned map[checker.Key]bool
	next  map[checker.Key]int64 // what to commit
	id    [16]byte              // of the topic, once it was fetched from
}

// Join begins to consume a topic as a member of a group.
func Join(h *checker.History, proc, group, topic string, opts ...kgo.Opt) (*Member, error) {
	m := &Member{h: h, proc: proc, group: group, topic: topic, c: h.Consumer(proc, checker.ReadUncommitted, checker.Subscribed, checker.Epochs),
		owned: make(map[checker.Key]bool), next: make(map[checker.Key]int64)}
	m.c.Subscribe(group)
	cl, err := kgo.NewClient(append(opts, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.OnPartitionsAssigned(func(_ context.Context, cl *kgo.Client, got map[string][]int32) { m.assigned(cl, got) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, cl *kgo.Client, gone map[string][]int32) { m.revoked(gone) }),
		kgo.OnPartitionsLost(func(_ context.Context, cl *kgo.Client, gone map[string][]int32) { m.revoked(gone) }))...)
	if err != nil {
		return nil, err
	}
	m.Client = cl
	return m, nil
}

func (m *Member) assigned(cl *kgo.Client, got map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for topic, partitions := range got {
		for _, p := range partitions {
			m.owned[checker.Key{Topic: topic, Partition: p}] = true
		}
	}
	member, generation := cl.GroupMetadata()
	keys := make([]checker.Key, 0, len(m.owned))
	for k := range m.owned {
		keys = append(keys, k)
	}
	m.h.Stable(m.proc, m.group, member, generation, keys)
}

func (m *Member) revoked(gone map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for topic, partitions := range gone {
		for _, p := range partitions {
			k := checker.Key{Topic: topic, Partition: p}
			delete(m.owned, k)
			delete(m.next, k)
		}
	}
	// It owns nothing, for all it knows, until it is told again.
	m.c.Subscribe(m.group)
}

// Poll polls once, and remembers how far it came.
func (m *Member) Poll(ctx context.Context) kgo.Fetches {
	fetches := Poll(ctx, m.Client, m.c)
	m.mu.Lock()
	defer m.mu.Unlock()
	fetches.EachTopic(func(t kgo.FetchTopic) {
		if t.TopicID != [16]byte{} {
			m.id = t.TopicID
		}
	})
	fetches.EachRecord(func(r *kgo.Record) {
		if k := (checker.Key{Topic: r.Topic, Partition: r.Partition}); m.owned[k] {
			m.next[k] = r.Offset + 1
		}
	})
	return fetches
}

// Commit commits how far it came, if that is further than the last time.
func (m *Member) Commit(ctx context.Context) error {
	m.mu.Lock()
	member, generation := m.Client.GroupMetadata()
	offsets, id := m.next, m.id
	m.next = make(map[checker.Key]int64)
	m.mu.Unlock()
	if len(offsets) == 0 || generation < 0 {
		return nil
	}
	// The client finds the coordinator and tries again by itself.
	call := m.h.OffsetCommit(m.proc, m.group, member, generation, offsets).Retried()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = m.group, member, generation
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.TopicID = m.topic, id
	for k, offset := range offsets {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = k.Partition, offset
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, m.Client)
	if err == nil {
		err = outcome(resp)
	}
	call.Done("", err)
	return err
}

// outcome is the one answer to all partitions, or an error that says nothing.
func outcome(resp *kmsg.OffsetCommitResponse) error {
	codes := make(map[int16]bool)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			codes[p.ErrorCode] = true
		}
	}
	if len(codes) != 1 {
		return errors.New("several outcomes in one answer")
	}
	for code := range codes {
		return kerr.ErrorForCode(code)
	}
	return nil
}

// Close leaves the group.
func (m *Member) Close() {
	m.Client.Close()
	m.c.Close()
}

// Fetch asks for the offsets a group has committed of a topic's partitions.
func Fetch(ctx context.Context, cl *kgo.Client, h *checker.History, proc, group, topic string, partitions int32) error {
	return fetch(ctx, cl, h, proc, group, topic, partitions, false)
}

// FetchStable is Fetch of offsets that no open transaction is about to change.
func FetchStable(ctx context.Context, cl *kgo.Client, h *checker.History, proc, group, topic string, partitions int32) error {
	return fetch(ctx, cl, h, proc, group, topic, partitions, true)
}

func fetch(ctx context.Context, cl *kgo.Client, h *checker.History, proc, group, topic string, partitions int32, stable bool) error {
	var err error
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.RequireStable = group, stable
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	t, gt := kmsg.NewOffsetFetchRequestTopic(), kmsg.NewOffsetFetchRequestGroupTopic()
	t.Topic, gt.Topic = topic, topic
	if gt.TopicID, err = topicID(ctx, cl, topic); err != nil {
		return err
	}
	for p := range partitions {
		t.Partitions, gt.Partitions = append(t.Partitions, p), append(gt.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	g.Topics = append(g.Topics, gt)
	req.Groups = append(req.Groups, g)
	call := h.OffsetFetch(proc, group)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		call.Done("", nil, err)
		return err
	}
	offsets, err := fetched(resp, topic)
	call.Done("", offsets, err)
	return err
}

func topicID(ctx context.Context, cl *kgo.Client, topic string) ([16]byte, error) {
	listed, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil {
		return [16]byte{}, err
	}
	return listed[topic].ID, listed[topic].Err
}

// fetched are the offsets of an answer of any version.
func fetched(resp *kmsg.OffsetFetchResponse, topic string) (map[checker.Key]int64, error) {
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, err
	}
	offsets := make(map[checker.Key]int64)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 {
				offsets[checker.Key{Topic: topic, Partition: p.Partition}] = p.Offset
			}
		}
	}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return nil, err
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 {
					offsets[checker.Key{Topic: topic, Partition: p.Partition}] = p.Offset
				}
			}
		}
	}
	return offsets, nil
}
