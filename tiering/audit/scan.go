package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

const (
	// windowSlots is how many heads of one chain are read at the same time.
	windowSlots = 16
	// aheadSlots is how far behind a free slot objects are looked for. A writer
	// has at most 8 slots in flight, so a head this far on was written when the
	// free slot had been acknowledged, if it ever was.
	aheadSlots = 16
	// rereads of an object before it is believed to be damaged.
	rereads     = 2
	rereadPause = 100 * time.Millisecond
)

// scan is the walk over one chain. It can be continued: a chain that is being
// written is followed as far as it has come.
type scan struct {
	a   *auditor
	inc metadata.Incarnation
	// turn holds the right to read on; claims and what follows belong to it.
	turn chan struct{}

	chain   metadata.Chain
	started bool
	start   uint64 // the trim mark when the walk began
	next    uint64 // slots in [start, next) were checked
	ended   bool   // a FENCE at next, or a CLOSE at next-1, ends the chain
	closed  bool   // it was a CLOSE
	checked bool   // the recorded end was
	holed   bool   // a slot was missing or damaged: claims are not complete
	counted bool   // as sealed, in the totals
	recent  uint64 // the checkpoint that was looked at, plus one

	previous     *wal.Digest // of slot next-1; nil when unknown
	acknowledged uint64
	checkpoint   uint64
	trimmed      uint64 // the newest TRIM
	claims       map[tiering.Claim]claimEnd
}

// claimEnd is what the heads say of one partition under one epoch.
type claimEnd struct {
	base     int64 // -1: the OPEN was trimmed
	end      int64
	released bool
}

func newScan(a *auditor, inc metadata.Incarnation) *scan {
	a.out.add(func(t *Totals) { t.Chains++ })
	return &scan{a: a, inc: inc, turn: make(chan struct{}, 1), claims: make(map[tiering.Claim]claimEnd)}
}

func (s *scan) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *scan) give() { <-s.turn }

func (s *scan) problem(kind, format string, args ...any) {
	s.a.out.problem(Problem{kind, "chain " + s.inc.String(), fmt.Sprintf(format, args...)})
}

// advance reads the chain's key and walks on from where the last call stopped.
// metadata.ErrNoChain when there is no such chain.
func (s *scan) advance(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	return s.advanceTaken(ctx)
}

// finish is advance, but for a chain that was read to its recorded end.
func (s *scan) finish(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	if s.checked {
		return nil
	}
	return s.advanceTaken(ctx)
}

func (s *scan) advanceTaken(ctx context.Context) error {
	if err := s.load(ctx); err != nil {
		return err
	}
	if !s.started {
		s.started, s.start, s.next = true, s.chain.Trim, s.chain.Trim
		s.skipped(s.start)
		s.checkKey()
	}
	if err := s.walk(ctx); err != nil {
		return err
	}
	if s.chain.End != nil && !s.checked {
		s.checked = true
		if err := s.checkEnd(ctx); err != nil {
			return err
		}
	}
	return s.checkCheckpoint(ctx)
}

// skipped notes that slots below were trimmed before they could be read.
func (s *scan) skipped(below uint64) {
	if below > 0 {
		s.a.chains.trimmed.Store(true)
	}
}

func (s *scan) load(ctx context.Context) error {
	chain, _, err := metadata.LoadChain(ctx, s.a.kv, s.inc)
	if err != nil {
		return err
	}
	s.chain = chain
	if chain.End != nil && !s.counted {
		s.counted = true
		s.a.out.add(func(t *Totals) { t.ChainsSealed++ })
	}
	return nil
}

func (s *scan) checkKey() {
	if s.chain.Trim > s.chain.Checkpoint && !s.chain.Inherited {
		s.problem(KindTrim, "trim mark %d is above checkpoint %d", s.chain.Trim, s.chain.Checkpoint)
	}
	if end := s.chain.End; end != nil && s.chain.Checkpoint > *end {
		s.problem(KindChainEnd, "checkpoint %d is above the end %d", s.chain.Checkpoint, *end)
	}
}

// walk checks slots up to the recorded end, or to the first free slot.
func (s *scan) walk(ctx context.Context) error {
	for !s.ended {
		n := uint64(windowSlots)
		if s.chain.End != nil {
			if s.next >= *s.chain.End {
				return nil
			}
			n = min(n, *s.chain.End-s.next)
		}
		window, err := s.read(ctx, s.next, int(n))
		if err != nil {
			return err
		}
		for i := range window {
			if window[i].slot != s.next {
				break // the trim mark has passed it
			}
			goOn, err := s.slot(ctx, &window[i])
			if err != nil || !goOn {
				return err
			}
		}
	}
	return nil
}

// slotRead is what a slot was found to hold: a head, damage, or nothing.
type slotRead struct {
	slot   uint64
	head   *wal.Head
	damage error
}

// read reads n slots at once.
func (s *scan) read(ctx context.Context, from uint64, n int) ([]slotRead, error) {
	out := make([]slotRead, n)
	g, ctx := errgroup.WithContext(ctx)
	for i := range out {
		g.Go(func() (err error) {
			out[i], err = s.readSlot(ctx, from+uint64(i))
			return err
		})
	}
	return out, g.Wait()
}

func (s *scan) readSlot(ctx context.Context, slot uint64) (slotRead, error) {
	for attempt := 0; ; attempt++ {
		var head *wal.Head
		var err error
		if e := s.a.request(ctx, func() { head, err = s.a.inspector.Head(ctx, s.inc, slot) }); e != nil {
			return slotRead{}, e
		}
		switch {
		case err == nil:
			return slotRead{slot: slot, head: head}, nil
		case errors.Is(err, object.ErrNotFound):
			return slotRead{slot: slot}, nil
		case unanswered(ctx, err):
			return slotRead{}, fmt.Errorf("read slot %d of chain %s: %w", slot, s.inc, err)
		case attempt == rereads:
			return slotRead{slot: slot, damage: err}, nil
		}
		if err := pause(ctx, rereadPause); err != nil {
			return slotRead{}, err
		}
	}
}

// slot checks the slot s.next; false when the walk ends before or behind it.
func (s *scan) slot(ctx context.Context, r *slotRead) (goOn bool, err error) {
	if r.head == nil && r.damage == nil {
		again, missing, err := s.free(ctx, r.slot)
		if err != nil {
			return false, err
		}
		if again == nil && !missing {
			return s.next != r.slot, nil // the chain has come this far, unless it was trimmed
		}
		if again == nil {
			s.problem(KindSlotMissing, "slot %d is missing: %s", r.slot, wal.SlotKey(s.inc, r.slot))
			s.hole()
			return true, nil
		}
		if s.chain.End == nil && r.slot >= s.chain.Checkpoint {
			return false, nil // written since; a living writer is not chased
		}
		*r = *again
	}
	s.a.slots.Add(1)
	s.a.out.add(func(t *Totals) { t.Slots++ })
	if r.damage != nil {
		s.problem(KindHeadDamaged, "slot %d: %v", r.slot, r.damage)
		s.hole()
		return true, nil
	}
	return s.head(r.head), nil
}

func (s *scan) hole() {
	s.holed, s.previous = true, nil
	s.next++
}

// free decides about a slot that was found free. In a sealed chain it is
// missing. In one that is not, it is where the chain has come to, unless
// something says that it was acknowledged: a recorded checkpoint above it, or a
// later head. That was learnt after the slot was read, so the slot is read again.
func (s *scan) free(ctx context.Context, slot uint64) (again *slotRead, missing bool, err error) {
	proven := slot < s.chain.Checkpoint || s.chain.End != nil
	if !proven {
		ahead, err := s.read(ctx, slot+1, aheadSlots)
		if err != nil {
			return nil, false, err
		}
		for _, r := range ahead {
			proven = proven || r.head != nil && r.head.Kind != wal.Fence && r.head.Acknowledged > slot
		}
	}
	if !proven {
		return nil, false, nil
	}
	r, err := s.readSlot(ctx, slot)
	if err != nil {
		return nil, false, err
	}
	if r.head != nil || r.damage != nil {
		return &r, false, nil
	}
	if err := s.load(ctx); err != nil {
		return nil, false, err
	}
	if s.chain.Trim > slot { // trimmed while we read: go on from the mark
		s.next, s.holed, s.previous = s.chain.Trim, true, nil
		s.skipped(s.next)
		return nil, false, nil
	}
	return nil, true, nil
}
