package coordinator

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
)

// commit is one accepted change of a group's offsets.
type commit struct {
	sh   *shard
	term uint64
	e    *entry
	seq  uint64
	at   time.Time
	// producer, when not nil, commits in a transaction.
	producer *txn.Producer
	// changes are the chunks to change that no transaction has taken yet.
	changes []change
	bytes   int
	// open counts the chunks whose fate is not known; failed has those that
	// did not succeed. Both are guarded by the shard's lock until done closes.
	open   int
	failed map[chunkID]*kerr.Error
	done   chan struct{}
}

// change is what happens to a chunk: to some places, and to all that a marker
// concerns.
type change struct {
	id    chunkID
	parts map[int32]edit
	end   *OffsetsMarker
}

// submit queues changes of e's offsets. The shard's lock is held, so that what
// was checked of the group still holds when the commit takes its number.
func (sh *shard) submit(e *entry, changes []change) (*commit, *kerr.Error) {
	cm := &commit{
		sh: sh, term: sh.term, e: e, at: time.Now(), changes: changes,
		open: len(changes), failed: map[chunkID]*kerr.Error{}, done: make(chan struct{}),
	}
	for _, ch := range changes {
		cm.bytes += len(e.offsetsPrefix)
		for _, ed := range ch.parts {
			if ed.offset != nil {
				cm.bytes += ed.offset.size()
			}
		}
	}
	if len(changes) == 0 {
		close(cm.done)
		return cm, nil
	}
	cm.seq = e.accepted + 1
	if !sh.c.committer.enqueue(cm) {
		return nil, kerr.CoordinatorNotAvailable
	}
	e.accepted++
	e.outstanding++
	return cm, nil
}

// resolve notes the fate of one chunk. The shard's lock is held.
func (cm *commit) resolve(id chunkID, err *kerr.Error) {
	if err != nil {
		cm.failed[id] = err
	}
	if cm.producer != nil && cm.sh.term == cm.term {
		cm.sh.pending.decided(cm.producer.ID, pendingRef{cm.e, id})
	}
	if cm.open--; cm.open > 0 {
		return
	}
	close(cm.done)
	cm.sh.c.metrics.commitTime.Observe(time.Since(cm.at).Seconds())
	label := "ok"
	if len(cm.failed) > 0 {
		label = "error"
	}
	cm.sh.c.metrics.commits.WithLabelValues(label).Inc()
	if cm.sh.term == cm.term {
		cm.sh.decided(cm.e, cm.seq)
	}
}

// abandon fails every chunk that no transaction took.
func (cm *commit) abandon(err *kerr.Error) {
	left := cm.changes
	cm.changes = nil
	for _, ch := range left {
		cm.resolve(ch.id, err)
	}
}

// batch is one transaction of offsets: of many commits, groups and shards.
type batch struct {
	ops    []*batchOp
	byKey  map[*chunk]*batchOp
	shards map[*shard]bool
	bytes  int
	// commits counts those that share the transaction.
	commits int
}

// batchOp is the change of one chunk by a batch; parts is what becomes of it.
type batchOp struct {
	keyOp
	e       *entry
	id      chunkID
	chunk   *chunk
	parts   map[int32]place
	bytes   int
	key     string
	commits []*commit
}

func newBatch() *batch {
	return &batch{byKey: map[*chunk]*batchOp{}, shards: map[*shard]bool{}}
}

// room tells whether a commit's changes fit beside what the batch holds. The
// shard's lock is held.
func (b *batch) room(cm *commit, changes []change) bool {
	ops, bytes, shards := len(b.ops), b.bytes, len(b.shards)
	if !b.shards[cm.sh] {
		shards++
	}
	for _, ch := range changes {
		added, isNew := b.cost(cm, ch)
		bytes += added
		if isNew {
			ops++
		}
	}
	// Conditions are limited as well: one a chunk and one a shard.
	return ops <= txnOpsMax && ops+shards <= metadata.MaxTxnOps && bytes <= txnBytesMax
}

// cost is what a change adds to the batch, and whether that is an operation more.
func (b *batch) cost(cm *commit, ch change) (bytes int, isNew bool) {
	c := cm.e.chunk(ch.id)
	if op := b.byKey[c]; op != nil {
		return c.sizeWith(op.parts, ch.resolve(c, op.parts)) - (op.bytes - op.overhead()), false
	}
	op := batchOp{key: chunkKey(cm.e.offsetsPrefix, ch.id)}
	return c.sizeWith(ch.resolve(c, nil)) + op.overhead(), true
}

// overhead is an operation's key: written, compared, and read if that fails.
func (op *batchOp) overhead() int { return 3*len(op.key) + 2*opOverhead + chunkOverhead }

// take puts a change into the batch.
func (b *batch) take(cm *commit, ch change) {
	c := cm.e.chunk(ch.id)
	added, isNew := b.cost(cm, ch)
	if isNew {
		op := &batchOp{
			keyOp: keyOp{sh: cm.sh, term: cm.term, rev: cm.sh.rev}, e: cm.e, id: ch.id, chunk: c, parts: map[int32]place{},
			key: chunkKey(cm.e.offsetsPrefix, ch.id),
		}
		b.ops = append(b.ops, op)
		b.byKey[c] = op
		b.shards[cm.sh] = true
		c.batch = b
	}
	op := b.byKey[c]
	for p, now := range ch.resolve(c, op.parts) {
		op.parts[p] = now
	}
	op.bytes += added
	op.commits = append(op.commits, cm)
	b.bytes += added
}

// chunk returns the chunk, new if it has to be. One that stays empty is dropped
// when its transaction is decided.
func (e *entry) chunk(id chunkID) *chunk {
	c := e.chunks[id]
	if c == nil {
		c = newChunk()
		e.chunks[id] = c
	}
	return c
}
