package raw

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/bench/internal/hist"
)

// etcdValue is about what a group's or a partition's key holds.
const (
	etcdValue   = 256
	etcdClients = 16
)

// Etcd puts small values for d, one at a time, and then for d as many at once
// as etcdClients; it returns the latencies of the first and the rate of the second.
func Etcd(ctx context.Context, url string, d time.Duration) (*hist.H, float64, error) {
	cl, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, DialTimeout: requestTimeout})
	if err != nil {
		return nil, 0, err
	}
	defer cl.Close()
	value := string(bytes.Repeat([]byte{'x'}, etcdValue))
	put := func(ctx context.Context, key int) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		begun := time.Now()
		_, err := cl.Put(ctx, fmt.Sprintf("/bench/%d", key), value)
		return time.Since(begun), err
	}
	var h hist.H
	for start := time.Now(); time.Since(start) < d; {
		took, err := put(ctx, 0)
		if err != nil {
			return nil, 0, fmt.Errorf("put to etcd: %w", err)
		}
		h.Record(took)
	}
	var n atomic.Int64
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i := range etcdClients {
		g.Go(func() error {
			for time.Since(start) < d {
				if _, err := put(ctx, i); err != nil {
					return fmt.Errorf("put to etcd: %w", err)
				}
				n.Add(1)
			}
			return nil
		})
	}
	err = g.Wait()
	return &h, float64(n.Load()) / time.Since(start).Seconds(), err
}
