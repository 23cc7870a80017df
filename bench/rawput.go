package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object/s3"
)

// rawStore reaches the cluster's bucket with the code the broker uses, so that
// what is compared is the broker and not two S3 clients.
type rawStore struct {
	store *s3.Store
	run   string
	next  atomic.Int64
}

func (r *rawStore) put(ctx context.Context, data []byte) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	begun := time.Now()
	err := r.store.Create(ctx, fmt.Sprintf("raw/%s/%d", r.run, r.next.Add(1)), data)
	return time.Since(begun), err
}

// oneAtATime puts objects of size for d and returns what each took.
func (r *rawStore) oneAtATime(ctx context.Context, size int, d time.Duration) ([]time.Duration, error) {
	data := noise(size)()
	var samples []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		took, err := r.put(ctx, data)
		if err != nil {
			return nil, err
		}
		samples = append(samples, took)
	}
	return samples, nil
}

// ceiling is the bytes a second that inFlight concurrent PUTs of size reach.
func (r *rawStore) ceiling(ctx context.Context, size, inFlight int, d time.Duration) (float64, error) {
	data := noise(size)()
	var done sync.WaitGroup
	var puts atomic.Int64
	errs := make(chan error, inFlight)
	begun := time.Now()
	for range inFlight {
		done.Go(func() {
			for time.Since(begun) < d {
				if _, err := r.put(ctx, data); err != nil {
					errs <- err
					return
				}
				puts.Add(1)
			}
		})
	}
	done.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
	}
	return float64(puts.Load()) * float64(size) / time.Since(begun).Seconds(), nil
}
