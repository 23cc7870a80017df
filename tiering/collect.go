package tiering

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// slotsKept is how many slots below the end of a sealed chain are never deleted:
// a writer that does not know that it was sealed has no more than the window in
// flight, and must not find one of its own slots free there.
const slotsKept = windowMax

// garbage is what this incarnation will delete: slots of its own chain and
// objects that its manifests no longer name.
type garbage struct {
	mu      sync.Mutex
	slots   []uint64 // committed, with extents, and not below the published mark; the lowest of them
	more    uint64   // above the last such slot that slots has no room for, 0: none
	trimmed uint64   // the published mark
	deleted uint64   // slots below it are deleted
	objects []discarded
}

type discarded struct{ kind, key string }

const (
	// discardsMax bounds the list of objects; what does not fit is left to the sweep.
	discardsMax = 1 << 16
	// slotsMax bounds the list of slots. Beyond it a mark may be raised in vain, past
	// slots that hold nothing but records.
	slotsMax = 1 << 16
)

func (g *garbage) slot(slot uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.more > 0 || len(g.slots) >= slotsMax {
		g.more = slot + 1
		return
	}
	g.slots = append(g.slots, slot)
}

// freeable reports whether slots with extents may lie below mark.
func (g *garbage) freeable(mark uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.slots) > 0 {
		return g.slots[0] < mark
	}
	return g.more > 0 && g.trimmed < mark
}

// publish notes a mark that is published.
func (g *garbage) publish(mark uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trimmed = max(g.trimmed, mark)
	i, _ := slices.BinarySearch(g.slots, mark)
	g.slots = slices.Clone(g.slots[i:])
	if g.more <= mark {
		g.more = 0
	}
}

// discard has an object deleted that no manifest names any more.
func (l *Log) discard(kind, key string) {
	g := &l.garbage
	g.mu.Lock()
	if len(g.objects) < discardsMax {
		g.objects = append(g.objects, discarded{kind, key})
	}
	g.mu.Unlock()
	l.collectSoon()
}

func (l *Log) collectSoon() {
	select {
	case l.collectable <- struct{}{}:
	default:
	}
}

// collectLoop deletes what nobody needs any more. It looks when something has
// changed here and, because others may have to move first, now and then: with
// nothing to delete that costs nothing, but for one read of the metadata store by
// whoever collects.
func (l *Log) collectLoop(ctx context.Context) {
	timer := time.NewTimer(l.cfg.CollectInterval)
	defer timer.Stop()
	for {
		select {
		case <-l.collectable:
		case <-timer.C:
		case <-ctx.Done():
			return
		case <-l.done:
			return
		}
		err := l.collect(ctx)
		if errors.Is(err, ErrFenced) {
			l.fail(err)
			return
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrNotLeader) { // that of a chain that is being closed
			l.cfg.Logger.Warn("collection failed, trying again", "error", err)
		}
		timer.Reset(l.cfg.CollectInterval)
	}
}

const collectTimeout = 5 * time.Minute

// collect does what can be done now.
func (l *Log) collect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, collectTimeout)
	defer cancel()
	err := errors.Join(l.payDebts(ctx), l.trimOwn(ctx), l.deleteDiscarded(ctx))
	if l.cfg.Collects() {
		err = errors.Join(err, l.sealAbandoned(ctx, time.Now()), l.collectSealed(ctx))
	}
	return err
}

// payDebts writes down what is owed of other chains now: less and less.
func (l *Log) payDebts(ctx context.Context) error {
	select {
	case l.checkpointing <- struct{}{}:
		defer func() { <-l.checkpointing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return l.publishDebts(ctx)
}

// debtUnknown stands for a debt of which it is not known what is written down: a
// request that failed may have been applied.
const debtUnknown = math.MaxUint64

// publishDebts writes down the lowest slots of other chains that this one's
// partitions rest on, as of the newest durable checkpoint. The caller has the
// turn to make a checkpoint.
func (l *Log) publishDebts(ctx context.Context) error {
	floors, _, _ := l.releases.seen()
	now := make(map[metadata.Incarnation]uint64, len(floors))
	for _, f := range floors {
		if f.Incarnation != l.cfg.Incarnation {
			now[f.Incarnation] = f.Slot
		}
	}
	for of, slot := range now {
		if was, ok := l.debts[of]; ok && was == slot {
			continue
		}
		l.debts[of] = debtUnknown // until there is an answer
		if err := l.cfg.Chains.Owe(ctx, l.cfg.Incarnation, of, &slot); err != nil {
			return err
		}
		l.debts[of] = slot
	}
	for of := range l.debts {
		if _, still := now[of]; still {
			continue
		}
		l.debts[of] = debtUnknown
		if err := l.cfg.Chains.Owe(ctx, l.cfg.Incarnation, of, nil); err != nil {
			return err
		}
		delete(l.debts, of)
	}
	return nil
}

// trimOwn raises the mark of the own chain and deletes what lies below it. The
// mark is committed in the chain first, which proves that it was not sealed when
// the slots below were found to be free, then published, then obeyed.
func (l *Log) trimOwn(ctx context.Context) error {
	mark, err := l.freeMark(ctx)
	if err != nil {
		return err
	}
	if !l.garbage.freeable(mark) {
		return l.deleteTrimmed(ctx)
	}
	if err := failpoint.Hit(failpoint.BeforeTrim); err != nil {
		return err
	}
	f, err := l.record(wal.Record{Type: wal.Trim, Slot: mark}, nil)
	if err != nil {
		return err
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if f.err != nil {
		return f.err
	}
	l.garbage.mu.Lock()
	deleted := l.garbage.deleted
	l.garbage.mu.Unlock()
	if err := l.cfg.Chains.Trimmed(ctx, l.cfg.Incarnation, mark, deleted); err != nil {
		return fmt.Errorf("publish trim mark: %w", err)
	}
	l.garbage.publish(mark)
	if err := failpoint.Hit(failpoint.AfterTrim); err != nil {
		return err
	}
	return l.deleteTrimmed(ctx)
}

// freeMark is the slot below which nobody needs the own chain: as far as others
// owe it, and as far as this incarnation rests on it itself. What lies in it may
// move from here to an heir, and back: so the debts are read between two looks at
// what is here, and count if nothing came here meanwhile.
func (l *Log) freeMark(ctx context.Context) (uint64, error) {
	mark, came := l.ownMark()
	if !l.garbage.freeable(mark) {
		return 0, nil // without a question to anybody
	}
	owed, any, err := l.cfg.Chains.LowestDebt(ctx, l.cfg.Incarnation)
	if err != nil {
		return 0, err
	}
	if _, again := l.ownMark(); again != came {
		return 0, nil // the next time
	}
	if any {
		mark = min(mark, owed)
	}
	return mark, nil
}

// ownMark is the slot below which nothing of the own chain is needed by this
// incarnation, or by those that it has released to and that have not said yet
// that they know; and how often something came that may need more.
func (l *Log) ownMark() (mark, came uint64) {
	floors, mark, came := l.releases.seen()
	for _, f := range floors {
		if f.Incarnation == l.cfg.Incarnation {
			mark = min(mark, f.Slot)
		}
	}
	return mark, came
}

// deleteTrimmed deletes the slots below the published mark.
func (l *Log) deleteTrimmed(ctx context.Context) error {
	g := &l.garbage
	g.mu.Lock()
	from, to := g.deleted, g.trimmed
	g.mu.Unlock()
	if from == to {
		return nil
	}
	deleted, err := l.deleteSlots(ctx, l.cfg.Incarnation, from, to)
	g.mu.Lock()
	g.deleted = deleted
	g.mu.Unlock()
	return err
}

func (l *Log) deleteDiscarded(ctx context.Context) error {
	g := &l.garbage
	g.mu.Lock()
	list := g.objects
	g.objects = nil
	g.mu.Unlock()
	for i, d := range list {
		if err := l.deleteObjects(ctx, d.kind, d.key); err != nil {
			g.mu.Lock()
			g.objects = append(list[i:], g.objects...)
			g.mu.Unlock()
			return err
		}
	}
	return nil
}

// sealAbandoned seals the chains that have been seen without end and without
// registered broker for long enough. It is called by the collector only.
func (l *Log) sealAbandoned(ctx context.Context, now time.Time) error {
	list, err := l.cfg.Chains.Abandoned(ctx)
	if err != nil {
		l.abandoned = nil // whoever could not register either has the whole time anew
		return err
	}
	since := make(map[metadata.Incarnation]time.Time, len(list))
	for _, inc := range list {
		if inc == l.cfg.Incarnation {
			continue
		}
		first, seen := l.abandoned[inc]
		if !seen {
			first = now
		}
		since[inc] = first
		if now.Sub(first) >= l.cfg.AbandonedAge {
			if _, err := l.Seal(ctx, inc); err != nil {
				return fmt.Errorf("seal abandoned chain: %w", err)
			}
		}
	}
	l.abandoned = since
	return nil
}

// slotsNoted is after how many deletions of a chain that is written down, so that
// a long chain is not begun anew again and again.
const slotsNoted = 4096

// collectSealed deletes what sealed chains leave, down to what is kept for ever:
// what ended them, and the newest slots below.
func (l *Log) collectSealed(ctx context.Context) error {
	list, err := l.cfg.Chains.Collect(ctx, slotsKept)
	if err != nil {
		return err
	}
	var failed error
	for _, c := range list {
		if err := l.collectChain(ctx, c); err != nil {
			failed = errors.Join(failed, fmt.Errorf("collect chain %s: %w", c.Incarnation, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

func (l *Log) collectChain(ctx context.Context, c metadata.SealedChain) error {
	for from := c.Deleted; from < c.Trim; {
		to := min(c.Trim, from+slotsNoted)
		deleted, err := l.deleteSlots(ctx, c.Incarnation, from, to)
		if err != nil {
			return err
		}
		if err := l.cfg.Chains.Collected(ctx, c.Incarnation, deleted, false); err != nil {
			return err
		}
		from = deleted
	}
	if c.Trim < *c.End-min(*c.End, slotsKept) {
		return nil // somebody owes of it
	}
	if c.Checkpoint > 0 {
		if err := l.deleteObjects(ctx, "checkpoint", wal.CheckpointKey(c.Incarnation, c.Checkpoint)); err != nil {
			return err
		}
	}
	return l.cfg.Chains.Collected(ctx, c.Incarnation, c.Trim, true)
}

// deletesAtOnce objects are deleted at the same time.
const deletesAtOnce = 16

// deleteSlots deletes slots [from, to) of a chain, in order but for a few, and
// returns below which all are gone.
func (l *Log) deleteSlots(ctx context.Context, inc metadata.Incarnation, from, to uint64) (uint64, error) {
	for from < to {
		n := min(to-from, deletesAtOnce)
		keys := make([]string, n)
		for i := range keys {
			keys[i] = wal.SlotKey(inc, from+uint64(i))
		}
		if err := l.deleteObjects(ctx, "wal", keys...); err != nil {
			return from, err
		}
		from += n
	}
	return from, nil
}

// deleteObjects deletes a few objects, no faster than it may. One that is gone is
// deleted.
func (l *Log) deleteObjects(ctx context.Context, kind string, keys ...string) error {
	if err := failpoint.Hit(failpoint.BeforeDelete); err != nil {
		return err
	}
	begun := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for _, key := range keys {
		g.Go(func() error { return l.cfg.Store.Delete(gctx, key) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	l.m.deleted.WithLabelValues(kind).Add(float64(len(keys)))
	if rest := time.Duration(len(keys))*time.Second/time.Duration(l.cfg.DeleteRate) - time.Since(begun); rest > 0 && !sleep(ctx, l.done, rest) {
		return context.Cause(ctx)
	}
	return nil
}
