package load

import (
	"context"
	"time"
)

// schedule says when the records of one of several producers are due: the
// records of all of them together are evenly spaced, each producer having every
// so manieth.
type schedule struct {
	start     time.Time
	perSecond float64 // of all producers
	producer  int
	producers int
}

// due is when record i of this producer should be sent.
func (s schedule) due(i int) time.Time {
	n := float64(i)*float64(s.producers) + float64(s.producer)
	return s.start.Add(time.Duration(n / s.perSecond * float64(time.Second)))
}

// pace calls send for every record that is due before end, when it is due or as
// soon after as it can. A send that blocks delays the ones behind it but not
// when they were due, and none is left out: whoever counts from due sees the
// wait of every record that a user would have sent meanwhile.
func (s schedule) pace(ctx context.Context, end time.Time, send func(due time.Time)) error {
	for i := 0; ; i++ {
		due := s.due(i)
		if !due.Before(end) {
			return nil
		}
		if d := time.Until(due); d > 0 {
			if err := sleep(ctx, d); err != nil {
				return err
			}
		} else if err := ctx.Err(); err != nil {
			return err
		}
		send(due)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
