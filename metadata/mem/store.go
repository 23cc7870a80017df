// Package mem is a metadata store in memory, with all of the contract's
// semantics: revisions, guarded transactions, leases that lapse by the clock,
// watches over a bounded history. It is for tests: time is the time package's,
// so that testing/synctest drives it, and faults can be injected.
//
// Store is what an etcd cluster is; Client is a connection to it and implements
// metadata.KV. A fault of the Store hits everybody, one of a Client only its
// holder, as a partition of the network would.
package mem

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

// historyMax is the number of changes kept for watches before the oldest are
// compacted away.
const historyMax = 100_000

// Store holds the keys.
type Store struct {
	faults faults

	// mu guards everything below; no I/O or waiting happens under it.
	mu        sync.Mutex
	rev       int64
	keys      map[string]metadata.Entry
	leases    map[metadata.LeaseID]*lease
	nextLease metadata.LeaseID
	// history holds every change after compacted, in order.
	history   []metadata.Event
	compacted int64
	// progress counts the calls of Progress; changed is closed and replaced
	// whenever it, rev or compacted moves.
	progress int64
	changed  chan struct{}
}

type lease struct {
	ttl    time.Duration
	lapses *time.Timer
	keys   map[string]bool
}

// New returns an empty store. Its first write has revision 2, like etcd's.
func New() *Store {
	return &Store{
		rev:       1,
		keys:      make(map[string]metadata.Entry),
		leases:    make(map[metadata.LeaseID]*lease),
		nextLease: 1000,
		changed:   make(chan struct{}),
	}
}

// Client returns a new connection to the store.
func (s *Store) Client() *Client {
	ctx, cancel := context.WithCancel(context.Background())
	return &Client{store: s, closing: ctx, close: cancel}
}

// Revision returns the revision of the last write.
func (s *Store) Revision() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev
}

// DropLease ends a lease as if it had lapsed.
func (s *Store) DropLease(id metadata.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLeaseLocked(id)
}

// Compact forgets the history up to rev, all of it when rev is 0.
func (s *Store) Compact(rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev <= 0 || rev > s.rev {
		rev = s.rev
	}
	s.compactLocked(rev)
}

func (s *Store) compactLocked(rev int64) {
	if rev <= s.compacted {
		return
	}
	s.compacted = rev
	s.history = slices.Clone(s.history[s.historyFromLocked(rev+1):])
	s.broadcastLocked()
}

// historyFromLocked is the index of the first change at or after rev.
func (s *Store) historyFromLocked(rev int64) int {
	i, _ := slices.BinarySearchFunc(s.history, rev, func(e metadata.Event, rev int64) int {
		return int(e.Entry.ModRevision - rev)
	})
	for i > 0 && s.history[i-1].Entry.ModRevision >= rev {
		i--
	}
	return i
}

func (s *Store) broadcastLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Store) getLocked(key string) metadata.Entry {
	e, ok := s.keys[key]
	if !ok {
		return metadata.Entry{Key: key}
	}
	e.Value = slices.Clone(e.Value)
	return e
}

func (s *Store) rangeLocked(prefix string) []metadata.Entry {
	var out []metadata.Entry
	for key := range s.keys {
		if strings.HasPrefix(key, prefix) {
			out = append(out, s.getLocked(key))
		}
	}
	slices.SortFunc(out, func(a, b metadata.Entry) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func (s *Store) txnLocked(t metadata.Txn) (metadata.TxnResult, error) {
	for _, c := range t.If {
		if s.keys[c.Key].ModRevision == c.ModRevision {
			continue
		}
		res := metadata.TxnResult{Revision: s.rev}
		for _, key := range t.Else {
			res.Else = append(res.Else, s.getLocked(key))
		}
		return res, nil
	}
	for _, op := range t.Then {
		if op.Lease != 0 && s.leases[op.Lease] == nil {
			return metadata.TxnResult{}, metadata.ErrLeaseNotFound
		}
	}
	s.writeLocked(t.Then)
	return metadata.TxnResult{Succeeded: true, Revision: s.rev}, nil
}

// writeLocked applies ops at the next revision, if they change anything.
func (s *Store) writeLocked(ops []metadata.Op) {
	rev := s.rev + 1
	before := len(s.history)
	for _, op := range ops {
		switch {
		case op.Delete && op.Prefix:
			for _, e := range s.rangeLocked(op.Key) {
				s.deleteLocked(e.Key, rev)
			}
		case op.Delete:
			s.deleteLocked(op.Key, rev)
		default:
			s.putLocked(op, rev)
		}
	}
	if len(s.history) == before {
		return
	}
	s.rev = rev
	if len(s.history) > historyMax {
		s.compactLocked(s.history[len(s.history)/2].Entry.ModRevision)
	}
	s.broadcastLocked()
}

func (s *Store) putLocked(op metadata.Op, rev int64) {
	e := metadata.Entry{Key: op.Key, Value: slices.Clone(op.Value), CreateRevision: rev, ModRevision: rev, Lease: op.Lease}
	if old, ok := s.keys[op.Key]; ok {
		e.CreateRevision = old.CreateRevision
		s.detachLocked(old)
	}
	if l := s.leases[op.Lease]; l != nil {
		l.keys[op.Key] = true
	}
	s.keys[op.Key] = e
	s.history = append(s.history, metadata.Event{Entry: e})
}

func (s *Store) deleteLocked(key string, rev int64) {
	old, ok := s.keys[key]
	if !ok {
		return
	}
	s.detachLocked(old)
	delete(s.keys, key)
	s.history = append(s.history, metadata.Event{Entry: metadata.Entry{Key: key, ModRevision: rev}, Deleted: true})
}

func (s *Store) detachLocked(e metadata.Entry) {
	if l := s.leases[e.Lease]; l != nil {
		delete(l.keys, e.Key)
	}
}

func (s *Store) grantLocked(ttl time.Duration) metadata.LeaseID {
	s.nextLease++
	id := s.nextLease
	s.leases[id] = &lease{
		ttl: ttl, keys: make(map[string]bool),
		lapses: time.AfterFunc(ttl, func() { s.DropLease(id) }),
	}
	return id
}

func (s *Store) renewLocked(id metadata.LeaseID) (time.Duration, error) {
	l := s.leases[id]
	// A timer that has fired and waits for mu has ended the lease already.
	if l == nil || !l.lapses.Reset(l.ttl) {
		return 0, metadata.ErrLeaseNotFound
	}
	return l.ttl, nil
}

func (s *Store) dropLeaseLocked(id metadata.LeaseID) {
	l := s.leases[id]
	if l == nil {
		return
	}
	l.lapses.Stop()
	keys := make([]string, 0, len(l.keys))
	for key := range l.keys {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	delete(s.leases, id)
	ops := make([]metadata.Op, len(keys))
	for i, key := range keys {
		ops[i] = metadata.Delete(key)
	}
	s.writeLocked(ops)
}
