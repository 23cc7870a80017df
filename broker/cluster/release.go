package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

const (
	// releaseTimeout bounds a release; it goes on when the peer that asked for
	// it has hung up, because appends have stopped by then.
	releaseTimeout = 10 * time.Second
	// releaseKept is the least time an answer is kept for a peer that asks again.
	releaseKept = time.Minute
)

// release is one claim that is being given up, or has been.
type release struct {
	done  chan struct{} // closed when slot and err are set
	slot  uint64
	err   error
	since time.Time
	// rev is a revision of the store at which the claim was in the owner list: a
	// view that is older says nothing about whether the entry is gone.
	rev int64
}

// relinquished is a claim to release, with such a revision.
type relinquished struct {
	tiering.Claim
	rev int64
}

var errNotReleased = errors.New("the log did not release the partition")

// Release gives up claims of this broker on behalf of a peer. Those that are
// not this broker's, and those that could not be released, are left out. So are
// those that the end of the chain gave up: the peer finds it recorded.
func (l *leadership) Release(ctx context.Context, from metadata.Incarnation, claims []tiering.Claim) ([]tiering.Released, error) {
	ours, err := l.ours(ctx, claims)
	if err != nil {
		return nil, err
	}
	done, err := l.release(ctx, ours)
	if len(done) > 0 {
		l.n.log.Info("released partitions", keyCount, len(done), keyTo, from)
	}
	if len(done) == 0 && err != nil && !errors.Is(err, tiering.ErrClosed) {
		return nil, err
	}
	return done, nil
}

// ours picks the claims that are this broker's: those it knows of, and those
// that the store lists, because a peer may learn of a claim before the broker
// that made it has its answer.
func (l *leadership) ours(ctx context.Context, claims []tiering.Claim) ([]relinquished, error) {
	var out []relinquished
	var ask []tiering.Claim
	l.mu.Lock()
	for _, c := range claims {
		h, r := l.parts[c.Partition], l.releases[c]
		switch {
		case r != nil:
			out = append(out, relinquished{c, r.rev})
		case h != nil && h.has() && h.epoch == c.Epoch:
			out = append(out, relinquished{c, h.rev})
		default:
			ask = append(ask, c)
		}
	}
	l.mu.Unlock()
	for chunk := range slices.Chunk(ask, metadata.MaxTxnOps) {
		keys := make([]string, len(chunk))
		for i, c := range chunk {
			keys[i] = metadata.PartitionKey(c.Partition)
		}
		entries, rev, err := l.n.cfg.KV.Get(ctx, keys...)
		if err != nil {
			return nil, fmt.Errorf("look up claims: %w", err)
		}
		for i, e := range entries {
			p, err := decodeEntry[metadata.Partition](e)
			if err == nil && slices.Contains(p.Owners, metadata.Owner{Incarnation: l.n.cfg.Incarnation, Epoch: chunk[i].Epoch}) {
				out = append(out, relinquished{chunk[i], rev})
			}
		}
	}
	return out, nil
}

// release has the log give claims up, once for all who ask, and waits. It
// returns those whose RELEASE is committed; err tells about the others.
func (l *leadership) release(ctx context.Context, claims []relinquished) ([]tiering.Released, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	waits := make([]*release, len(claims))
	var begin []tiering.Claim
	var begun []*release
	l.mu.Lock()
	for i, c := range claims {
		r := l.releases[c.Claim]
		if r == nil || r.failed() {
			r = &release{done: make(chan struct{}), since: time.Now(), rev: c.rev}
			l.releases[c.Claim] = r
			begin, begun = append(begin, c.Claim), append(begun, r)
		}
		waits[i] = r
		if h := l.parts[c.Partition]; h != nil && h.epoch == c.Epoch {
			h.state = r.state()
		}
	}
	l.mu.Unlock()
	if len(begin) > 0 {
		l.perform(ctx, begin, begun)
	}
	var out []tiering.Released
	var errs error
	for i, r := range waits {
		<-r.done // within releaseTimeout of whoever performs it
		if r.err != nil {
			errs = r.err
			continue
		}
		out = append(out, tiering.Released{Claim: claims[i].Claim, Slot: r.slot})
	}
	return out, errs
}

// state is that of the holding whose claim is given up.
func (r *release) state() holdState {
	select {
	case <-r.done:
		if r.err == nil {
			return released
		}
	default:
	}
	return releasing
}

func (r *release) failed() bool {
	select {
	case <-r.done:
		return r.err != nil
	default:
		return false
	}
}

// perform calls the log for claims and settles their releases.
func (l *leadership) perform(ctx context.Context, claims []tiering.Claim, releases []*release) {
	got, err := l.n.cfg.Log.Release(ctx, claims)
	slots := make(map[tiering.Claim]uint64, len(got))
	for _, g := range got {
		slots[g.Claim] = g.Slot
	}
	if err == nil {
		err = errNotReleased
	}
	l.mu.Lock()
	for i, r := range releases {
		slot, ok := slots[claims[i]]
		if r.slot = slot; !ok {
			r.err = fmt.Errorf("release %s at epoch %d: %w", claims[i].Partition, claims[i].Epoch, err)
		}
		close(r.done)
		l.concludeLocked(claims[i], r)
	}
	l.mu.Unlock()
	l.n.metrics.leadershipChanges.WithLabelValues("release").Add(float64(len(got)))
	l.settled.notify()
}

// concludeLocked updates the holding of a claim whose release has ended. One
// that failed is tried again by reconcile: its RELEASE may be committed, so
// there is no way back.
func (l *leadership) concludeLocked(c tiering.Claim, r *release) {
	h := l.parts[c.Partition]
	if h == nil || h.epoch != c.Epoch {
		return
	}
	h.state = r.state()
	if r.err == nil {
		h.failures, h.retryAt = 0, time.Time{}
		return
	}
	h.failures++
	h.retryAt = time.Now().Add(retryDelay(h.failures))
}

// giveUp releases what others have claimed since, or whose topic is gone.
func (l *leadership) giveUp(ctx context.Context, claims []relinquished) {
	if _, err := l.release(ctx, claims); err != nil && ctx.Err() == nil && !errors.Is(err, tiering.ErrClosed) {
		l.n.log.Warn("partitions not released yet", keyCount, len(claims), keyError, err)
	}
}

// forgetReleasesLocked drops answers that no peer can ask for any more, those
// whose entry is gone from the owner list, and returns their claims.
func (l *leadership) forgetReleasesLocked(now time.Time) []tiering.Claim {
	var gone []tiering.Claim
	shown := l.n.cfg.View.Revision()
	for c, r := range l.releases {
		if now.Sub(r.since) < releaseKept || r.rev > shown || r.state() == releasing && !r.failed() {
			continue
		}
		p, _, ok := l.n.cfg.View.PartitionEntry(c.Partition)
		if !ok || !slices.Contains(p.Owners, metadata.Owner{Incarnation: l.n.cfg.Incarnation, Epoch: c.Epoch}) {
			delete(l.releases, c)
			gone = append(gone, c)
		}
	}
	return gone
}
