package mem

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

// Client is a connection to a Store.
type Client struct {
	store  *Store
	faults faults

	closing context.Context
	close   context.CancelFunc
	watches sync.WaitGroup
}

var (
	_ metadata.KV        = (*Client)(nil)
	_ metadata.Compactor = (*Client)(nil)
)

// do runs f under the store's lock, unless a fault has it otherwise.
func (c *Client) do(ctx context.Context, call Call, f func(s *Store) error) error {
	for _, faults := range []*faults{&c.faults, &c.store.faults} {
		if err := faults.wait(ctx, c.closing); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	apply := func() error {
		c.store.mu.Lock()
		defer c.store.mu.Unlock()
		return f(c.store)
	}
	fault := c.faults.next(call)
	if fault.kind == proceed {
		fault = c.store.faults.next(call)
	}
	switch fault.kind {
	case failBefore:
		return unavailable(errInjected)
	case failAfter:
		if err := apply(); err != nil {
			return err
		}
		return unavailable(errInjected)
	case late:
		if !call.Writes() {
			return unavailable(errInjected)
		}
		time.AfterFunc(fault.delay, func() { _ = apply() })
		return unavailable(errInjected)
	}
	return apply()
}

func unavailable(cause error) error { return fmt.Errorf("%w: %w", metadata.ErrUnavailable, cause) }

// Get implements metadata.KV.
func (c *Client) Get(ctx context.Context, keys ...string) (out []metadata.Entry, rev int64, err error) {
	err = c.do(ctx, Call{Op: "get", Keys: keys}, func(s *Store) error {
		out, rev = nil, s.rev
		for _, key := range keys {
			out = append(out, s.getLocked(key))
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return out, rev, nil
}

// Range implements metadata.KV.
func (c *Client) Range(ctx context.Context, prefix string) (out []metadata.Entry, rev int64, err error) {
	err = c.do(ctx, Call{Op: "range", Keys: []string{prefix}}, func(s *Store) error {
		out, rev = s.rangeLocked(prefix), s.rev
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return out, rev, nil
}

// Txn implements metadata.KV.
func (c *Client) Txn(ctx context.Context, t metadata.Txn) (metadata.TxnResult, error) {
	if err := t.Validate(); err != nil {
		return metadata.TxnResult{}, err
	}
	var res metadata.TxnResult
	var mu sync.Mutex // a late application runs in a goroutine of its own
	err := c.do(ctx, Call{Op: "txn", Txn: t}, func(s *Store) error {
		r, err := s.txnLocked(t)
		mu.Lock()
		defer mu.Unlock()
		res = r
		return err
	})
	if err != nil {
		return metadata.TxnResult{}, err
	}
	mu.Lock()
	defer mu.Unlock()
	return res, nil
}

// Grant implements metadata.KV.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (id metadata.LeaseID, err error) {
	granted := make(chan metadata.LeaseID, 1)
	err = c.do(ctx, Call{Op: "grant"}, func(s *Store) error {
		granted <- s.grantLocked(ttl)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return <-granted, nil
}

// Renew implements metadata.KV.
func (c *Client) Renew(ctx context.Context, id metadata.LeaseID) (time.Duration, error) {
	left := make(chan time.Duration, 1)
	err := c.do(ctx, Call{Op: "renew"}, func(s *Store) error {
		ttl, err := s.renewLocked(id)
		left <- ttl
		return err
	})
	if err != nil {
		return 0, err
	}
	return <-left, nil
}

// Revoke implements metadata.KV.
func (c *Client) Revoke(ctx context.Context, id metadata.LeaseID) error {
	return c.do(ctx, Call{Op: "revoke"}, func(s *Store) error {
		s.dropLeaseLocked(id)
		return nil
	})
}

// Compact implements metadata.Compactor.
func (c *Client) Compact(ctx context.Context, rev int64) error {
	return c.do(ctx, Call{Op: "compact"}, func(s *Store) error {
		s.compactLocked(min(rev, s.rev))
		return nil
	})
}

// Progress implements metadata.KV. It makes the watches of all clients report.
func (c *Client) Progress(ctx context.Context) error {
	return c.do(ctx, Call{Op: "progress"}, func(s *Store) error {
		s.progress++
		s.broadcastLocked()
		return nil
	})
}

// Close ends the client's watches and waits for them.
func (c *Client) Close() error {
	c.close()
	c.watches.Wait()
	return nil
}

// Watch implements metadata.KV. A paused client's watch delivers nothing.
func (c *Client) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	out := make(chan metadata.Events, 1)
	c.watches.Add(1)
	go func() {
		defer c.watches.Done()
		defer close(out)
		w := watch{client: c, prefix: prefix, next: max(from, 1), out: out}
		w.run(ctx)
	}()
	return out
}

type watch struct {
	client   *Client
	prefix   string
	next     int64 // the first revision not delivered
	progress int64
	out      chan<- metadata.Events
}

func (w *watch) run(ctx context.Context) {
	for {
		err := w.client.faults.wait(ctx, w.client.closing)
		if err == nil {
			err = w.client.store.faults.wait(ctx, w.client.closing)
		}
		if err != nil {
			w.end(ctx, err)
			return
		}
		events, changed := w.poll()
		if events.Err != nil {
			w.end(ctx, events.Err)
			return
		}
		out := w.out
		if events.Revision == 0 {
			out = nil
		}
		select {
		case out <- events:
		case <-changed:
		case <-ctx.Done():
			w.end(ctx, ctx.Err())
			return
		case <-w.client.closing.Done():
			w.end(ctx, metadata.ErrUnavailable)
			return
		}
	}
}

// poll returns what is to be delivered (revision 0: nothing). When something
// is, the channel it returns is nil.
func (w *watch) poll() (metadata.Events, <-chan struct{}) {
	s := w.client.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.next <= s.compacted {
		return metadata.Events{Err: metadata.ErrCompacted}, nil
	}
	var events metadata.Events
	for _, ev := range s.history[s.historyFromLocked(w.next):] {
		if strings.HasPrefix(ev.Entry.Key, w.prefix) {
			events.Events = append(events.Events, ev)
			events.Revision = ev.Entry.ModRevision
		}
	}
	w.next = max(w.next, s.rev+1)
	if len(events.Events) > 0 {
		return events, nil
	}
	if w.progress != s.progress {
		w.progress = s.progress
		return metadata.Events{Revision: s.rev}, nil
	}
	return metadata.Events{}, s.changed
}

// end delivers the last Events. A receiver whose context is done may be gone.
func (w *watch) end(ctx context.Context, err error) {
	if ctx.Err() != nil {
		select {
		case w.out <- metadata.Events{Err: ctx.Err()}:
		default:
		}
		return
	}
	select {
	case w.out <- metadata.Events{Err: err}:
	case <-ctx.Done():
	case <-w.client.closing.Done():
	}
}
