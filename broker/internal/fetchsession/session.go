// Package fetchsession keeps incremental fetch sessions (KIP-227): the
// partitions a consumer fetches, and what it was last told of each, so that
// requests name only what changed and answers tell only what is new.
//
// A Cache is safe for concurrent use; a Session is used by one request at a
// time, which the caller sees to by holding it from Begin to End.
package fetchsession

import (
	"container/list"

	"github.com/tidemark-io/tidemark/metadata"
)

// Key names a partition in a session. Sessions of requests that carry topic
// ids are keyed by id, older ones by name; the other is zero.
type Key struct {
	ID        metadata.TopicID
	Name      string
	Partition int32
}

// Partition is one partition of a session.
type Partition struct {
	Key
	MaxBytes           int32
	FetchOffset        int64
	CurrentLeaderEpoch int32
	LastFetchedEpoch   int32

	// What the client was told last; -1 before the first answer, and after an
	// error, so that the next answer is not left out.
	highWatermark int64
	logStart      int64
}

// Session is the state of one fetcher.
type Session struct {
	ID      int32
	Epoch   int32 // what the next request must carry
	UsesIDs bool

	// order holds *Partition; those that were just served go to the end, so
	// that a response limit starves nobody.
	order   *list.List
	byKey   map[Key]*list.Element
	busy    bool
	counted int   // partitions, as the cache counts them
	created int64 // milliseconds
	used    int64
}

func newSession(usesIDs bool) *Session {
	return &Session{UsesIDs: usesIDs, order: list.New(), byKey: map[Key]*list.Element{}}
}

// Len is the number of partitions.
func (s *Session) Len() int { return len(s.byKey) }

// Set adds a partition or changes what is asked of it.
func (s *Session) Set(p Partition) {
	if e, ok := s.byKey[p.Key]; ok {
		have := e.Value.(*Partition)
		have.MaxBytes, have.FetchOffset = p.MaxBytes, p.FetchOffset
		have.CurrentLeaderEpoch, have.LastFetchedEpoch = p.CurrentLeaderEpoch, p.LastFetchedEpoch
		return
	}
	p.highWatermark, p.logStart = -1, -1
	s.byKey[p.Key] = s.order.PushBack(&p)
}

// Forget removes a partition.
func (s *Session) Forget(k Key) {
	if e, ok := s.byKey[k]; ok {
		s.order.Remove(e)
		delete(s.byKey, k)
	}
}

// Partitions copies the partitions in the order in which to serve them.
func (s *Session) Partitions() []Partition {
	out := make([]Partition, 0, s.order.Len())
	for e := s.order.Front(); e != nil; e = e.Next() {
		out = append(out, *e.Value.(*Partition))
	}
	return out
}

// Answer is what a response would tell of a partition.
type Answer struct {
	Failed        bool
	Diverging     bool
	Bytes         int
	HighWatermark int64
	LogStart      int64
}

// Told records an answer and reports whether it tells anything new, so must
// be part of an incremental response.
func (s *Session) Told(k Key, a Answer) bool {
	e, ok := s.byKey[k]
	if !ok {
		return true
	}
	p := e.Value.(*Partition)
	news := a.Bytes > 0 || a.Failed || a.Diverging
	if p.highWatermark != a.HighWatermark || p.logStart != a.LogStart {
		news = true
	}
	p.highWatermark, p.logStart = a.HighWatermark, a.LogStart
	if a.Failed {
		p.highWatermark = -1
	}
	if a.Bytes > 0 {
		s.order.MoveToBack(e)
	}
	return news
}
