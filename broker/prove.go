package broker

import (
	"context"
	"errors"

	"github.com/tidemark-io/tidemark/tiering"
)

// prove makes sure that what rests on a producer's state comes from the leader. A
// deposed one that has not noticed remembers an older state, and nothing it is
// about to write would tell it: a refusal writes nothing, and neither does what
// counts as written already. txn: the appends are of transactions, or end them.
// One check, begun after all of them, is enough.
func (s *Server) prove(ctx context.Context, parts [][]produced, txn bool) {
	var unproven error
	checked := false
	for i := range parts {
		for j := range parts[i] {
			p := &parts[i][j]
			if !p.doubtful(txn) {
				continue
			}
			if !checked {
				unproven, checked = s.cfg.Log.Check(ctx, 0), true
			}
			if unproven != nil {
				p.err = unproven
			}
		}
	}
}

// doubtful reports whether a successor's log may say otherwise.
//
// Sequence numbers and transactions move on there; producer and coordinator
// epochs only grow, so that an old one stays refused. A batch that is in the log
// stays in it, and is known by its sequence number as long as the producer's
// epoch lasts. But after an abort a client may use the numbers of what it gave up
// for other records, and the marker that ended one transaction does not end the
// next of the same epoch.
func (p *produced) doubtful(txn bool) bool {
	if p.err != nil {
		return errors.Is(p.err, tiering.ErrOutOfOrderSequence) || errors.Is(p.err, tiering.ErrInvalidTxnState)
	}
	return txn && p.appended.Duplicate
}
