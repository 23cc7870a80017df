package audit

import (
	"context"
	"errors"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// checkEnd checks that the recorded end is closed for ever, and that nothing at
// or above it was ever acknowledged.
func (s *scan) checkEnd(ctx context.Context) error {
	end := *s.chain.End
	if s.next != end {
		s.problem(KindChainEnd, "slot %d ends the chain, the recorded end is %d", s.next, end)
		return nil
	}
	beyond, err := s.read(ctx, end, aheadSlots+1)
	if err != nil {
		return err
	}
	if !s.closed {
		switch at := beyond[0]; {
		case at.damage != nil:
			s.problem(KindHeadDamaged, "slot %d, where the fence belongs: %v", end, at.damage)
		case at.head == nil:
			s.problem(KindFenceMissing, "the recorded end is %d, and neither a FENCE there nor a CLOSE before closes it", end)
		case at.head.Kind != wal.Fence:
			s.problem(KindChainEnd, "the recorded end is %d, where a %s lies instead of a FENCE", end, at.head.Kind)
		}
	}
	for _, r := range beyond {
		if r.head != nil && r.head.Kind != wal.Fence && r.head.Acknowledged > end {
			s.problem(KindAckBeyondEnd, "slot %d, beyond the end %d, says that slots below %d were acknowledged", r.slot, end, r.head.Acknowledged)
			break
		}
	}
	return nil
}

// checkCheckpoint replays the newest checkpoint, up to where the walk has come,
// and compares it with what the heads say.
func (s *scan) checkCheckpoint(ctx context.Context) error {
	if s.chain.Inherited { // nobody recovers it any more
		return nil
	}
	if s.chain.Checkpoint == 0 || s.recent == s.chain.Checkpoint+1 {
		return nil
	}
	state, err := s.replay(ctx)
	s.recent = s.chain.Checkpoint + 1
	if err != nil {
		if unanswered(ctx, err) || errors.Is(err, metadata.ErrNoChain) {
			return err
		}
		if !s.holed && !s.chain.Inherited { // it may have been inherited since, and its checkpoint deleted
			s.problem(KindCheckpoint, "%v", err)
		}
		return nil
	}
	if s.holed {
		return nil
	}
	state.Ends(func(c tiering.Claim, end int64) {
		if known, ok := s.claims[c]; ok && known.end != end {
			s.problem(KindCheckpoint, "checkpoint %d leads to end offset %d of %s at epoch %d, the heads to %d", s.chain.Checkpoint, end, s.a.partitionName(c.Partition), c.Epoch, known.end)
		}
	})
	return nil
}

// replay is the chain's state at s.next. A checkpoint that is gone because it
// has been replaced since is no finding.
func (s *scan) replay(ctx context.Context) (state *tiering.ChainState, err error) {
	for {
		if s.chain.Checkpoint > s.next { // it was written while we walked
			if err := s.walk(ctx); err != nil {
				return nil, err
			}
		}
		chain := s.chain
		if e := s.a.request(ctx, func() { state, err = s.a.inspector.Replay(ctx, s.inc, chain, s.next) }); e != nil {
			return nil, e
		}
		if err == nil || unanswered(ctx, err) {
			return state, err
		}
		if e := s.load(ctx); e != nil {
			return nil, e
		}
		if s.chain.Checkpoint == chain.Checkpoint {
			return nil, err
		}
	}
}

// inspected is a chain's state and what its heads say, both at one moment.
type inspected struct {
	state  *tiering.ChainState
	err    error // instead of state: the chain cannot be replayed
	end    uint64
	claims map[tiering.Claim]claimEnd
	holed  bool
}

// inspect walks on and returns the chain as it is now.
func (s *scan) inspect(ctx context.Context) (*inspected, error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer s.give()
	if err := s.advanceTaken(ctx); err != nil {
		return nil, err
	}
	state, err := s.replay(ctx)
	if err != nil && (unanswered(ctx, err) || errors.Is(err, metadata.ErrNoChain)) {
		return nil, err
	}
	i := &inspected{state: state, err: err, end: s.next, claims: make(map[tiering.Claim]claimEnd, len(s.claims)), holed: s.holed}
	for c, e := range s.claims {
		i.claims[c] = e
	}
	return i, nil
}

// position is where the walk has come to, and the chain as it was then.
func (s *scan) position(ctx context.Context) (next uint64, closed bool, chain metadata.Chain, err error) {
	if err := s.take(ctx); err != nil {
		return 0, false, metadata.Chain{}, err
	}
	defer s.give()
	return s.next, s.closed, s.chain, nil
}

// claim is what the heads read so far say of a claim.
func (s *scan) claim(ctx context.Context, c tiering.Claim) (end claimEnd, known, holed bool, err error) {
	if err := s.take(ctx); err != nil {
		return claimEnd{}, false, false, err
	}
	defer s.give()
	end, known = s.claims[c]
	return end, known, s.holed, nil
}
