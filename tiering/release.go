package tiering

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// releaseBook remembers what this incarnation released, until its successors
// need it no longer: a checkpoint must go on describing it.
type releaseBook struct {
	mu      sync.Mutex
	entries map[Claim]releaseEntry
	// open are the lowest slots that the partitions which were open at durable, the
	// newest durable checkpoint, rest on. They are kept here so that what is open
	// and what was released are seen at one moment.
	open    []wal.SlotFloor
	durable uint64
	came    uint64 // how often entries or open were added to
}

type releaseEntry struct {
	slot   uint64
	state  []byte          // nil: never opened
	floors []wal.SlotFloor // of the slots that the state rests on
}

func (b *releaseBook) init() { b.entries = make(map[Claim]releaseEntry) }

func (b *releaseBook) get(c Claim) (releaseEntry, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries[c]
	return e, ok
}

func (b *releaseBook) add(c Claim, e releaseEntry) {
	b.mu.Lock()
	b.entries[c] = e
	b.came++
	b.mu.Unlock()
}

// states encodes what was released and is still needed, for a checkpoint.
func (b *releaseBook) states() ([]byte, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []byte
	n := 0
	for _, e := range b.entries {
		if e.state != nil {
			out = wal.AppendToCheckpoint(out, e.state)
			n++
		}
	}
	return out, n
}

// checkpointed notes what the partitions that a durable checkpoint describes as
// open rest on.
func (b *releaseBook) checkpointed(slot uint64, open []wal.SlotFloor) {
	b.mu.Lock()
	b.open, b.durable = open, slot
	b.came++
	b.mu.Unlock()
}

// seen returns the lowest slots, a chain each, that anything rests on which this
// incarnation leads, or has released to a successor that has not said yet that it
// knows; below, the slot below which nobody needs the own chain's heads: that of
// the checkpoint, or of a RELEASE that a successor may still read; and how often
// any of these may have fallen.
func (b *releaseBook) seen() (floors []wal.SlotFloor, below, came uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	floors, below = lowest(nil, b.open), b.durable
	for _, e := range b.entries {
		floors = lowest(floors, e.floors)
		below = min(below, e.slot)
	}
	return floors, below, b.came
}

// Forget drops what is remembered of released claims. Call it once the owner
// list of the partition no longer has the claim's entry, or the topic is gone.
func (l *Log) Forget(claims []Claim) {
	l.releases.mu.Lock()
	defer l.releases.mu.Unlock()
	for _, c := range claims {
		delete(l.releases.entries, c)
	}
}

// Drop stops serving a partition of a deleted topic, whose id never comes back.
// Until what was appended is committed, checkpoints go on describing it: a
// replay must know what those extents belong to.
func (l *Log) Drop(tp metadata.TopicPartition) {
	l.partsMu.Lock()
	p := l.parts[tp]
	if p != nil {
		l.closedEpochs[tp] = max(p.epoch, l.closedEpochs[tp])
	}
	l.partsMu.Unlock()
	if p != nil {
		p.mu.RLock()
		var all freed
		if p.phase != released { // once is enough
			all = p.manifest.clone().everything()
		}
		p.mu.RUnlock()
		p.retire()
		l.sweep(p)
		l.graves.bury(tp, all, time.Now().Add(l.cfg.DeleteGrace), true)
	}
}

// sweep takes a partition that was dropped, and has nothing in flight, out of
// the table.
func (l *Log) sweep(p *Partition) {
	p.mu.RLock()
	settled := p.phase == released && p.settled()
	p.mu.RUnlock()
	l.partsMu.Lock()
	if settled && l.parts[p.tp] == p {
		delete(l.parts, p.tp)
	}
	l.partsMu.Unlock()
}

// Release gives partitions up at exactly the claimed epochs: no append is taken
// any more, what was appended commits, and a RELEASE with the whole state is
// committed, whose slot is returned. An epoch that was claimed and never opened
// is released too, and never opens afterwards. Repeating a release is free.
// Reads are served until the RELEASE is committed. With an error it returns
// those that were released all the same. Once the chain is being closed, no
// RELEASE gets into it any more; then Release waits for how that ends: after
// ErrClosed, the CLOSE gives up what no RELEASE did.
func (l *Log) Release(ctx context.Context, claims []Claim) ([]Released, error) {
	slots := make([]uint64, len(claims))
	errs := make([]error, len(claims))
	var wg sync.WaitGroup
	for i, c := range claims {
		wg.Go(func() { slots[i], errs[i] = l.release(ctx, c) })
	}
	wg.Wait()
	released := make([]Released, 0, len(claims))
	for i, c := range claims {
		if errs[i] == nil {
			released = append(released, Released{Claim: c, Slot: slots[i]})
		}
	}
	return released, errors.Join(errs...)
}

func (l *Log) release(ctx context.Context, c Claim) (uint64, error) {
	l.partsMu.Lock()
	p := l.parts[c.Partition]
	if p == nil || p.epoch != c.Epoch {
		if closed, ok := l.closedEpochs[c.Partition]; !ok || closed < c.Epoch {
			l.closedEpochs[c.Partition] = c.Epoch
		}
		p = nil
	}
	l.partsMu.Unlock()
	// After the table, not before: a partition that another call's RELEASE takes
	// out of it in between would be released as if it had never been opened.
	if e, ok := l.releases.get(c); ok {
		return e.slot, nil
	}
	var state []byte
	var floors []wal.SlotFloor
	if p != nil {
		var err error
		if state, floors, err = p.quiesce(ctx); err != nil {
			if e, ok := l.releases.get(c); ok { // another call was faster
				return e.slot, nil
			}
			return 0, fmt.Errorf("release %s: %w", c.Partition, err)
		}
	}
	if err := failpoint.Hit(failpoint.BeforeRelease); err != nil {
		return 0, fmt.Errorf("release %s: %w", c.Partition, err)
	}
	var slot uint64
	f, err := l.record(wal.Record{Type: wal.Release, Partition: c.Partition, Epoch: c.Epoch, State: state}, func(at uint64) {
		slot = at
		l.releases.add(c, releaseEntry{slot: at, state: state, floors: floors})
		if p != nil {
			l.remove(p)
		}
	})
	if errors.Is(err, ErrNotLeader) {
		err = l.ended(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("release %s: %w", c.Partition, err)
	}
	select {
	case <-f.done:
		if f.err != nil {
			return 0, fmt.Errorf("release %s: %w", c.Partition, f.err)
		}
		return slot, failpoint.Hit(failpoint.AfterRelease)
	case <-ctx.Done():
		return 0, fmt.Errorf("release %s: %w", c.Partition, context.Cause(ctx))
	}
}

// ended waits for the end of the incarnation and says which one it was. A chain
// that is being closed shall not be taken for one that does not answer: whoever
// waits would seal it, and its CLOSE would come too late.
func (l *Log) ended(ctx context.Context) error {
	select {
	case <-l.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if errors.Is(l.err, ErrClosed) {
		return ErrClosed
	}
	return ErrFenced
}

// remove runs in the commit loop, when the RELEASE is committed.
func (l *Log) remove(p *Partition) {
	l.partsMu.Lock()
	if l.parts[p.tp] == p {
		delete(l.parts, p.tp)
		l.closedEpochs[p.tp] = max(p.epoch, l.closedEpochs[p.tp])
	}
	l.partsMu.Unlock()
	p.retire()
}

// retire ends a partition here and wakes who waits for it.
func (p *Partition) retire() {
	p.mu.Lock()
	p.phase = released
	p.mu.Unlock()
	p.notify()
}

// quiesce stops appends and edits, waits until all that were taken are committed,
// and returns the state to hand over and the slots it rests on.
func (p *Partition) quiesce(ctx context.Context) ([]byte, []wal.SlotFloor, error) {
	select {
	case <-p.opened.done: // an OPEN on its way is waited for
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	if p.opened.err != nil {
		return nil, nil, p.opened.err
	}
	changed := make(chan struct{}, 1)
	cancel := p.Subscribe(changed)
	defer cancel()
	for {
		p.mu.Lock()
		if p.phase == serving {
			p.phase = releasing
		}
		if p.phase == released {
			p.mu.Unlock()
			return nil, nil, ErrNotLeader // released by another call, or dropped
		}
		if p.settled() {
			state, floors := wal.AppendState(nil, p.manifest.state()), p.manifest.floors()
			p.mu.Unlock()
			return state, floors, nil
		}
		p.mu.Unlock()
		select {
		case <-changed:
		case <-p.log.done:
			return nil, nil, p.log.ended(ctx)
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// ownClosed answers for an entry of this very incarnation.
func (l *Log) ownClosed(c Claim) (*epochLog, error) {
	l.partsMu.Lock()
	p := l.parts[c.Partition]
	if p != nil && p.epoch == c.Epoch {
		l.partsMu.Unlock()
		return nil, fmt.Errorf("%w: own epoch %d of %s is still open", ErrNotLeader, c.Epoch, c.Partition)
	}
	if closed, ok := l.closedEpochs[c.Partition]; !ok || closed < c.Epoch {
		l.closedEpochs[c.Partition] = c.Epoch
	}
	l.partsMu.Unlock()
	e, ok := l.releases.get(c)
	if !ok {
		return nil, nil // claimed, never opened, and never will be
	}
	return releasedLog(&wal.Record{State: e.state})
}

func nowMillis() int64 { return time.Now().UnixMilli() }
