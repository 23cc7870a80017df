package tiering

import (
	"context"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

type incarnation = metadata.Incarnation

// snapshot is what a checkpoint at slot says.
type snapshot struct {
	slot   uint64
	states []byte
	claims []Claim // of open partitions
	kept   int     // others whose state is still needed
	// floors are the lowest slots that the open partitions rest on.
	floors []wal.SlotFloor
}

// commitLoop commits slots in order: slot n when 0..n are durable. An object
// beyond a gap proves nothing and acknowledges nobody.
func (l *Log) commitLoop(ctx context.Context) {
	waiting := make(map[uint64]*flush) // durable, beyond a gap; at most the window
	for {
		select {
		case f := <-l.durable:
			waiting[f.slot] = f
			for next := waiting[l.committed.Load()]; next != nil; next = waiting[l.committed.Load()] {
				if l.over() {
					return
				}
				if err := failpoint.Hit(failpoint.BeforeHW); err != nil {
					l.fail(fmt.Errorf("%w: %w", ErrFenced, err))
					return
				}
				delete(waiting, next.slot)
				l.commit(next)
				if next.kind == wal.Close {
					l.tasks.run(func(context.Context) { l.conclude(ctx, next.slot) })
					return
				}
			}
		case reply := <-l.snapshots:
			reply <- l.snapshot()
		case <-ctx.Done():
			return
		case <-l.done:
			return
		}
	}
}

// commit makes f visible and acknowledges it.
func (l *Log) commit(f *flush) {
	now := time.Now()
	l.tail.add(f)
	for i := range f.head.Extents {
		e := &f.head.Extents[i]
		ref := e.Ref(l.cfg.Incarnation, f.slot, f.head.Len)
		if err := f.order[i].commit(ref, e.Rows, now); err != nil {
			// Appends assign offsets in order; nothing but a defect of this
			// program can bring this about, and going on would acknowledge it.
			panic(err)
		}
	}
	if len(f.head.Extents) > 0 {
		l.garbage.slot(f.slot)
		l.lag.Add(int64(f.size))
		l.tierSoon()
	}
	l.committed.Store(f.slot + 1)
	for _, do := range f.onCommit {
		do(f.slot)
	}
	for _, p := range f.order {
		p.notify()
	}
	l.gate.renew(f.begun)
	l.room.give(int64(f.size))
	l.mu.Lock()
	delete(l.unresolved, f.slot)
	f.digest = nil
	l.mu.Unlock()
	l.m.stage("commit").Observe(time.Since(f.bound).Seconds())
	f.strip()
	f.finish(nil)
	l.kick()
	if f.slot+1-l.checkpoint.Load() >= l.cfg.CheckpointSlots {
		l.checkpointSoon()
	}
}

// snapshot encodes the committed state of every open partition. It runs in the
// commit loop, between two slots, so that it describes exactly the slots below.
func (l *Log) snapshot() snapshot {
	parts := l.openParts()
	s := snapshot{slot: l.committed.Load()}
	s.states, s.kept = l.releases.states()
	expire := time.Now().Add(-l.cfg.ProducerExpiration).UnixMilli()
	for _, p := range parts {
		state, floors, open := p.encodeState(expire)
		if state != nil {
			s.states = wal.AppendToCheckpoint(s.states, state)
		}
		switch {
		case open:
			s.claims = append(s.claims, Claim{Partition: p.tp, Epoch: p.epoch})
			s.floors = lowest(s.floors, floors)
		case state != nil:
			s.kept++
		default:
			l.sweep(p)
		}
	}
	return s
}
