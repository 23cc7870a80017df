package coordinator

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/metadata"
)

// verifier reads the revisions of shard keys for requests that must not be
// answered by a coordinator that was replaced. A read serves every request that
// came before it began; those that come later share the next one.
type verifier struct {
	c *Coordinator

	mu      sync.Mutex
	next    *verification // not begun; nil when nobody waits
	running bool
}

// verification is one read for the requests that share it.
type verification struct {
	shards map[int]struct{}
	// revs and err are set before done is closed.
	revs map[int]int64
	err  error
	done chan struct{}
}

// revisions reads the shards' key revisions, in a read that begins after the call.
func (v *verifier) revisions(ctx context.Context, shards []int) (map[int]int64, error) {
	v.mu.Lock()
	if v.next == nil {
		v.next = &verification{shards: map[int]struct{}{}, done: make(chan struct{})}
	}
	mine := v.next
	for _, s := range shards {
		mine.shards[s] = struct{}{}
	}
	if !v.running {
		v.running = v.c.spawn(v.run)
		if !v.running {
			v.next = nil
			v.mu.Unlock()
			return nil, errFenced
		}
	}
	v.mu.Unlock()
	select {
	case <-mine.done:
		return mine.revs, mine.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run reads for as long as requests wait.
func (v *verifier) run() {
	for {
		v.mu.Lock()
		round := v.next
		v.next = nil
		if round == nil {
			v.running = false
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		round.revs, round.err = v.read(round.shards)
		close(round.done)
	}
}

func (v *verifier) read(shards map[int]struct{}) (map[int]int64, error) {
	v.c.metrics.verifyRounds.Inc()
	ids := make([]int, 0, len(shards))
	keys := make([]string, 0, len(shards))
	for s := range shards {
		ids = append(ids, s)
		keys = append(keys, metadata.CoordinatorKey(s))
	}
	ctx, cancel := v.c.writeContext()
	defer cancel()
	for attempt := 0; ; attempt++ {
		attemptCtx, cancelAttempt := context.WithTimeout(ctx, v.c.cfg.AttemptTimeout)
		entries, _, err := v.c.cfg.KV.Get(attemptCtx, keys...)
		cancelAttempt()
		if err == nil {
			revs := make(map[int]int64, len(ids))
			for i, e := range entries {
				revs[ids[i]] = e.ModRevision
			}
			return revs, nil
		}
		if !pause(ctx, attempt) {
			return nil, fmt.Errorf("read shard keys: %w", err)
		}
	}
}

// verify makes sure that the shards are still ours, and returns an error for
// each that is not. It says nothing of shards that are not active.
func (c *Coordinator) verify(ctx context.Context, shards []int) map[int]*kerr.Error {
	type loadedAs struct {
		term uint64
		rev  int64
	}
	as := map[int]loadedAs{}
	var active []int
	for _, id := range shards {
		sh := &c.shards[id]
		sh.mu.Lock()
		if _, seen := as[id]; !seen && sh.serving() == nil {
			as[id] = loadedAs{term: sh.term, rev: sh.rev}
			active = append(active, id)
		}
		sh.mu.Unlock()
	}
	errs := map[int]*kerr.Error{}
	if len(active) == 0 {
		return errs
	}
	revs, err := c.verifier.revisions(ctx, active)
	for _, id := range active {
		switch {
		case err != nil:
			errs[id] = kerr.CoordinatorNotAvailable
		case revs[id] != as[id].rev:
			errs[id] = kerr.NotCoordinator
			c.shards[id].lose(as[id].term)
		default:
			errs[id] = nil
		}
	}
	return errs
}
