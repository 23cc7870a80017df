package tiering

import (
	"context"
	"fmt"
	"time"
)

// brakeMax is the longest that a request waits because tiering is behind.
const brakeMax = time.Second

// brakeTime is how long a request waits while lag bytes are not tiered: not at all
// up to twice what makes tiering due, then ever longer. What is not tiered has to
// be replayed, kept by other brokers' debts and deleted one by one; it must not
// grow for as long as producers are faster than tiering is.
func brakeTime(lag, tierBytes int64) time.Duration {
	over := float64(lag)/float64(tierBytes) - 2
	return time.Duration(min(1, max(0, over)) * float64(brakeMax))
}

// brake has a producer wait while tiering is far behind.
func (l *Log) brake(ctx context.Context) error {
	d := brakeTime(l.lag.Load(), l.cfg.TierBytes)
	if d == 0 {
		return nil
	}
	l.m.slowed.Add(d.Seconds())
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-l.done:
		return ErrFenced
	case <-ctx.Done():
		return fmt.Errorf("%w: tiering is behind: %w", ErrTimedOut, context.Cause(ctx))
	}
}
