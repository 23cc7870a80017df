package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// errRaced: somebody else was faster; look again.
var errRaced = errors.New("lost a race")

// Register makes a new incarnation: it takes a broker id, and the revision at
// which it did makes the incarnation; then it publishes the broker and creates
// its chain's key. It tries until ctx is done. The caller then runs Run.
func Register(ctx context.Context, kv KV, cfg SessionConfig) (*Session, error) {
	if cfg.TTL == 0 {
		cfg.TTL = DefaultSessionTTL
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var b backoff
	for {
		s, err := register(ctx, kv, cfg)
		if err == nil {
			return s, nil
		}
		if !transient(err) {
			return nil, fmt.Errorf("register broker: %w", err)
		}
		if b.wait(ctx) != nil {
			return nil, fmt.Errorf("register broker: %w", err)
		}
	}
}

// transient says whether a registration is worth another attempt.
func transient(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrLeaseNotFound) ||
		errors.Is(err, ErrNoSpace) || errors.Is(err, errRaced)
}

// register is one attempt, under a lease of its own, which is revoked when the
// attempt fails: so whatever of it is applied late is applied nowhere.
func register(ctx context.Context, kv KV, cfg SessionConfig) (s *Session, err error) {
	begun := time.Now()
	lease, err := kv.Grant(ctx, cfg.TTL)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			revokeQuietly(ctx, kv, lease)
		}
	}()
	id, rev, err := takeID(ctx, kv, lease, cfg.PreferredID)
	if err != nil {
		return nil, err
	}
	b := cfg.Broker
	b.ID, b.Incarnation, b.Lease = id, MakeIncarnation(cfg.Generation, rev), lease
	if err := publish(ctx, kv, b, rev); err != nil {
		return nil, err
	}
	return &Session{
		kv: kv, cfg: cfg, log: cfg.Log, inc: b.Incarnation,
		broker: b, validUntil: begun.Add(cfg.TTL), since: begun,
	}, nil
}

// takeID creates the key of a free broker id, and returns its revision.
func takeID(ctx context.Context, kv KV, lease LeaseID, preferred int32) (int32, int64, error) {
	id, err := freeID(ctx, kv, preferred)
	if err != nil {
		return 0, 0, err
	}
	key := BrokerIDKey(id)
	rev, err := settle(ctx, kv, Txn{
		If:   []Cond{{key, 0}},
		Then: []Op{PutLeased(key, encode(BrokerID{}), lease)},
		Else: []string{key},
	}, func(cur []Entry) (int64, error) {
		switch {
		case !cur[0].Exists():
			return 0, nil
		case cur[0].Lease == lease:
			return cur[0].CreateRevision, nil
		}
		return 0, errRaced
	})
	return id, rev, err
}

// freeID returns preferred if nobody has it, else the smallest free id.
func freeID(ctx context.Context, kv KV, preferred int32) (int32, error) {
	entries, _, err := kv.Range(ctx, PrefixBrokerIDs)
	if err != nil {
		return 0, err
	}
	taken := make(map[string]bool, len(entries))
	for _, e := range entries {
		taken[strings.TrimPrefix(e.Key, PrefixBrokerIDs)] = true
	}
	if preferred > 0 && !taken[strconv.Itoa(int(preferred))] {
		return preferred, nil
	}
	id := int32(1)
	for taken[strconv.Itoa(int(id))] {
		id++
	}
	return id, nil
}

// publish writes the broker's keys beside its id, taken at rev.
func publish(ctx context.Context, kv KV, b Broker, rev int64) error {
	idKey := BrokerIDKey(b.ID)
	_, err := settle(ctx, kv, Txn{
		If: []Cond{{idKey, rev}, {BrokerKey(b.Incarnation), 0}, {ChainKey(b.Incarnation), 0}},
		Then: []Op{
			PutLeased(idKey, encode(BrokerID{Incarnation: b.Incarnation}), b.Lease),
			PutLeased(BrokerKey(b.Incarnation), encode(b), b.Lease),
			Put(ChainKey(b.Incarnation), encode(Chain{})),
		},
		Else: []string{idKey, BrokerKey(b.Incarnation)},
	}, func(cur []Entry) (int64, error) {
		switch {
		case cur[0].ModRevision == rev && !cur[1].Exists():
			return 0, nil
		case cur[0].Lease == b.Lease && cur[1].Lease == b.Lease:
			return cur[1].ModRevision, nil
		}
		return 0, errRaced // the lease lapsed on the way
	})
	return err
}

// registerAgain registers the same incarnation under a new lease. It tries, at
// most a second apart, until it succeeds, the incarnation is over, or ctx ends.
func (s *Session) registerAgain(ctx context.Context) error {
	var b backoff
	for {
		if s.isClosed() {
			return nil
		}
		err := s.registerAgainOnce(ctx)
		if err == nil || errors.Is(err, ErrIncarnationOver) {
			return err
		}
		s.log.LogAttrs(ctx, slog.LevelDebug, "registering again failed", slog.Any(logError, err))
		if werr := b.wait(ctx); werr != nil {
			return werr
		}
	}
}

func (s *Session) registerAgainOnce(ctx context.Context) (err error) {
	call, cancel := context.WithTimeout(ctx, s.cfg.TTL) // then the lease is no good
	defer cancel()
	old := s.Broker()
	begun := time.Now()
	lease, err := s.kv.Grant(call, s.cfg.TTL)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			revokeQuietly(ctx, s.kv, lease)
		}
	}()
	id, idRev, err := s.idToTake(call, old.ID)
	if err != nil {
		return err
	}
	entries, _, err := s.kv.Get(call, ChainKey(s.inc), BrokerKey(s.inc))
	if err != nil {
		return err
	}
	chain, err := parseChain(entries[0])
	if errors.Is(err, ErrNoChain) || err == nil && chain.End != nil {
		return fmt.Errorf("%w: %s", ErrIncarnationOver, s.inc)
	}
	if err != nil {
		return err
	}
	b := s.Broker()
	b.ID, b.Lease = id, lease
	res, err := s.kv.Txn(call, Txn{
		If: []Cond{
			{BrokerIDKey(id), idRev},
			{entries[0].Key, entries[0].ModRevision}, // no end was recorded meanwhile
			{entries[1].Key, entries[1].ModRevision},
		},
		Then: []Op{
			PutLeased(BrokerIDKey(id), encode(BrokerID{Incarnation: s.inc}), lease),
			PutLeased(BrokerKey(s.inc), encode(b), lease),
		},
	})
	if err == nil && !res.Succeeded {
		err = errRaced
	}
	if err != nil {
		return err
	}
	s.registered(ctx, old, id, lease, begun)
	revokeQuietly(ctx, s.kv, old.Lease) // in case it was not quite gone
	if s.isClosed() {
		revokeQuietly(ctx, s.kv, lease) // Close knew the old one only
	}
	return nil
}

// idToTake returns the id to register under and the revision of its key: the
// old one if it is free or this incarnation's, else a free one.
func (s *Session) idToTake(ctx context.Context, old int32) (int32, int64, error) {
	entries, _, err := s.kv.Get(ctx, BrokerIDKey(old))
	if err != nil {
		return 0, 0, err
	}
	if !entries[0].Exists() {
		return old, 0, nil
	}
	holder, err := decode[BrokerID](entries[0])
	if err == nil && holder.Incarnation == s.inc {
		return old, entries[0].ModRevision, nil
	}
	id, err := freeID(ctx, s.kv, 0)
	return id, 0, err
}

func (s *Session) registered(ctx context.Context, old Broker, id int32, lease LeaseID, begun time.Time) {
	s.mu.Lock()
	s.broker.ID, s.broker.Lease = id, lease
	s.lost, s.since, s.validUntil = false, time.Now(), begun.Add(s.cfg.TTL)
	b := s.broker
	s.mu.Unlock()
	attrs := []slog.Attr{slog.String(logIncarnation, s.inc.String()), slog.Int(logBrokerID, int(id)), slog.Int64(logLease, int64(lease))}
	if id != old.ID {
		attrs = append(attrs, slog.Int(logOldBrokerID, int(old.ID)))
		s.log.LogAttrs(ctx, slog.LevelWarn, "registered again under another broker id", attrs...)
	} else {
		s.log.LogAttrs(ctx, slog.LevelInfo, "registered again", attrs...)
	}
	if s.cfg.OnRegister != nil {
		s.cfg.OnRegister(b)
	}
}
