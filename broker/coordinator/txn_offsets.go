package coordinator

import (
	"context"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
)

const (
	// offsetsAddVersion is the first version of TxnOffsetCommit that adds the
	// group's partition to the transaction; before, clients do (KIP-890).
	offsetsAddVersion = 5
	// offsetsIDVersion is the first that names topics by id.
	offsetsIDVersion = 6
	// markedMax bounds the producers whose coordinators' epochs a shard remembers.
	markedMax = 10_000
)

// pendings is what a shard knows of transactions in its groups, guarded by the
// shard's lock.
type pendings struct {
	// chunks are those that may have pending offsets of a producer, with how many
	// of its commits to them are not decided yet.
	chunks map[int64]map[pendingRef]int
	// asking are the questions to coordinators that are on their way. A marker
	// voids them: the answer may be about a transaction that it ended.
	asking map[int64]map[*bool]struct{}
	// marked are the highest coordinator epochs seen in markers.
	marked map[int64]int32
}

type pendingRef struct {
	e  *entry
	id chunkID
}

func newPendings() pendings {
	return pendings{chunks: map[int64]map[pendingRef]int{}, asking: map[int64]map[*bool]struct{}{}, marked: map[int64]int32{}}
}

// note remembers that a chunk may have pending offsets of a producer: undecided
// ones, so many more, or stored ones.
func (p *pendings) note(producer int64, ref pendingRef, undecided int) {
	refs := p.chunks[producer]
	if refs == nil {
		refs = map[pendingRef]int{}
		p.chunks[producer] = refs
	}
	refs[ref] += undecided
}

// decided is told that a commit of the producer to the chunk is decided.
func (p *pendings) decided(producer int64, ref pendingRef) {
	if refs := p.chunks[producer]; refs[ref] > 0 {
		refs[ref]--
	}
	p.forget(producer, ref)
}

// forget drops a chunk that has nothing of the producer any more and is not about
// to.
func (p *pendings) forget(producer int64, ref pendingRef) {
	refs := p.chunks[producer]
	if undecided, noted := refs[ref]; !noted || undecided > 0 {
		return
	}
	if c := ref.e.chunks[ref.id]; c == nil || !c.waits(producer) {
		delete(refs, ref)
	}
	if len(refs) == 0 {
		delete(p.chunks, producer)
	}
}

// load notes what the chunks of loaded groups have.
func (p *pendings) load(groups map[string]*entry) {
	for _, e := range groups {
		for id, c := range e.chunks {
			for _, at := range c.parts {
				for _, w := range at.pending {
					p.note(w.producer.ID, pendingRef{e, id}, 0)
				}
			}
		}
	}
}

// ask begins a question, whose answer counts until void is set.
func (p *pendings) ask(producer int64) (void *bool) {
	void = new(bool)
	if p.asking[producer] == nil {
		p.asking[producer] = map[*bool]struct{}{}
	}
	p.asking[producer][void] = struct{}{}
	return void
}

func (p *pendings) asked(producer int64, void *bool) {
	if delete(p.asking[producer], void); len(p.asking[producer]) == 0 {
		delete(p.asking, producer)
	}
}

// TxnOffsetCommit stores offsets that count once the producer's transaction is
// committed.
func (c *Coordinator) TxnOffsetCommit(ctx context.Context, _ ClientInfo, req *kmsg.TxnOffsetCommitRequest) *kmsg.TxnOffsetCommitResponse {
	producer := txn.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}
	cr := commitRequest{c: c, req: plainCommit(req), resp: kmsg.NewPtrOffsetCommitResponse(), producer: &producer}
	cr.layOut()
	if len(cr.valid) > 0 {
		err := checkGroupID(req.Group, false)
		if err == nil {
			err = c.commitPending(ctx, req, &cr)
		}
		if err != nil {
			cr.failAll(err)
		}
	}
	return txnResponse(req, cr.resp)
}

// plainCommit is the commit without its transaction.
func plainCommit(req *kmsg.TxnOffsetCommitRequest) *kmsg.OffsetCommitRequest {
	out := kmsg.NewPtrOffsetCommitRequest()
	out.Version = 9
	if req.Version >= offsetsIDVersion {
		out.Version = 10
	}
	out.Group, out.Generation, out.MemberID, out.InstanceID = req.Group, req.Generation, req.MemberID, req.InstanceID
	for _, t := range req.Topics {
		ot := kmsg.NewOffsetCommitRequestTopic()
		ot.Topic, ot.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			op := kmsg.NewOffsetCommitRequestTopicPartition()
			op.Partition, op.Offset, op.LeaderEpoch, op.Metadata = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata
			ot.Partitions = append(ot.Partitions, op)
		}
		out.Topics = append(out.Topics, ot)
	}
	return out
}

func txnResponse(req *kmsg.TxnOffsetCommitRequest, from *kmsg.OffsetCommitResponse) *kmsg.TxnOffsetCommitResponse {
	resp := kmsg.NewPtrTxnOffsetCommitResponse()
	resp.Version = req.Version
	for _, t := range from.Topics {
		rt := kmsg.NewTxnOffsetCommitResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, p.ErrorCode
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// commitPending has the transaction's coordinator confirm that the group is part
// of it, and then stores the offsets.
func (c *Coordinator) commitPending(ctx context.Context, req *kmsg.TxnOffsetCommitRequest, cr *commitRequest) *kerr.Error {
	sh := c.shard(req.Group)
	sh.mu.Lock()
	if err := sh.serving(); err != nil {
		sh.mu.Unlock()
		return err
	}
	term, void := sh.term, sh.pending.ask(req.ProducerID)
	sh.mu.Unlock()
	codes, asked := c.askConcurrent(ctx, TxnQuestion{
		TransactionalID: req.TransactionalID, Producer: *cr.producer, Add: req.Version >= offsetsAddVersion,
		Partitions: []TxnTopicPartition{{Topic: metadata.OffsetsTopic, Partition: int32(sh.id)}},
	})
	sh.mu.Lock()
	if sh.term == term {
		sh.pending.asked(req.ProducerID, void)
	}
	voided := *void || sh.term != term
	sh.mu.Unlock()
	if err := confirmed(codes, asked); err != nil {
		return err
	}
	if voided {
		return kerr.CoordinatorLoadInProgress // the client asks again, and so do we
	}
	cr.confirmed = func() bool { return !*void && sh.term == term }
	return cr.finish(ctx)
}

// confirmed makes of a coordinator's answer what clients know from
// TxnOffsetCommit: what passes is to be tried again here.
func confirmed(codes []int16, err error) *kerr.Error {
	if err != nil || len(codes) != 1 {
		return kerr.CoordinatorLoadInProgress
	}
	switch e := kerr.TypedErrorForCode(codes[0]); e {
	case kerr.ProducerFenced:
		return kerr.InvalidProducerEpoch
	case kerr.ConcurrentTransactions, kerr.NetworkException, kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress,
		kerr.UnknownTopicOrPartition:
		return kerr.CoordinatorLoadInProgress
	default:
		return e
	}
}

// Fate is what becomes of a marker.
type Fate struct {
	done chan struct{}
	err  error
}

// Done closes when the outcome is known.
func (f *Fate) Done() <-chan struct{} { return f.done }

// Err, once Done is closed, is nil when the marker has taken effect.
func (f *Fate) Err() error { return f.err }

func (f *Fate) end(err *kerr.Error) *Fate {
	if err != nil {
		f.err = err
	}
	close(f.done)
	return f
}

// EndOffsets has a marker take effect in the groups of a shard: pending offsets of
// the producer are committed or dropped.
func (c *Coordinator) EndOffsets(shard int, m OffsetsMarker) *Fate {
	f := &Fate{done: make(chan struct{})}
	if shard < 0 || shard >= len(c.shards) {
		return f.end(kerr.UnknownTopicOrPartition)
	}
	sh := &c.shards[shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch err := sh.serving(); {
	case err == kerr.NotCoordinator:
		return f.end(kerr.NotLeaderForPartition)
	case err != nil:
		return f.end(err)
	case m.CoordinatorEpoch < sh.pending.marked[m.Producer.ID]:
		return f.end(kerr.TransactionCoordinatorFenced)
	}
	if len(sh.pending.marked) >= markedMax {
		clear(sh.pending.marked)
	}
	sh.pending.marked[m.Producer.ID] = m.CoordinatorEpoch
	for void := range sh.pending.asking[m.Producer.ID] {
		*void = true
	}
	term, refs := sh.term, maps.Clone(sh.pending.chunks[m.Producer.ID])
	commits, err := sh.endPending(&m, refs)
	if err != nil {
		return f.end(err)
	}
	if !c.spawn(func() { f.end(sh.ended(term, &m, refs, commits)) }) {
		return f.end(kerr.NotLeaderForPartition)
	}
	return f
}

// endPending queues the marker's effect, behind the commits that it ends.
func (sh *shard) endPending(m *OffsetsMarker, refs map[pendingRef]int) ([]*commit, *kerr.Error) {
	byGroup := map[*entry][]change{}
	for ref := range refs {
		if sh.groups[ref.e.id] == ref.e {
			byGroup[ref.e] = append(byGroup[ref.e], change{id: ref.id, end: m})
		}
	}
	for e := range byGroup {
		if e.dead() {
			return nil, kerr.CoordinatorNotAvailable // it is gone soon, or back
		}
	}
	var commits []*commit
	for e, changes := range byGroup {
		cm, err := sh.submit(e, changes)
		if err != nil {
			return nil, err // what is queued already does no harm
		}
		commits = append(commits, cm)
	}
	return commits, nil
}

// ended waits for the commits of a marker and returns its outcome.
func (sh *shard) ended(term uint64, m *OffsetsMarker, refs map[pendingRef]int, commits []*commit) *kerr.Error {
	for _, cm := range commits {
		<-cm.done
		for _, err := range cm.failed {
			if err == kerr.NotCoordinator {
				return kerr.NotLeaderForPartition
			}
			return err
		}
	}
	if len(commits) == 0 {
		// Nothing was written that would show whose the shard is.
		if current, err := sh.vouch(sh.c.life.ctx, term); err != nil || !current {
			return kerr.NotLeaderForPartition
		}
		return nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.term == term {
		for ref := range refs {
			sh.pending.forget(m.Producer.ID, ref)
		}
	}
	return nil
}

// waits tells whether the chunk has pending offsets of the producer.
func (c *chunk) waits(producer int64) bool {
	for _, at := range c.parts {
		if slices.ContainsFunc(at.pending, func(w pending) bool { return w.producer.ID == producer }) {
			return true
		}
	}
	return false
}
