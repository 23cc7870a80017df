package fetchsession

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Epochs with a meaning of their own.
const (
	EpochInitial = 0  // a full request that asks for a session
	EpochFinal   = -1 // a full request that wants none, and ends the one it names
)

// EvictAfter is the age at which a session may make room for a larger one, and
// the idle time after which for any (Kafka: MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS).
const EvictAfter = 2 * time.Minute

var (
	// ErrNotFound, ErrEpoch and ErrTopicIDs are FETCH_SESSION_ID_NOT_FOUND,
	// INVALID_FETCH_SESSION_EPOCH and FETCH_SESSION_TOPIC_ID_ERROR. The client
	// answers each with a full request.
	ErrNotFound = errors.New("no such fetch session")
	ErrEpoch    = errors.New("fetch session epoch does not follow")
	ErrTopicIDs = errors.New("fetch session mixes topic ids and names")
)

// partitionsMax bounds the partitions of all sessions of a Cache, which take
// some 200 bytes each and need not exist.
const partitionsMax = 500_000

// Cache holds at most max sessions.
type Cache struct {
	max           int
	partitionsMax int

	mu         sync.Mutex
	sessions   map[int32]*Session
	partitions int // of sessions, as counted
}

// NewCache returns an empty cache for max sessions.
func NewCache(max int) *Cache {
	return &Cache{max: max, partitionsMax: partitionsMax, sessions: map[int32]*Session{}}
}

// Len is the number of sessions kept.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sessions)
}

// Begin finds the session of an incremental request and holds it for the
// caller, who must End it. The session's epoch has moved on.
func (c *Cache) Begin(id, epoch int32, usesIDs bool) (*Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.sessions[id]
	switch {
	case !ok:
		return nil, ErrNotFound
	case s.UsesIDs != usesIDs:
		return nil, ErrTopicIDs
	case s.busy || s.Epoch != epoch:
		return nil, ErrEpoch
	}
	s.busy = true
	s.Epoch = nextEpoch(epoch)
	s.used = time.Now().UnixMilli()
	return s, nil
}

// nextEpoch counts up and leaves out 0, which asks for a new session.
func nextEpoch(e int32) int32 {
	if e == math.MaxInt32 {
		return 1
	}
	return e + 1
}

// End gives a session back. One that has no partitions left, or has grown beyond
// what there is room for, is dropped.
func (c *Cache) End(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.busy = false
	if c.sessions[s.ID] != s {
		return // removed meanwhile
	}
	c.partitions += s.Len() - s.counted
	s.counted = s.Len()
	if s.Len() == 0 || c.partitions > c.partitionsMax {
		c.drop(s)
	}
}

func (c *Cache) drop(s *Session) {
	delete(c.sessions, s.ID)
	c.partitions -= s.counted
}

// Remove drops a session, as a full request that names one does.
func (c *Cache) Remove(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.sessions[id]; ok {
		c.drop(s)
	}
}

// Create makes a session of the partitions of a full request and holds it for
// the caller. Without room it returns a session whose ID is 0: the request is
// answered in full and nothing is kept.
func (c *Cache) Create(usesIDs bool, partitions []Partition) *Session {
	s := newSession(usesIDs)
	for _, p := range partitions {
		s.Set(p)
	}
	if len(partitions) == 0 {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now().UnixMilli()
	if !c.makeRoom(now, s.Len()) {
		return s
	}
	for s.ID == 0 || c.sessions[s.ID] != nil {
		s.ID = rand.Int32N(math.MaxInt32)
	}
	s.Epoch, s.busy, s.created, s.used = 1, true, now, now
	s.counted = s.Len()
	c.sessions[s.ID], c.partitions = s, c.partitions+s.counted
	return s
}

// makeRoom reports whether a session of size partitions fits, and evicts others
// for it where that is allowed.
func (c *Cache) makeRoom(now int64, size int) bool {
	if size > c.partitionsMax {
		return false
	}
	for len(c.sessions) >= c.max || c.partitions+size > c.partitionsMax {
		if c.evictIdle(now) {
			continue
		}
		return c.partitions+size <= c.partitionsMax && c.evictSmaller(now, size)
	}
	return true
}

// evictIdle drops the session idle longest, if it has been idle long.
func (c *Cache) evictIdle(now int64) bool {
	var idlest *Session
	for _, s := range c.sessions {
		if !s.busy && (idlest == nil || s.used < idlest.used) {
			idlest = s
		}
	}
	if idlest == nil || now-idlest.used <= EvictAfter.Milliseconds() {
		return false
	}
	c.drop(idlest)
	return true
}

// evictSmaller drops the smallest of the sessions that are old enough, if it is
// smaller than size.
func (c *Cache) evictSmaller(now int64, size int) bool {
	var smallest *Session
	for _, s := range c.sessions {
		if !s.busy && now-s.created > EvictAfter.Milliseconds() && (smallest == nil || s.Len() < smallest.Len()) {
			smallest = s
		}
	}
	if smallest == nil || smallest.Len() >= size {
		return false
	}
	c.drop(smallest)
	return true
}
