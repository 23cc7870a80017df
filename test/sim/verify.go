package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/test/checker"
)

const (
	ledWithin = 10 * time.Second
	ackWithin = 15 * time.Second
	scanMax   = 30 * time.Second
	endMax    = 30 * time.Second
)

// verify holds the healed cluster against what it promises, and reads
// everything.
func (d *director) verify(ctx context.Context, stopWriting context.CancelFunc) {
	w := d.w
	healed := w.now()
	time.Sleep(ledWithin)
	d.checkLeaders(ctx)
	time.Sleep(healed + ackWithin - w.now())
	for _, s := range d.streams {
		if s.lastAcked() < healed {
			w.judge.broken("liveness", "%s: no acknowledgement in the %v after everything healed", s.name, ackWithin)
		}
	}
	stopWriting()
	time.Sleep(2 * time.Second)
	d.scan(ctx)
}

// checkLeaders has every partition served by a leader.
func (d *director) checkLeaders(ctx context.Context) {
	c := d.client("leaders")
	defer c.close()
	for p := range d.w.weather.partitions {
		var code int16
		var err error
		for range 3 {
			l := c.leader(ctx, p)
			if l.addr == "" {
				err = fmt.Errorf("metadata names none")
				c.refresh(ctx)
				continue
			}
			if _, code, err = listEnd(ctx, c, l.addr, p); err == nil && code == 0 {
				break
			}
			c.mislaid(p)
		}
		if err != nil || code != 0 {
			d.w.judge.broken("liveness", "partition %d has no leader %v after everything healed: %v, %v", p, ledWithin, kerr.ErrorForCode(code), err)
		}
	}
}

// scan has two fresh readers, begun at each broker, read everything.
func (d *director) scan(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, scanMax)
	defer cancel()
	for i, address := range d.addresses() {
		for n := range 2 {
			name := fmt.Sprintf("scan%d.%d", i, n)
			c := d.w.client(name, topicName, address)
			history := d.w.judge.history.Scanner(name, d.hosts[i], checker.ReadUncommitted)
			for p := range d.w.weather.partitions {
				r := &reader{w: d.w, c: c, d: newDice(d.w.seed, name), name: name, partition: p, history: history}
				known := d.w.judge.trimmed(p)
				end, err := d.endOf(ctx, c, p)
				if err == nil {
					err = r.scan(ctx, end)
				}
				if err == nil && known.done > 0 {
					err = d.checkStart(ctx, c, p, known.done)
				}
				if err != nil {
					d.w.judge.broken("liveness", "%s: %v", name, err)
				}
			}
			history.Close()
			c.close()
		}
	}
}

// checkStart wants a log to begin no lower than where its records were deleted.
func (d *director) checkStart(ctx context.Context, c *client, p int32, least int64) error {
	for ctx.Err() == nil {
		if l := c.leader(ctx, p); l.addr != "" {
			if start, ok := listStart(ctx, c, l, p); ok {
				d.w.judge.began(c.name, l.addr, p, start, least)
				return nil
			}
		}
		c.mislaid(p)
		rest(ctx, 100*time.Millisecond)
	}
	return fmt.Errorf("no start of partition %d: %w", p, ctx.Err())
}

// endOf is the high watermark of a partition.
func (d *director) endOf(ctx context.Context, c *client, p int32) (int64, error) {
	for {
		l := c.leader(ctx, p)
		if l.addr != "" {
			offset, code, err := listEnd(ctx, c, l.addr, p)
			if err == nil && code == 0 {
				return offset, nil
			}
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("no end of partition %d: %w", p, ctx.Err())
		}
		c.mislaid(p)
		rest(ctx, 100*time.Millisecond)
	}
}
