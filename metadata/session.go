package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// DefaultSessionTTL is how long a session outlives its last renewal.
const DefaultSessionTTL = 6 * time.Second

var (
	// ErrIncarnationOver: the end of the incarnation's chain is recorded. It can
	// never commit again, and must not register again.
	ErrIncarnationOver = errors.New("incarnation is over")
	// ErrSessionLost: the broker is not registered at the moment.
	ErrSessionLost = errors.New("session lost")
)

// Keys of log attributes.
const (
	logIncarnation = "incarnation"
	logBrokerID    = "broker_id"
	logOldBrokerID = "old_broker_id"
	logLease       = "lease"
	logError       = "error"
	logPrefix      = "prefix"
)

// SessionConfig says what to register.
type SessionConfig struct {
	// TTL is how long the registration outlives its last renewal; renewals are
	// sent three times as often. Short finds a dead broker sooner, long forgives
	// more of the store's hiccups. Default DefaultSessionTTL.
	TTL time.Duration
	// Generation is the cluster's, from its Identity.
	Generation uint16
	// PreferredID is the broker id to take if it is free, such as the one used
	// last; 0 for none. Ids begin at 1.
	PreferredID int32
	// Broker is what to publish; ID, Incarnation and Lease are filled in.
	Broker Broker
	Log    *slog.Logger
	// OnRegister, if set, is called by Run each time it has registered again:
	// the lease is another one then, and possibly the id.
	OnRegister func(Broker)
}

// Session is one incarnation's registration. A session that is lost says
// nothing about the incarnation, which ends only with its chain: Run registers
// the same incarnation again.
type Session struct {
	kv  KV
	cfg SessionConfig
	log *slog.Logger
	inc Incarnation

	// mu guards what follows. No call to the store is made under it.
	mu     sync.Mutex
	broker Broker // as wanted; ID and Lease as last registered
	// validUntil is when the store may let the lease lapse, by what was heard
	// from it: the begin of the last successful renewal plus the TTL.
	validUntil time.Time
	lost       bool
	// since is when the session became valid, or when it was found lost.
	since  time.Time
	closed bool
}

// SessionState is what is known of a session at a moment.
type SessionState struct {
	// Valid is whether the session certainly exists in the store, clocks being
	// about as fast as each other. A hint: no safety rests on it.
	Valid bool
	// Since is when it became so.
	Since time.Time
	// Broker is the registration.
	Broker Broker
}

// Incarnation returns the incarnation, which never changes.
func (s *Session) Incarnation() Incarnation { return s.inc }

// Broker returns the registration as last written, or to be written next.
func (s *Session) Broker() Broker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broker
}

// Lease returns the lease the session's keys hang on. It changes when the
// session is registered again.
func (s *Session) Lease() LeaseID { return s.Broker().Lease }

// State returns what is known of the session now.
func (s *Session) State() SessionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SessionState{Valid: !s.lost && time.Now().Before(s.validUntil), Since: s.since, Broker: s.broker}
	if !s.lost && !st.Valid {
		st.Since = s.validUntil
	}
	return st
}

// Lost reports whether the session is not known to be valid.
func (s *Session) Lost() bool { return !s.State().Valid }

// Run keeps the session until ctx is done, and then returns nil. A lost session
// is registered again, however long the store is away. It returns
// ErrIncarnationOver when the incarnation's end has been recorded.
func (s *Session) Run(ctx context.Context) error {
	interval := s.cfg.TTL / 3
	wait := interval
	var retry backoff
	for pause(ctx, wait) == nil {
		err := s.renew(ctx)
		if errors.Is(err, ErrLeaseNotFound) {
			err = s.registerAgain(ctx)
		}
		switch {
		case ctx.Err() != nil || s.isClosed():
			return nil
		case errors.Is(err, ErrIncarnationOver):
			return err
		case err != nil:
			// It may be valid still. Asked again soon, for the time it has left.
			s.log.LogAttrs(ctx, slog.LevelDebug, "session renewal failed", slog.Any(logError, err))
			retry.next = min(max(2*retry.next, 50*time.Millisecond), min(time.Second, interval))
			wait = retry.next
		default:
			retry = backoff{}
			wait = interval
		}
	}
	return nil
}

// renew extends the lease once.
func (s *Session) renew(ctx context.Context) error {
	begun := time.Now()
	lease := s.Lease()
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	ttl, err := s.kv.Renew(ctx, lease)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, ErrLeaseNotFound):
		s.markLostLocked()
	case err == nil:
		if !begun.Before(s.validUntil) {
			s.since = begun // it had been in doubt
		}
		s.validUntil = begun.Add(min(ttl, s.cfg.TTL))
	}
	return err
}

func (s *Session) markLostLocked() {
	if !s.lost {
		s.lost, s.since = true, time.Now()
		s.log.LogAttrs(context.Background(), slog.LevelWarn, "session lost",
			slog.String(logIncarnation, s.inc.String()), slog.Int64(logLease, int64(s.broker.Lease)))
	}
}

func (s *Session) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Update changes what is published. The change is kept, and published with the
// next registration, also when Update returns an error: ErrSessionLost when the
// broker is not registered now, or a store error.
func (s *Session) Update(ctx context.Context, change func(*Broker)) error {
	s.mu.Lock()
	next := s.broker
	change(&next)
	next.ID, next.Incarnation, next.Lease = s.broker.ID, s.inc, s.broker.Lease
	s.broker = next
	s.mu.Unlock()

	_, _, err := update(ctx, s.kv, BrokerKey(s.inc), func(cur Entry) (*Op, error) {
		if !cur.Exists() {
			return nil, ErrSessionLost
		}
		was, err := decode[Broker](cur)
		if err != nil {
			return nil, err
		}
		// Taken after the read: of concurrent updates the last one to write has
		// then seen all of them.
		b := s.Broker()
		b.ID, b.Lease = was.ID, cur.Lease
		if b == was {
			return nil, nil
		}
		op := PutLeased(cur.Key, encode(b), cur.Lease)
		return &op, nil
	})
	if err != nil {
		return fmt.Errorf("update registration of %s: %w", s.inc, err)
	}
	return nil
}

// Close ends the session: its keys go, and Run, if it still runs, returns.
func (s *Session) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	lease := s.broker.Lease
	s.mu.Unlock()
	if err := s.kv.Revoke(ctx, lease); err != nil {
		return fmt.Errorf("revoke session of %s: %w", s.inc, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost, s.since = true, time.Now()
	return nil
}
