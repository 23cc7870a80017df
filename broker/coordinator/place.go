package coordinator

import (
	"slices"

	"github.com/tidemark-io/tidemark/broker/txn"
)

// place is what a group has of one partition. It does not change.
type place struct {
	offset *offset // committed; nil for none
	// pending are the offsets of transactions that are under way, at most one of
	// each producer, in the order in which they came.
	pending []pending
}

type pending struct {
	producer txn.Producer
	offset   *offset
}

func (p place) empty() bool { return p.offset == nil && len(p.pending) == 0 }

func (p place) size() int {
	n := 0
	if p.offset != nil {
		n = p.offset.size()
	}
	for _, w := range p.pending {
		n += w.offset.size() + producerBytes
	}
	return n
}

const producerBytes = 30 // a producer id and an epoch, with their commas

// edit is what happens to a place. Without a producer the offset is committed, or
// removed if it is nil; with one it waits for the end of the producer's
// transaction.
type edit struct {
	offset   *offset
	producer *txn.Producer
}

// A commit that came after a pending offset outlives it, however the transaction
// ends: the order is that in which they came.
func (e edit) apply(p place) place {
	if e.producer == nil {
		return place{offset: e.offset}
	}
	rest := slices.DeleteFunc(slices.Clone(p.pending), func(w pending) bool { return w.producer.ID == e.producer.ID })
	return place{offset: p.offset, pending: append(rest, pending{producer: *e.producer, offset: e.offset})}
}

// OffsetsMarker ends a producer's transaction in the groups of a shard.
type OffsetsMarker struct {
	Producer         txn.Producer
	CoordinatorEpoch int32
	Commit           bool
	// Version is that of the transaction's protocol: since the second the marker's
	// epoch is above that of what it ends.
	Version int8
}

// ends tells whether the marker is one of w's transaction.
func (m *OffsetsMarker) ends(w pending) bool {
	return w.producer.ID == m.Producer.ID &&
		(w.producer.Epoch < m.Producer.Epoch || w.producer.Epoch == m.Producer.Epoch && m.Version < txn.V2)
}

// apply ends the transaction. What is committed takes the place of everything
// that came before it.
func (m *OffsetsMarker) apply(p place) place {
	out := place{offset: p.offset}
	for _, w := range p.pending {
		switch {
		case !m.ends(w):
			out.pending = append(out.pending, w)
		case m.Commit:
			out = place{offset: w.offset}
		}
	}
	return out
}

// resolve returns what a change makes of the chunk's places, as working has them
// or else the chunk.
func (ch *change) resolve(c *chunk, working map[int32]place) map[int32]place {
	at := func(p int32) place {
		now, ok := working[p]
		if !ok {
			now = c.parts[p]
		}
		return now
	}
	out := make(map[int32]place, len(ch.parts))
	for p, e := range ch.parts {
		out[p] = e.apply(at(p))
	}
	if ch.end == nil {
		return out
	}
	for _, parts := range []map[int32]place{c.parts, working} {
		for p := range parts {
			if now := at(p); slices.ContainsFunc(now.pending, ch.end.ends) {
				out[p] = ch.end.apply(now)
			}
		}
	}
	return out
}

// committed are the committed offsets that differ after changes; nil is none.
func (c *chunk) committed(changes map[int32]place) map[int32]*offset {
	out := make(map[int32]*offset, len(changes))
	for p, now := range changes {
		if now.offset != c.parts[p].offset {
			out[p] = now.offset
		}
	}
	return out
}
