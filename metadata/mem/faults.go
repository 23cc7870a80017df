package mem

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

var (
	errInjected = errors.New("injected fault")
	errClosed   = errors.New("client closed")
)

// Call describes a call that a fault may hit. Op is get, range, txn, grant,
// renew, revoke, compact or progress.
type Call struct {
	Op   string
	Keys []string
	Txn  metadata.Txn
}

// Writes reports whether the call may change the store.
func (c Call) Writes() bool {
	return c.Op == "txn" && len(c.Txn.Then) > 0 || c.Op == "grant" || c.Op == "revoke"
}

type faultKind int

const (
	proceed faultKind = iota
	failBefore
	failAfter
	late
)

// Fault is what happens to a call.
type Fault struct {
	kind  faultKind
	delay time.Duration
}

// FailBefore answers ErrUnavailable and applies nothing.
func FailBefore() Fault { return Fault{kind: failBefore} }

// FailAfter applies the call and then answers ErrUnavailable: the lie.
func FailAfter() Fault { return Fault{kind: failAfter} }

// FailLate answers ErrUnavailable and applies the call, if it writes, after
// delay.
func FailLate(delay time.Duration) Fault { return Fault{kind: late, delay: delay} }

// faults of a store or a client. The zero value has none.
type faults struct {
	mu sync.Mutex
	// paused is closed when the pause ends; nil when there is none.
	paused      chan struct{}
	unavailable bool
	inject      func(Call) (Fault, bool)
}

// wait returns once calls may go on.
func (f *faults) wait(ctx, closing context.Context) error {
	for {
		f.mu.Lock()
		paused, down := f.paused, f.unavailable
		f.mu.Unlock()
		switch {
		case closing.Err() != nil:
			return unavailable(errClosed)
		case down:
			return unavailable(errInjected)
		case paused == nil:
			return nil
		}
		select {
		case <-paused:
		case <-ctx.Done():
			return unavailable(ctx.Err())
		case <-closing.Done():
		}
	}
}

func (f *faults) next(call Call) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inject == nil {
		return Fault{}
	}
	fault, ok := f.inject(call)
	if !ok {
		return Fault{}
	}
	return fault
}

func (f *faults) pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused == nil {
		f.paused = make(chan struct{})
	}
}

func (f *faults) resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused != nil {
		close(f.paused)
		f.paused = nil
	}
}

func (f *faults) setUnavailable(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unavailable = down
}

func (f *faults) setInject(inject func(Call) (Fault, bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inject = inject
}

// nth returns an injection that hits the next n writing transactions.
func nth(n int, fault Fault) func(Call) (Fault, bool) {
	return func(c Call) (Fault, bool) {
		if n <= 0 || c.Op != "txn" || !c.Writes() {
			return Fault{}, false
		}
		n--
		return fault, true
	}
}

// Pause makes the calls of every client hang until Resume or their deadline,
// while leases go on lapsing.
func (s *Store) Pause() { s.faults.pause() }

// Resume ends a pause.
func (s *Store) Resume() { s.faults.resume() }

// SetUnavailable makes the calls of every client fail at once, applied nowhere.
func (s *Store) SetUnavailable(down bool) { s.faults.setUnavailable(down) }

// Pause makes the client's calls hang until Resume or their deadline.
func (c *Client) Pause() { c.faults.pause() }

// Resume ends a pause.
func (c *Client) Resume() { c.faults.resume() }

// SetUnavailable makes the client's calls fail at once, and ends its watches at
// their next change.
func (c *Client) SetUnavailable(down bool) { c.faults.setUnavailable(down) }

// Inject has f decide about each of the client's calls; nil ends that. f is not
// called concurrently.
func (c *Client) Inject(f func(Call) (Fault, bool)) { c.faults.setInject(f) }

// FailAfter makes the next n writing transactions of the client apply and then
// answer ErrUnavailable.
func (c *Client) FailAfter(n int) { c.Inject(nth(n, FailAfter())) }

// FailBefore makes the next n writing transactions of the client answer
// ErrUnavailable without being applied.
func (c *Client) FailBefore(n int) { c.Inject(nth(n, FailBefore())) }

// FailLate makes the next n writing transactions of the client answer
// ErrUnavailable and be applied after delay.
func (c *Client) FailLate(n int, delay time.Duration) { c.Inject(nth(n, FailLate(delay))) }
