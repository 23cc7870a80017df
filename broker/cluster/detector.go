package cluster

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/broker/cluster/peer"
	"github.com/tidemark-io/tidemark/metadata"
)

const (
	// forgetAfter is how long a dead peer is remembered, so that a controller
	// elected after it died still finds it.
	forgetAfter = 10 * time.Second
	// reattendMin and reattendMax bound the pause between attempts to attend.
	reattendMin = 100 * time.Millisecond
	reattendMax = time.Second
	// sealedMax bounds the memory of sealed incarnations; the oldest go first.
	sealedMax = 4096
)

// detector keeps a connection to every registered peer, probes those that give
// cause, and holds the verdicts.
type detector struct {
	self    metadata.Incarnation
	view    View
	net     network
	log     *slog.Logger
	metrics *metrics
	changed signal // a verdict may have changed

	// mu guards what follows; it is not held while connecting or probing.
	mu     sync.Mutex
	peers  map[metadata.Incarnation]*watched
	sealed map[metadata.Incarnation]struct{}
	wg     sync.WaitGroup
}

// watched is a peer and the goroutines that watch it.
type watched struct {
	suspicion
	last      verdict   // as last logged
	lastSince time.Time // when last changed
	kick      chan struct{}
	stop      context.CancelFunc
}

func newDetector(self metadata.Incarnation, v View, n network, log *slog.Logger, m *metrics) *detector {
	return &detector{
		self: self, view: v, net: n, log: log, metrics: m,
		peers:  make(map[metadata.Incarnation]*watched),
		sealed: make(map[metadata.Incarnation]struct{}),
	}
}

// run follows the view until ctx is done, then waits for its goroutines.
func (d *detector) run(ctx context.Context) error {
	defer d.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed, unsubscribe := d.view.Subscribe()
	defer unsubscribe()
	for {
		next := d.sync(ctx, time.Now())
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// sync takes over the view's brokers, drops what is done with, and returns how
// long until it has to be called again although the view did not change.
func (d *detector) sync(ctx context.Context, now time.Time) time.Duration {
	brokers := d.view.Brokers()
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := make(map[metadata.Incarnation]bool, len(brokers))
	for _, b := range brokers {
		if b.Incarnation == d.self {
			continue
		}
		seen[b.Incarnation] = true
		w := d.peers[b.Incarnation]
		if w == nil {
			w = d.watchLocked(ctx, b)
		}
		w.register(b, now)
		poke(w.kick)
	}
	next := time.Hour
	for inc, w := range d.peers {
		if !seen[inc] {
			w.vanish(now)
			poke(w.kick)
		}
		d.noteLocked(inc, w, now)
		if done, wait := w.finished(now); done {
			w.stop()
			delete(d.peers, inc)
			d.net.Forget(inc)
		} else if wait > 0 {
			next = min(next, wait)
		}
		if at, ok := w.nextChange(now); ok {
			next = min(next, max(0, at.Sub(now)))
		}
	}
	return next
}

// finished reports whether the peer can be forgotten, or how long until then.
func (w *watched) finished(now time.Time) (bool, time.Duration) {
	if w.registered || w.last != dead && w.last != condemned {
		return false, 0
	}
	wait := w.lastSince.Add(forgetAfter).Sub(now)
	return wait <= 0, wait
}

func (d *detector) watchLocked(ctx context.Context, b metadata.Broker) *watched {
	ctx, cancel := context.WithCancel(ctx)
	w := &watched{kick: make(chan struct{}, 1), stop: cancel}
	_, w.condemned = d.sealed[b.Incarnation]
	d.peers[b.Incarnation] = w
	d.wg.Add(2)
	go func() { defer d.wg.Done(); d.attend(ctx, b.Incarnation, w) }()
	go func() { defer d.wg.Done(); d.probe(ctx, b.Incarnation, w) }()
	return w
}

// noteLocked logs and counts a verdict that changed, and tells subscribers.
func (d *detector) noteLocked(inc metadata.Incarnation, w *watched, now time.Time) {
	v := w.verdict(now)
	if v == w.last {
		return
	}
	if v == suspect || v == dead || v == stuck {
		d.metrics.suspicions.WithLabelValues(v.String()).Inc()
	}
	d.log.Info("peer's standing changed", keyPeer, inc, keyBroker, w.broker.ID, keyFrom, w.last.String(), keyTo, v.String())
	w.last, w.lastSince = v, now
	d.changed.notify()
}

// event applies evidence about a peer.
func (d *detector) event(inc metadata.Incarnation, w *watched, apply func(s *suspicion, now time.Time)) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	apply(&w.suspicion, now)
	d.noteLocked(inc, w, now)
	poke(w.kick)
}

func (d *detector) addr(w *watched) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return w.broker.Peer
}

// attend holds a stream open to the peer for as long as it is watched.
func (d *detector) attend(ctx context.Context, inc metadata.Incarnation, w *watched) {
	pause := reattendMin
	for ctx.Err() == nil {
		err := d.net.Attend(ctx, inc, d.addr(w), func() {
			pause = reattendMin
			d.event(inc, w, func(s *suspicion, _ time.Time) { s.connected() })
		})
		if ctx.Err() != nil {
			return
		}
		d.event(inc, w, func(s *suspicion, _ time.Time) {
			s.disconnected()
			if d.judge(inc, err) == newer {
				s.replaced()
			}
		})
		sleep(ctx, jittered(pause))
		pause = min(2*pause, reattendMax)
	}
}

// Who answered in place of a peer.
const (
	nobody = iota
	newer  // a later process at its address, such as this one: the peer is gone
	older  // an earlier one: the address is wrong
)

func (d *detector) judge(inc metadata.Incarnation, err error) int {
	var wrong *peer.WrongIncarnationError
	switch {
	case !errors.As(err, &wrong):
		return nobody
	case wrong.Got < inc:
		return older
	}
	return newer
}

// probe asks the peer whenever its suspicion wants to know.
func (d *detector) probe(ctx context.Context, inc metadata.Incarnation, w *watched) {
	for {
		d.mu.Lock()
		now := time.Now()
		at, want := w.nextProbe(now)
		d.mu.Unlock()
		if want && !at.After(now) {
			d.probeOnce(ctx, inc, w)
			if ctx.Err() != nil {
				return
			}
			continue
		}
		var due <-chan time.Time
		timer := time.NewTimer(at.Sub(now))
		if want {
			due = timer.C
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-w.kick:
		case <-due:
		}
		timer.Stop()
	}
}

func (d *detector) probeOnce(ctx context.Context, inc metadata.Incarnation, w *watched) {
	begun := time.Now()
	pctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	st, err := d.net.Probe(pctx, inc, d.addr(w))
	if ctx.Err() != nil {
		return
	}
	d.event(inc, w, func(s *suspicion, now time.Time) {
		if err == nil {
			s.answered(st, now)
			return
		}
		s.silent(begun)
		misrouted := d.judge(inc, err) == older
		if misrouted && !s.misrouted {
			d.log.Error("the peer address of a broker leads elsewhere", keyPeer, inc, keyBroker, s.broker.ID, keyAddress, s.broker.Peer, keyError, err)
		}
		s.misrouted = misrouted
	})
}

// condemn marks a peer whose sealing begins.
func (d *detector) condemn(inc metadata.Incarnation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.peers[inc]; w != nil {
		w.condemned = true
		d.noteLocked(inc, w, time.Now())
	}
}

// markSealed remembers that a chain is sealed: should its broker ever appear
// again under that incarnation, it is not trusted with anything.
func (d *detector) markSealed(inc metadata.Incarnation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sealed[inc] = struct{}{}
	for len(d.sealed) > sealedMax {
		oldest := inc
		for i := range d.sealed {
			oldest = min(oldest, i)
		}
		delete(d.sealed, oldest)
	}
}

// standings lists the peers with their verdicts, by incarnation.
func (d *detector) standings() []standing {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	out := make([]standing, 0, len(d.peers))
	for inc, w := range d.peers {
		out = append(out, standing{incarnation: inc, verdict: w.verdict(now), failing: w.broker.BucketFailing})
	}
	slices.SortFunc(out, func(a, b standing) int { return cmp.Compare(a.incarnation, b.incarnation) })
	return out
}

// lookup returns where a peer is reached and what is held of it.
func (d *detector) lookup(inc metadata.Incarnation) (addr string, v verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.peers[inc]; w != nil {
		return w.broker.Peer, w.verdict(time.Now())
	}
	return "", unknown
}
