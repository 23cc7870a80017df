package object

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"
)

// PerEndpoint is an extra ability of a store that is reached through several
// addresses: a store for each of them. The probe races through all, because a
// store may be atomic within one server and not across two.
type PerEndpoint interface {
	PerEndpoint(ctx context.Context) ([]Store, error)
}

// NotAtomicError tells that a store broke the promise every safety argument
// here rests on: that of racing creates of one key exactly one succeeds.
type NotAtomicError struct {
	Key    string
	Reason string
}

func (e *NotAtomicError) Error() string {
	return fmt.Sprintf("the object store does not create objects atomically (%s: %s): "+
		"it cannot hold a log. MinIO with two or more server pools is known to be unsuitable; "+
		"use a deployment of one pool", e.Key, e.Reason)
}

const (
	probePrefix       = "_probe/"
	probeObjectBytes  = 4 << 10
	probeCleanupLimit = 10 * time.Second
	// probeRetryPause spaces the repeats of a create with an unknown outcome.
	probeRetryPause = 100 * time.Millisecond
)

// Probe proves, as far as a test can, that create-if-absent is atomic on store:
// for each of n keys, m racers create it at once with different bytes, through
// every address of the store. Exactly one may be told nil and all others
// ErrExists, and the object must hold the winner's bytes whichever way it is
// read. A NotAtomicError means that the store is unsuitable, any other error
// that the probe could not be finished. The keys lie under _probe/ and are
// deleted again.
func Probe(ctx context.Context, store Store, n, m int) error {
	stores, err := endpoints(ctx, store)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	for i := range n {
		key := fmt.Sprintf("%s%s/%04d", probePrefix, hex.EncodeToString(id[:]), i)
		if err := probeKey(ctx, stores, key, m); err != nil {
			return fmt.Errorf("probe: %w", err)
		}
	}
	return nil
}

func endpoints(ctx context.Context, store Store) ([]Store, error) {
	if per, ok := As[PerEndpoint](store); ok {
		stores, err := per.PerEndpoint(ctx)
		if err != nil || len(stores) > 0 {
			return stores, err
		}
	}
	return []Store{store}, nil
}

// racer is one contender for a key and what it learnt.
type racer struct {
	store     Store
	data      []byte
	ambiguous bool // an attempt had an unknown outcome, so ErrExists may mean "I won"
	err       error
}

func probeKey(ctx context.Context, stores []Store, key string, m int) error {
	racers := make([]*racer, m)
	for i := range racers {
		data := make([]byte, probeObjectBytes)
		if _, err := rand.Read(data); err != nil {
			return err
		}
		racers[i] = &racer{store: stores[i%len(stores)], data: data}
	}
	defer cleanUp(ctx, stores[0], key)
	race(ctx, key, racers)
	return judge(ctx, stores, key, racers)
}

func race(ctx context.Context, key string, racers []*racer) {
	start := make(chan struct{})
	var wg sync.WaitGroup
	for _, r := range racers {
		wg.Go(func() {
			<-start
			r.run(ctx, key)
		})
	}
	close(start)
	wg.Wait()
}

// run repeats the create until its outcome is known.
func (r *racer) run(ctx context.Context, key string) {
	for {
		r.err = r.store.Create(ctx, key, r.data)
		if r.err == nil || errors.Is(r.err, ErrExists) || errors.Is(r.err, ErrRefused) {
			return
		}
		r.ambiguous = true
		if !sleep(ctx, probeRetryPause) {
			return
		}
	}
}

func judge(ctx context.Context, stores []Store, key string, racers []*racer) error {
	var winner *racer
	var possible [][]byte
	for _, r := range racers {
		switch {
		case r.err == nil && winner != nil:
			return &NotAtomicError{Key: key, Reason: "two racing creates both succeeded"}
		case r.err == nil:
			winner = r
		case !errors.Is(r.err, ErrExists):
			return r.err
		case r.ambiguous:
			possible = append(possible, r.data)
		}
	}
	if winner != nil {
		possible = [][]byte{winner.data}
	}
	for _, store := range stores {
		got, err := store.Get(ctx, key, 0, -1)
		if errors.Is(err, ErrNotFound) {
			return &NotAtomicError{Key: key, Reason: "the object that was created cannot be read"}
		}
		if err != nil {
			return err
		}
		if !holds(possible, got) {
			return &NotAtomicError{Key: key, Reason: "the object does not hold the bytes of the create that succeeded"}
		}
	}
	return nil
}

func holds(list [][]byte, b []byte) bool {
	for _, l := range list {
		if bytes.Equal(l, b) {
			return true
		}
	}
	return false
}

// cleanUp deletes what the probe created, also when ctx is over. What it cannot
// delete lies under a random key and harms nobody.
func cleanUp(ctx context.Context, store Store, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeCleanupLimit)
	defer cancel()
	_ = store.Delete(ctx, key)
}
