package coordinator

import (
	"context"
	"slices"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
)

// OffsetCommit answers when the offsets are stored.
func (c *Coordinator) OffsetCommit(ctx context.Context, _ ClientInfo, req *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	cr := commitRequest{c: c, req: req, resp: kmsg.NewPtrOffsetCommitResponse()}
	cr.resp.Version = req.Version
	cr.layOut()
	if len(cr.valid) == 0 {
		return cr.resp
	}
	if err := checkGroupID(req.Group, true); err != nil {
		cr.failAll(err)
		return cr.resp
	}
	if err := cr.finish(ctx); err != nil {
		cr.failAll(err)
	}
	return cr.resp
}

// finish commits what is valid and waits until that is stored. An error is that
// of all partitions.
func (cr *commitRequest) finish(ctx context.Context) *kerr.Error {
	cm, err := cr.submit()
	if err != nil || cm == nil {
		return err
	}
	if _, ok := await(ctx, cm.done); !ok && !closed(cm.done) {
		return kerr.CoordinatorNotAvailable // nobody reads it
	}
	if failpoint.Hit(failpoint.GroupBeforeReply) != nil {
		return kerr.CoordinatorNotAvailable
	}
	for _, v := range cr.valid {
		if *v.code == 0 {
			*v.code = code(cm.failed[chunkOf(v.topic, v.partition.Partition)])
		}
	}
	return nil
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// commitRequest is an OffsetCommit in the making of its answer.
type commitRequest struct {
	c     *Coordinator
	req   *kmsg.OffsetCommitRequest
	resp  *kmsg.OffsetCommitResponse
	valid []commitPartition
	// producer, when not nil, commits in a transaction that confirmed tells to be
	// still the one that was asked about. The shard's lock is held.
	producer  *txn.Producer
	confirmed func() bool
}

// commitPartition is a partition that exists; code is its place in the answer.
type commitPartition struct {
	topic     metadata.TopicID
	partition *kmsg.OffsetCommitRequestTopicPartition
	code      *int16
}

// layOut makes the answer's form and finds which partitions exist.
func (cr *commitRequest) layOut() {
	cr.resp.Topics = make([]kmsg.OffsetCommitResponseTopic, len(cr.req.Topics))
	for i := range cr.req.Topics {
		rt, st := &cr.req.Topics[i], &cr.resp.Topics[i]
		st.Default()
		st.Topic, st.TopicID = rt.Topic, rt.TopicID
		topic, err := cr.c.topic(cr.req.Version >= 10, rt.Topic, rt.TopicID)
		st.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(rt.Partitions))
		for j := range rt.Partitions {
			rp, sp := &rt.Partitions[j], &st.Partitions[j]
			sp.Default()
			sp.Partition = rp.Partition
			switch {
			case err != nil:
				sp.ErrorCode = err.Code
			case rp.Partition < 0 || rp.Partition >= topic.Partitions:
				sp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			default:
				cr.valid = append(cr.valid, commitPartition{topic: topic.ID, partition: rp, code: &sp.ErrorCode})
			}
		}
	}
}

// topic finds a topic by id or by name.
func (c *Coordinator) topic(byID bool, name string, id [16]byte) (*metadata.Topic, *kerr.Error) {
	if byID {
		if t, ok := c.cfg.View.TopicByID(id); ok {
			return t, nil
		}
		return nil, kerr.UnknownTopicID
	}
	if t, ok := c.cfg.View.Topic(name); ok {
		return t, nil
	}
	return nil, kerr.UnknownTopicOrPartition
}

func (cr *commitRequest) failAll(err *kerr.Error) {
	for _, v := range cr.valid {
		*v.code = err.Code
	}
}

// submit checks the request against the group and queues it. It returns nil
// when nothing is left to commit.
func (cr *commitRequest) submit() (*commit, *kerr.Error) {
	now := time.Now()
	changes, good := cr.changes(now)
	sh := cr.c.shard(cr.req.Group)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.find(cr.req.Group)
	if err != nil {
		return nil, err
	}
	if cr.confirmed != nil && !cr.confirmed() {
		return nil, kerr.CoordinatorLoadInProgress
	}
	if e == nil {
		if e, err = cr.newGroup(sh, now); err != nil {
			return nil, err
		}
	}
	// A group made for a commit that is then refused is forgotten again.
	defer sh.arm(e)
	var accepts func(metadata.TopicPartition) bool
	if cr.producer != nil {
		err = e.acceptsTxnCommit(now, cr.req)
	} else {
		accepts, err = e.acceptsCommit(now, cr.req)
	}
	if err != nil {
		return nil, err
	}
	if accepts != nil {
		changes = cr.refuseStale(changes, accepts)
	}
	if !good {
		cr.refuseMetadata()
	}
	if len(changes) == 0 {
		return nil, nil
	}
	cm, err := sh.submit(e, changes)
	if err == nil && cr.producer != nil {
		cm.producer = cr.producer
		for _, ch := range changes {
			sh.pending.note(cr.producer.ID, pendingRef{e, ch.id}, 1)
		}
	}
	return cm, err
}

// acceptsTxnCommit checks a commit in a transaction against the group (KIP-447).
func (e *entry) acceptsTxnCommit(now time.Time, req *kmsg.OffsetCommitRequest) *kerr.Error {
	if e.k != nil {
		return e.k.CommitTxnOffsets(now, req.MemberID, req.InstanceID, req.Generation)
	}
	return e.g.CommitTxnOffsets(now, req.MemberID, req.InstanceID, req.Generation)
}

// acceptsCommit checks a commit against the group. The function it may return
// decides for each partition.
func (e *entry) acceptsCommit(now time.Time, req *kmsg.OffsetCommitRequest) (func(metadata.TopicPartition) bool, *kerr.Error) {
	if e.k != nil {
		return e.k.CommitOffsets(now, req.MemberID, req.Generation, req.Version)
	}
	return nil, e.g.CommitOffsets(now, req.MemberID, req.InstanceID, req.Generation)
}

// refuseStale takes out what the member did not have in the epoch it names.
func (cr *commitRequest) refuseStale(changes []change, accepts func(metadata.TopicPartition) bool) []change {
	for _, v := range cr.valid {
		p := v.partition.Partition
		if accepts(metadata.TopicPartition{Topic: v.topic, Partition: p}) {
			continue
		}
		*v.code = kerr.StaleMemberEpoch.Code
		for _, ch := range changes {
			if ch.id == chunkOf(v.topic, p) {
				delete(ch.parts, p)
			}
		}
	}
	return slices.DeleteFunc(changes, func(ch change) bool { return len(ch.parts) == 0 })
}

// newGroup makes a group for consumers that assign themselves. A member's commit
// cannot be for a group that does not exist.
func (cr *commitRequest) newGroup(sh *shard, now time.Time) (*entry, *kerr.Error) {
	switch {
	case cr.req.Generation < 0:
		return sh.findOrCreate(cr.req.Group, now)
	case cr.req.Version >= 9 && cr.producer == nil:
		return nil, kerr.GroupIDNotFound
	}
	return nil, kerr.IllegalGeneration
}

// changes gathers the offsets by chunk; good is false if metadata was too large
// somewhere.
func (cr *commitRequest) changes(now time.Time) (changes []change, good bool) {
	good = true
	at := map[chunkID]int{}
	for _, v := range cr.valid {
		if !cr.metadataFits(v) {
			good = false
			continue
		}
		id := chunkOf(v.topic, v.partition.Partition)
		i, ok := at[id]
		if !ok {
			i = len(changes)
			at[id] = i
			changes = append(changes, change{id: id, parts: map[int32]edit{}})
		}
		o := &offset{offset: v.partition.Offset, epoch: v.partition.LeaderEpoch, at: now}
		if cr.req.Version < 6 {
			o.epoch = -1 // the field began with v6
		}
		if v.partition.Metadata != nil {
			o.metadata = *v.partition.Metadata
		}
		// Versions 2 to 4 may bring a retention of their own.
		if cr.req.Version <= 4 && cr.req.RetentionTimeMillis >= 0 {
			o.expires = now.Add(time.Duration(min(cr.req.RetentionTimeMillis, retentionMillisMax)) * time.Millisecond)
		}
		changes[i].parts[v.partition.Partition] = edit{offset: o, producer: cr.producer}
	}
	return changes, good
}

// retentionMillisMax, a century, keeps a client's retention within what time can hold.
const retentionMillisMax = 100 * 365 * 24 * 60 * 60 * 1000

func (cr *commitRequest) metadataFits(v commitPartition) bool {
	return v.partition.Metadata == nil || utf16Len(*v.partition.Metadata) <= cr.c.cfg.OffsetMetadataMax
}

func (cr *commitRequest) refuseMetadata() {
	for _, v := range cr.valid {
		if !cr.metadataFits(v) {
			*v.code = kerr.OffsetMetadataTooLarge.Code
		}
	}
}

// utf16Len is the length that Kafka's limits count.
func utf16Len(s string) int {
	if len(s) == 0 {
		return 0
	}
	n := 0
	for _, r := range s {
		n += max(utf16.RuneLen(r), 1)
	}
	return max(n, utf8.RuneCountInString(s))
}
