package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// fakeBucket holds the chains of a fake log: append until sealed, nothing else.
// It checks the rule that everything rests on: a partition is opened only when
// every earlier claim that was opened is closed.
type fakeBucket struct {
	t     *testing.T
	mu    sync.Mutex
	chain map[metadata.Incarnation]*fakeChain
	down  bool
}

type fakeChain struct {
	slots    []string
	ended    bool
	opened   map[tiering.Claim]bool
	released map[tiering.Claim]uint64
}

const putTime = 20 * time.Millisecond

var errFakeFenced = fmt.Errorf("fake log: %w", tiering.ErrFenced)

func newFakeBucket(t *testing.T) *fakeBucket {
	return &fakeBucket{t: t, chain: make(map[metadata.Incarnation]*fakeChain)}
}

// put appends a record to a chain after the time a PUT takes.
func (b *fakeBucket) put(ctx context.Context, inc metadata.Incarnation, f func(c *fakeChain, slot uint64)) error {
	sleep(ctx, putTime)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch c := b.chain[inc]; {
	case ctx.Err() != nil:
		return ctx.Err()
	case b.down:
		return tiering.ErrStoreUnavailable
	case c.ended:
		return errFakeFenced
	default:
		c.slots = append(c.slots, "")
		f(c, uint64(len(c.slots)-1))
	}
	return nil
}

func (b *fakeBucket) closedLocked(o metadata.Owner, tp metadata.TopicPartition) bool {
	c := b.chain[o.Incarnation]
	_, rel := c.released[tiering.Claim{Partition: tp, Epoch: o.Epoch}]
	return c.ended || rel
}

// leaders lists the incarnations whose open claim of tp is not closed.
func (b *fakeBucket) leaders(tp metadata.TopicPartition) []metadata.Incarnation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leadersLocked(tp)
}

func (b *fakeBucket) leadersLocked(tp metadata.TopicPartition) []metadata.Incarnation {
	var out []metadata.Incarnation
	for inc, c := range b.chain {
		for claim := range c.opened {
			if claim.Partition == tp && !b.closedLocked(metadata.Owner{Incarnation: inc, Epoch: claim.Epoch}, tp) {
				out = append(out, inc)
			}
		}
	}
	return out
}

// fakeLog is one broker's log over a fakeBucket.
type fakeLog struct {
	inc    metadata.Incarnation
	kv     metadata.KV
	bucket *fakeBucket
	peers  tiering.Peers // set before use

	mu         sync.Mutex
	gaveUp     map[tiering.Claim]bool
	checkpoint func([]tiering.Claim)
	hung       bool // Close does not get anywhere
	closing    bool
	stuckSince time.Time
	done       chan struct{}
	once       sync.Once
	seals      []metadata.Incarnation
	asked      int // releases asked of peers
}

func newFakeLog(b *fakeBucket, kv metadata.KV, inc metadata.Incarnation) *fakeLog {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.chain[inc] = &fakeChain{opened: make(map[tiering.Claim]bool), released: make(map[tiering.Claim]uint64)}
	return &fakeLog{inc: inc, kv: kv, bucket: b, gaveUp: make(map[tiering.Claim]bool), done: make(chan struct{})}
}

func (l *fakeLog) over() { l.once.Do(func() { close(l.done) }) }

func (l *fakeLog) Done() <-chan struct{} { return l.done }

func (l *fakeLog) OnCheckpoint(f func([]tiering.Claim)) { l.checkpoint = f }

func (l *fakeLog) Forget([]tiering.Claim) {}

func (l *fakeLog) Drop(tp metadata.TopicPartition) {
	l.bucket.mu.Lock()
	defer l.bucket.mu.Unlock()
	for c := range l.bucket.chain[l.inc].opened {
		if c.Partition == tp {
			delete(l.bucket.chain[l.inc].opened, c)
		}
	}
}

func (l *fakeLog) StuckSince() (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stuckSince, !l.stuckSince.IsZero()
}

func (l *fakeLog) BucketFailing() bool {
	since, stuck := l.StuckSince()
	return stuck && time.Since(since) > 2*time.Second
}

func (l *fakeLog) stick(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stuckSince = since
}

func (l *fakeLog) Seal(ctx context.Context, inc metadata.Incarnation) (uint64, error) {
	l.mu.Lock()
	l.seals = append(l.seals, inc)
	l.mu.Unlock()
	sleep(ctx, 2*putTime)
	l.bucket.mu.Lock()
	if l.bucket.down || l.bucket.chain[inc] == nil {
		l.bucket.mu.Unlock()
		return 0, tiering.ErrStoreUnavailable
	}
	c := l.bucket.chain[inc]
	c.ended = true
	end := uint64(len(c.slots))
	l.bucket.mu.Unlock()
	return metadata.RecordEnd(ctx, l.kv, inc, end)
}

func (l *fakeLog) Lead(ctx context.Context, requests []tiering.LeadRequest) map[metadata.TopicPartition]error {
	errs := make(map[metadata.TopicPartition]error)
	asked := make(map[metadata.Incarnation]bool)
	for _, r := range requests {
		if err := l.closeOthers(ctx, r, requests, asked); err != nil {
			errs[r.Partition] = err
		}
	}
	err := l.bucket.put(ctx, l.inc, func(c *fakeChain, _ uint64) {
		for _, r := range requests {
			claim := tiering.Claim{Partition: r.Partition, Epoch: r.Owners[len(r.Owners)-1].Epoch}
			switch {
			case errs[r.Partition] != nil:
			case l.isGivenUp(claim):
				errs[r.Partition] = tiering.ErrNotLeader
			default:
				if others := l.bucket.leadersLocked(r.Partition); len(others) > 0 {
					l.bucket.t.Errorf("%s opens %v while %v lead", l.inc, claim, others)
				}
				c.opened[claim] = true
			}
		}
	})
	if err != nil {
		for _, r := range requests {
			errs[r.Partition] = err
		}
		l.fail(err)
	}
	return errs
}

func (l *fakeLog) fail(err error) {
	if err == errFakeFenced {
		l.over()
	}
}

func (l *fakeLog) isGivenUp(c tiering.Claim) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gaveUp[c]
}

// closeOthers walks back to the first entry that was opened, closing all it meets.
func (l *fakeLog) closeOthers(ctx context.Context, r tiering.LeadRequest, all []tiering.LeadRequest, asked map[metadata.Incarnation]bool) error {
	for i := len(r.Owners) - 2; i >= 0; i-- {
		o := r.Owners[i]
		claim := tiering.Claim{Partition: r.Partition, Epoch: o.Epoch}
		l.bucket.mu.Lock()
		closed, opened := l.bucket.closedLocked(o, r.Partition), l.bucket.chain[o.Incarnation].opened[claim]
		l.bucket.mu.Unlock()
		if o.Incarnation == l.inc {
			if opened && !closed {
				return fmt.Errorf("own claim %v is still open", claim)
			}
			closed = true
		}
		if !closed && !asked[o.Incarnation] {
			asked[o.Incarnation] = true
			l.ask(ctx, o.Incarnation, all)
		}
		l.bucket.mu.Lock()
		closed = closed || l.bucket.closedLocked(o, r.Partition)
		l.bucket.mu.Unlock()
		if !closed {
			if _, err := l.Seal(ctx, o.Incarnation); err != nil {
				return err
			}
		}
		if opened {
			break
		}
	}
	return nil
}

func (l *fakeLog) ask(ctx context.Context, inc metadata.Incarnation, all []tiering.LeadRequest) {
	var claims []tiering.Claim
	for _, r := range all {
		for _, o := range r.Owners[:len(r.Owners)-1] {
			if o.Incarnation == inc {
				claims = append(claims, tiering.Claim{Partition: r.Partition, Epoch: o.Epoch})
			}
		}
	}
	l.mu.Lock()
	l.asked++
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, _ = l.peers.AskRelease(ctx, inc, claims) // the bucket tells what came of it
}

func (l *fakeLog) Release(ctx context.Context, claims []tiering.Claim) ([]tiering.Released, error) {
	l.mu.Lock()
	for _, c := range claims {
		l.gaveUp[c] = true
	}
	closing := l.closing
	l.mu.Unlock()
	if closing {
		select {
		case <-l.done:
			return nil, tiering.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var out []tiering.Released
	err := l.bucket.put(ctx, l.inc, func(c *fakeChain, slot uint64) {
		for _, claim := range claims {
			if _, again := c.released[claim]; !again {
				c.released[claim] = slot
			}
			out = append(out, tiering.Released{Claim: claim, Slot: c.released[claim]})
		}
	})
	l.fail(err)
	return out, err
}

// hang has Close wait for as long as it may.
func (l *fakeLog) hang() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hung = true
}

func (l *fakeLog) Close(ctx context.Context) error {
	l.mu.Lock()
	hung := l.hung
	l.closing = true
	l.mu.Unlock()
	if hung {
		<-ctx.Done()
		return ctx.Err()
	}
	err := l.bucket.put(ctx, l.inc, func(c *fakeChain, _ uint64) { c.ended = true })
	if err == nil {
		_, err = metadata.RecordEnd(ctx, l.kv, l.inc, 1)
	}
	l.over()
	return err
}

// produce appends to a partition as a producer's request would.
func (l *fakeLog) produce(tp metadata.TopicPartition) error {
	l.bucket.mu.Lock()
	defer l.bucket.mu.Unlock()
	c := l.bucket.chain[l.inc]
	if c.ended {
		l.over()
		return errFakeFenced
	}
	for claim := range c.opened {
		if _, rel := c.released[claim]; claim.Partition == tp && !rel {
			return nil
		}
	}
	return tiering.ErrNotLeader
}

// checkpointAll reports a durable checkpoint of everything open.
func (l *fakeLog) checkpointAll() {
	l.bucket.mu.Lock()
	var claims []tiering.Claim
	for c := range l.bucket.chain[l.inc].opened {
		claims = append(claims, c)
	}
	l.bucket.mu.Unlock()
	l.checkpoint(claims)
}

func (l *fakeLog) sealed() []metadata.Incarnation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seals)
}

func (b *fakeBucket) setDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}
