package coordinator

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/metadata"
)

// former places commits into batches, in order.
type former struct {
	slots   int
	current *batch
	done    []*batch
	rest    []*commit
	// blocked are chunks that a commit in rest is waiting to change.
	blocked map[*chunk]bool
}

func (f *former) place(cm *commit) {
	cm.sh.mu.Lock()
	defer cm.sh.mu.Unlock()
	if cm.sh.term != cm.term || cm.sh.state != shardActive {
		cm.abandon(kerr.NotCoordinator)
		return
	}
	if f.current == nil {
		f.current = newBatch()
	}
	if f.refuseTooLarge(cm); len(cm.changes) == 0 {
		return
	}
	switch {
	case f.waits(cm):
		f.postpone(cm)
	case f.current.room(cm, cm.changes):
		f.takeAll(cm)
	case len(f.current.ops) > 0:
		// Whole in the next transaction, if there is one.
		if f.close(); len(f.done) < f.slots {
			f.current = newBatch()
			if !f.waits(cm) {
				f.takeSome(cm)
				return
			}
		}
		f.postpone(cm)
	default:
		f.takeSome(cm)
	}
}

// refuseTooLarge drops changes after which a chunk could not be stored.
func (f *former) refuseTooLarge(cm *commit) {
	cm.changes = slices.DeleteFunc(cm.changes, func(ch change) bool {
		c := cm.e.chunk(ch.id)
		working := map[int32]place(nil)
		if op := f.current.byKey[c]; op != nil {
			working = op.parts
		}
		// What a marker leaves is no more than what there was.
		if ch.end != nil || c.sizeWith(working, ch.resolve(c, working)) <= chunkBytesMax {
			return false
		}
		if c.rev == 0 && c.batch == nil && len(c.parts) == 0 && !f.blocked[c] {
			delete(cm.e.chunks, ch.id) // it was made to look at
		}
		cm.resolve(ch.id, kerr.OffsetMetadataTooLarge)
		return true
	})
}

// waits tells whether the commit has to stay behind earlier changes.
func (f *former) waits(cm *commit) bool {
	if len(f.done) >= f.slots {
		return true
	}
	for _, ch := range cm.changes {
		c := cm.e.chunk(ch.id)
		if f.blocked[c] || c.batch != nil && c.batch != f.current {
			return true
		}
	}
	return false
}

func (f *former) postpone(cm *commit) {
	for _, ch := range cm.changes {
		f.blocked[cm.e.chunk(ch.id)] = true
	}
	f.rest = append(f.rest, cm)
}

func (f *former) takeAll(cm *commit) {
	for _, ch := range cm.changes {
		f.current.take(cm, ch)
	}
	cm.changes = nil
	f.current.commits++
}

// takeSome takes all, or of a commit too large for one transaction as much as
// one holds; the rest follows.
func (f *former) takeSome(cm *commit) {
	if f.current.room(cm, cm.changes) {
		f.takeAll(cm)
		return
	}
	n := 0
	// One change always fits: keys and chunks are bounded so that it does.
	for n < len(cm.changes) && (len(f.current.ops) == 0 || f.current.room(cm, cm.changes[n:n+1])) {
		f.current.take(cm, cm.changes[n])
		n++
	}
	cm.changes = cm.changes[n:]
	f.current.commits++
	f.postpone(cm)
}

// close ends the current batch.
func (f *former) close() {
	if f.current != nil && len(f.current.ops) > 0 {
		f.done = append(f.done, f.current)
	}
	f.current = nil
}

// seal makes the batch's operations. Its chunks do not change any more, because
// only a chunk's transaction changes it. What belongs to a former term is
// refused: nobody checked it against the group as it is now.
func (b *batch) seal() {
	var stale []*batchOp
	b.ops = slices.DeleteFunc(b.ops, func(op *batchOp) bool {
		if op.encode() {
			return false
		}
		stale = append(stale, op)
		return true
	})
	for _, op := range stale {
		op.fail(kerr.NotCoordinator)
	}
}

func (op *batchOp) encode() bool {
	op.sh.mu.Lock()
	defer op.sh.mu.Unlock()
	if op.sh.term != op.term {
		return false
	}
	op.cond = metadata.Cond{Key: op.key, ModRevision: op.chunk.rev}
	value, err := op.chunk.encode(op.parts)
	switch {
	case err != nil:
		panic(err) // numbers and strings always encode
	case value == nil:
		op.op = metadata.Delete(op.key)
	default:
		op.op = metadata.Put(op.key, value)
	}
	return true
}
