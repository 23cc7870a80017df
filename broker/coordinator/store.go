package coordinator

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/metadata"
)

// storeOp is the change of one key in a transaction that it shares with others.
// It is told its fate once.
type storeOp interface {
	at() *keyOp
	// succeed is told the key's new revision, or what the store makes of one that
	// was deleted.
	succeed(rev int64)
	fail(err *kerr.Error)
}

// keyOp is a change under a shard's key, as it was in the shard's term.
type keyOp struct {
	sh   *shard
	term uint64
	rev  int64 // of the shard key, in that term
	cond metadata.Cond
	op   metadata.Op
}

func (k *keyOp) at() *keyOp { return k }

// store writes the changes in one transaction. A shard that has moved is taken
// out, and the rest sent again: none suffers from what it shares a transaction
// with.
func (c *Coordinator) store(ops []storeOp) {
	ctx, cancel := c.writeContext()
	defer cancel()
	ambiguous := false
	for len(ops) > 0 {
		w := transaction(ops)
		w.ambiguous = ambiguous
		o, err := c.apply(ctx, w)
		ambiguous = w.ambiguous
		switch {
		case errors.Is(err, errUnknownFate), errors.Is(err, errConflict):
			failAll(ops, kerr.CoordinatorNotAvailable)
			for sh, term := range terms(ops) {
				sh.reload(term, err)
			}
			return
		case err != nil:
			c.log.Error("could not store offsets or transactions", slog.Any(logError, err))
			failAll(ops, kerr.CoordinatorNotAvailable)
			return
		case o.applied:
			for i, op := range ops {
				op.succeed(o.revs[i])
			}
			lose(o.fenced, ops)
			return
		}
		var gone []storeOp
		ops, gone = split(ops, o.fenced)
		failAll(gone, kerr.NotCoordinator)
		lose(o.fenced, gone)
	}
}

func failAll(ops []storeOp, err *kerr.Error) {
	for _, op := range ops {
		op.fail(err)
	}
}

func transaction(ops []storeOp) *write {
	w := &write{}
	guarded := map[*shard]bool{}
	for _, op := range ops {
		k := op.at()
		if !guarded[k.sh] {
			guarded[k.sh] = true
			w.guards = append(w.guards, guard{shard: k.sh.id, rev: k.rev})
		}
		w.conds = append(w.conds, k.cond)
		w.ops = append(w.ops, k.op)
	}
	return w
}

func split(ops []storeOp, fenced []int) (rest, gone []storeOp) {
	for _, op := range ops {
		if slices.Contains(fenced, op.at().sh.id) {
			gone = append(gone, op)
		} else {
			rest = append(rest, op)
		}
	}
	return rest, gone
}

func terms(ops []storeOp) map[*shard]uint64 {
	m := map[*shard]uint64{}
	for _, op := range ops {
		m[op.at().sh] = op.at().term
	}
	return m
}

func lose(fenced []int, ops []storeOp) {
	for sh, term := range terms(ops) {
		if slices.Contains(fenced, sh.id) {
			sh.lose(term)
		}
	}
}
