package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/metadata"
)

// persist writes a snapshot and tells the group. It runs for one snapshot of a
// group at a time.
func (sh *shard) persist(term uint64, e *entry, s *snapshot) {
	sh.c.groupWrites <- struct{}{}
	defer func() { <-sh.c.groupWrites }()
	ctx, cancel := sh.c.writeContext()
	defer cancel()

	st, rev, ok := sh.storedState(term, e)
	if !ok {
		return
	}
	w, err := planGroupWrite(groupPrefix(sh.id, e.id), &st, s)
	if err == nil {
		err = sh.writeGroup(ctx, rev, &st, w)
	}
	switch {
	case errors.Is(err, errFenced):
		sh.lose(term)
	case errors.Is(err, errUnknownFate), errors.Is(err, errConflict):
		sh.reload(term, err)
	default:
		if err != nil {
			sh.c.log.Error("could not store a group", slog.String(logGroup, e.id), slog.Any(logError, err))
		}
		sh.persisted(term, e, s, w, err)
	}
}

func (sh *shard) storedState(term uint64, e *entry) (stored, int64, bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return e.stored, sh.rev, sh.term == term
}

// writeGroup carries out w. The members are in place before the header that
// names them.
func (sh *shard) writeGroup(ctx context.Context, rev int64, st *stored, w *groupWrite) error {
	header := metadata.Cond{Key: w.header.Key, ModRevision: st.header}
	for _, ops := range w.batches {
		o, err := sh.c.apply(ctx, &write{
			guards: []guard{{shard: sh.id, rev: rev}},
			conds:  []metadata.Cond{header}, ops: ops,
		})
		if err != nil {
			return err
		}
		if !o.applied || len(o.fenced) > 0 {
			return errFenced
		}
		w.after.header = o.revs[0]
	}
	header.ModRevision = w.after.header
	for _, ops := range w.cleanup {
		o, err := sh.c.apply(ctx, &write{
			guards: []guard{{shard: sh.id, rev: rev}},
			conds:  []metadata.Cond{header}, ops: ops,
		})
		if err != nil || !o.applied {
			return nil // the group is stored; the garbage stays listed
		}
	}
	w.after.garbage = nil
	return nil
}

func (sh *shard) persisted(term uint64, e *entry, s *snapshot, w *groupWrite, err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.term != term {
		return
	}
	var told *kerr.Error
	switch {
	case err == nil:
		// A consumer group has no record there, but the classic one that it was.
		if s.classic != nil || e.written != nil && e.written.classic != nil {
			sh.c.mirror.group(sh, e.id, s.classic)
		}
		e.stored, e.written = w.after, s
	case w != nil:
		// Nothing names what was written of it.
		told = kerr.CoordinatorNotAvailable
		e.stored.next = w.after.next
		e.stored.garbage = append(e.stored.garbage, w.written...)
	default:
		told = kerr.UnknownServerError
	}
	e.writing, e.settled = false, s.seq
	if told != nil && e.k != nil {
		sh.restore(e)
	}
	e.tell(told)
	if s.classic != nil && s.of == e.g {
		sh.handle(e, e.g.Persisted(time.Now(), s.classic.Seq, told))
		return
	}
	sh.advance(e)
	sh.arm(e)
}

// restore goes back to what is stored, because what came after could not be: a
// consumer group's state must not run ahead of what survives this broker.
func (sh *shard) restore(e *entry) {
	e.settled, e.queued, e.changed = e.issued, nil, false
	now := time.Now()
	switch w := e.written; {
	case w == nil:
		e.k = sh.c.newConsumerGroup(e.id, now)
	case w.consumer != nil:
		img := sh.c.image()
		e.k = consumer.Restore(e.id, &sh.c.cfg.Consumer, sh.c.timing(e.id), w.consumer, img, matcher(img), now)
	default:
		e.g, e.k = group.Restore(e.id, &sh.c.cfg.Group, w.classic, now), nil
	}
}

// tell tells those who wait for what is settled now.
func (e *entry) tell(err *kerr.Error) {
	waiting := e.durable[:0]
	for _, d := range e.durable {
		if d.seq <= e.settled {
			d.done <- err
		} else {
			waiting = append(waiting, d)
		}
	}
	e.durable = waiting
}

// whenDurable returns what tells of the fate of the snapshot seq; 0 is none.
func (e *entry) whenDurable(seq uint64) <-chan *kerr.Error {
	done := make(chan *kerr.Error, 1)
	if seq <= e.settled {
		done <- nil
	} else {
		e.durable = append(e.durable, durableWaiter{seq: seq, done: done})
	}
	return done
}

// delete marks an empty group as deleted and begins to erase it.
func (sh *shard) delete(e *entry) (<-chan *kerr.Error, *kerr.Error) {
	if err := e.machine().Delete(time.Now()); err != nil {
		return nil, err
	}
	done := make(chan *kerr.Error, 1)
	e.deletion = &deletion{done: done}
	sh.advance(e)
	sh.arm(e)
	return done, nil
}

// erase removes everything stored of a deleted group.
func (sh *shard) erase(term uint64, e *entry) {
	sh.c.groupWrites <- struct{}{}
	defer func() { <-sh.c.groupWrites }()
	ctx, cancel := sh.c.writeContext()
	defer cancel()
	_, rev, ok := sh.storedState(term, e)
	if !ok {
		return
	}
	id := e.id
	o, err := sh.c.apply(ctx, &write{
		guards: []guard{{shard: sh.id, rev: rev}},
		ops: []metadata.Op{
			metadata.DeletePrefix(groupPrefix(sh.id, id)),
			metadata.DeletePrefix(groupOffsetsPrefix(sh.id, id)),
		},
		// Sent again it could erase what the next group of that name writes.
		once: true,
	})
	switch {
	case err == nil && len(o.fenced) > 0:
		sh.lose(term)
	case errors.Is(err, errUnknownFate), errors.Is(err, errConflict):
		sh.reload(term, err)
	default:
		sh.erased(term, e, err)
	}
}

func (sh *shard) erased(term uint64, e *entry, err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.term != term {
		return
	}
	done := e.deletion.done
	e.deletion, e.writing = nil, false
	if err != nil {
		sh.c.log.Error("could not delete a group", slog.String(logGroup, e.id), slog.Any(logError, err))
		e.machine().Undelete(time.Now())
		done <- kerr.CoordinatorNotAvailable
		return
	}
	sh.c.mirror.gone(sh, e)
	delete(sh.groups, e.id)
	done <- nil
}
