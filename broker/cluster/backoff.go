package cluster

import (
	"context"
	"time"

	"github.com/tidemark-io/tidemark/metadata/jitter"
)

const (
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)

// retryDelay is how long to wait after the given number of failures in a row.
func retryDelay(failures int) time.Duration {
	d := retryMax
	if shift := failures - 1; shift < 6 {
		d = min(retryMin<<max(shift, 0), retryMax)
	}
	return jittered(d)
}

// jittered returns between half and all of d, so that brokers that failed
// together do not try again together.
func jittered(d time.Duration) time.Duration {
	return d/2 + jitter.N(d/2+1)
}

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
