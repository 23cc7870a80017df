package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
)

// lead claims and opens partitions that share a predecessor.
func (l *leadership) lead(ctx context.Context, pred metadata.Incarnation, tps []metadata.TopicPartition) {
	defer func() {
		l.mu.Lock()
		delete(l.groups, pred)
		l.mu.Unlock()
	}()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	l.claim(ctx, tps)
	requests := l.claimed(tps)
	if len(requests) == 0 || ctx.Err() != nil {
		return
	}
	opened := 0
	errs := l.open(ctx, requests)
	var failed failures
	defer func() { failed.report(l.n) }()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range requests {
		h, epoch := l.parts[r.Partition], r.Owners[len(r.Owners)-1].Epoch
		err := errs[r.Partition]
		switch {
		case h.state != claimed || h.epoch != epoch: // asked to give it up meanwhile
		case err == nil:
			h.state, h.failures = leading, 0
			opened++
		default:
			h.postpone()
			failed.add(r.Partition, err)
		}
	}
	if opened > 0 {
		l.n.metrics.leadershipChanges.WithLabelValues("open").Add(float64(opened))
		l.n.log.Info("leading partitions", keyCount, opened, keyFrom, pred, keyDuration, time.Since(begun))
	}
}

// open has the log open what is claimed, once the newest of the claims has a
// witness: a metadata store that has forgotten it will be noticed.
func (l *leadership) open(ctx context.Context, requests []tiering.LeadRequest) map[metadata.TopicPartition]error {
	if l.n.cfg.Witness != nil {
		key, rev := l.newest(requests)
		if err := l.n.cfg.Witness(ctx, key, rev); err != nil {
			errs := make(map[metadata.TopicPartition]error, len(requests))
			for _, r := range requests {
				errs[r.Partition] = err
			}
			return errs
		}
	}
	return l.n.cfg.Log.Lead(ctx, requests)
}

// newest returns the key and revision of the newest claim.
func (l *leadership) newest(requests []tiering.LeadRequest) (key string, rev int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range requests {
		if h := l.parts[r.Partition]; h.rev > rev {
			key, rev = metadata.PartitionKey(r.Partition), h.rev
		}
	}
	return key, rev
}

// claim appends this broker to the owner lists of those partitions that are not
// claimed yet. Their holdings tell afterwards which are.
func (l *leadership) claim(ctx context.Context, tps []metadata.TopicPartition) {
	var asks []metadata.ClaimRequest
	l.mu.Lock()
	for _, tp := range tps {
		if l.parts[tp].state == claimed {
			continue
		}
		if p, rev, ok := l.n.cfg.View.PartitionEntry(tp); ok {
			asks = append(asks, metadata.ClaimRequest{TP: tp, Partition: *p, ModRevision: rev})
		}
	}
	l.mu.Unlock()
	if len(asks) == 0 {
		return
	}
	results := l.ask(ctx, asks)
	var failed failures
	defer func() { failed.report(l.n) }()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range results {
		h := l.parts[r.TP]
		if r.Err != nil {
			h.postpone()
			failed.add(r.TP, r.Err)
			continue
		}
		h.owners, h.epoch, h.rev = r.Owners, r.Owners[len(r.Owners)-1].Epoch, r.ModRevision
		h.state, h.durable = claimed, false
		if rel := l.releases[tiering.Claim{Partition: r.TP, Epoch: h.epoch}]; rel != nil {
			h.state = rel.state() // asked to give it up before the answer to the claim came
		}
	}
}

// ask sends the claims. Without an answer they may have been made; they are made
// anew then, with a newer epoch.
func (l *leadership) ask(ctx context.Context, asks []metadata.ClaimRequest) []metadata.Claimed {
	err := failpoint.Hit(failpoint.BeforeClaim)
	if err == nil {
		results := metadata.ClaimPartitions(ctx, l.n.cfg.KV, l.n.cfg.Incarnation, asks)
		if err = failpoint.Hit(failpoint.AfterClaim); err == nil {
			return results
		}
	}
	unanswered := make([]metadata.Claimed, len(asks))
	for i := range asks {
		unanswered[i] = metadata.Claimed{TP: asks[i].TP, Err: fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)}
	}
	return unanswered
}

// claimed builds the log's requests for those partitions that are claimed.
func (l *leadership) claimed(tps []metadata.TopicPartition) []tiering.LeadRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []tiering.LeadRequest
	for _, tp := range tps {
		if h := l.parts[tp]; h.state == claimed {
			out = append(out, tiering.LeadRequest{Partition: tp, Owners: h.owners})
		}
	}
	return out
}

// postpone schedules another attempt.
func (h *holding) postpone() {
	h.failures++
	h.retryAt = time.Now().Add(retryDelay(h.failures))
}

// failures gathers what went wrong with the partitions of one attempt, so that
// thousands with one cause are one line of the log.
type failures struct {
	count   int
	example metadata.TopicPartition
	err     error // of example
}

// add counts a failure. That the controller changed its mind, or the topic is
// gone, is nothing to complain about: the view will show it.
func (f *failures) add(tp metadata.TopicPartition, err error) {
	if errors.Is(err, metadata.ErrNotPreferred) || errors.Is(err, metadata.ErrUnknownPartition) {
		return
	}
	if f.count == 0 {
		f.example, f.err = tp, err
	}
	f.count++
}

func (f *failures) report(n *Node) {
	if f.count == 0 {
		return
	}
	n.metrics.leadFailures.Add(float64(f.count))
	n.log.Warn("partitions not led yet", keyCount, f.count, keyPartition, f.example.String(), keyError, f.err)
}

// trim drops the owner entries of predecessors nobody needs any more.
func (l *leadership) trim(ctx context.Context, entries []metadata.OwnerEntry) {
	failed := false
	for _, r := range metadata.TrimOwners(ctx, l.n.cfg.KV, entries) {
		if r.Err != nil && !errors.Is(r.Err, metadata.ErrNotOwner) && !errors.Is(r.Err, metadata.ErrUnknownPartition) {
			failed = true
		}
	}
	if failed {
		// Entries that stay a little longer cost a successor a longer walk.
		l.n.log.Debug("owner lists not trimmed")
	}
	// The view shows the shorter lists in a moment; looking before that would
	// trim them once more. What fails is tried again ever more rarely.
	pause := retryMin
	l.mu.Lock()
	if failed {
		l.trimFailures++
		pause = retryDelay(l.trimFailures)
	} else {
		l.trimFailures = 0
	}
	l.mu.Unlock()
	sleep(ctx, pause)
	l.mu.Lock()
	l.trimming = false
	l.mu.Unlock()
}
