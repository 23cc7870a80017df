// Package audit checks a whole cluster from the outside: it walks the metadata
// store and the bucket and reports every invariant of the log that is broken. It
// writes nothing, to neither, and needs no broker; brokers may be running.
//
// What it walks, in this order:
//
//  1. chains: every head of every incarnation, from trim mark to end, or to the
//     first free slot while the chain is not sealed;
//  2. partitions: each is rebuilt as the next leader would, by the same code
//     (tiering.Inspector), and every extent, every block of a segment, every batch
//     of it is read;
//  3. listings of w/, k/, s/, x/ and m/: objects that nothing accounts for are
//     strays, those of deleted topics are what deletion still owes.
//
// A live cluster moves while it is read, so nothing is reported on the strength
// of one look. Objects are immutable and slots are never freed: a damaged or
// missing one is read again, and a missing one counts only once something else
// proves that it was there (the recorded end, a recorded checkpoint, a later head
// that was written when the slot was acknowledged). What compares two places is
// read in the order that makes a mismatch impossible, the consequence before its
// cause, and a partition that does not fit is rebuilt afresh several times, with
// pauses, before it is reported. A stray is looked at again, with the chain's
// newest state, and counts as a problem only when it is older than the grace.
//
// Memory is bounded by what one broker holds, not by the length of the log:
// heads are read in windows, extents in flight are limited by count and bytes,
// and the states of a few chains are kept at a time.
package audit

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/object"
)

// Config says what to check, and how.
type Config struct {
	KV    metadata.KV
	Store object.Store
	// Quick checks heads and manifests only and reads no records.
	Quick bool
	// Topic restricts the partitions, and the manifest pages, to one topic.
	// Chains are always checked whole.
	Topic string
	// Grace is the age from which an object that nothing accounts for is a
	// problem rather than left over from a moment ago. Zero: any age.
	Grace time.Duration
	// SweepGrace is the same for segments and manifest pages: what a broker that
	// died was writing is left alone for a day before it is swept.
	SweepGrace time.Duration
	// Parallel bounds requests to the bucket at one time (default 16).
	Parallel int
	// Progress is called about every ProgressInterval (default 5 s) while the
	// audit runs; nil: not.
	Progress         func(Progress)
	ProgressInterval time.Duration
}

const (
	defaultParallel = 16
	defaultProgress = 5 * time.Second
	// extentBytesMax bounds the stored and inflated bytes in flight.
	extentBytesMax = 256 << 20
)

type auditor struct {
	cfg       Config
	kv        metadata.KV
	store     object.Store
	inspector *tiering.Inspector
	chains    *chains
	out       *collector
	now       func() time.Time

	requests *semaphore.Weighted // one a request to the bucket
	bytes    *semaphore.Weighted // of extents in flight

	topics map[metadata.TopicID]*metadata.Topic
	named  nameSet

	strange sync.Map // keys that were reported

	chainsSeen, chainsDone         atomic.Int64
	partitionsSeen, partitionsDone atomic.Int64
	slots, extents, bytesRead      atomic.Int64
}

// Run audits the cluster. An error means that the audit could not be done: a
// side that does not answer, or two sides that do not belong together. What is
// wrong with the cluster is in the report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if cfg.Parallel <= 0 {
		cfg.Parallel = defaultParallel
	}
	a := &auditor{
		cfg: cfg, kv: readOnlyKV{cfg.KV}, store: readOnlyStore{cfg.Store}, out: newCollector(), now: time.Now,
		requests: semaphore.NewWeighted(int64(cfg.Parallel)), bytes: semaphore.NewWeighted(extentBytesMax),
		topics: make(map[metadata.TopicID]*metadata.Topic),
	}
	a.named.init()
	begun := a.now()
	stop := a.reportProgress(ctx)
	err := a.run(ctx)
	stop()
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	r := a.out.report()
	r.Quick, r.Topic = cfg.Quick, cfg.Topic
	r.Seconds = a.now().Sub(begun).Seconds()
	return r, nil
}

func (a *auditor) run(ctx context.Context) error {
	if err := a.identify(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{a.walkChains, a.walkPartitions, a.walkBucket} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// walkChains checks every chain that has a key.
func (a *auditor) walkChains(ctx context.Context) error {
	incs, err := a.listChains(ctx)
	if err != nil {
		return err
	}
	return a.chains.advanceAll(ctx, incs)
}

// listChains returns the chains that have a key.
func (a *auditor) listChains(ctx context.Context) ([]metadata.Incarnation, error) {
	entries, _, err := a.kv.Range(ctx, metadata.PrefixChains)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	incs := make([]metadata.Incarnation, 0, len(entries))
	for _, e := range entries {
		name := strings.TrimPrefix(e.Key, metadata.PrefixChains)
		if strings.Contains(name, "/") {
			continue // what an heir still owes
		}
		inc, err := metadata.ParseIncarnation(name)
		if err != nil {
			a.strangeKey(e.Key)
			continue
		}
		incs = append(incs, inc)
	}
	a.chainsSeen.Store(int64(len(incs)))
	return incs, nil
}

// strangeKey reports, once, a key that is not that of a chain.
func (a *auditor) strangeKey(key string) {
	if _, said := a.strange.LoadOrStore(key, true); !said {
		a.out.problem(Problem{KindMetadata, key, "not the key of a chain"})
	}
}

// walkPartitions checks every partition, those of one chain together, so that
// the chain is replayed once.
func (a *auditor) walkPartitions(ctx context.Context) error {
	if err := a.loadTopics(ctx); err != nil {
		return err
	}
	entries, _, err := a.kv.Range(ctx, metadata.PrefixPartitions)
	if err != nil {
		return fmt.Errorf("list partitions: %w", err)
	}
	type target struct {
		tp     metadata.TopicPartition
		newest metadata.Owner
	}
	var targets []target
	for _, e := range entries {
		tp, err := metadata.ParsePartitionKey(e.Key)
		var p metadata.Partition
		if err == nil {
			err = json.Unmarshal(e.Value, &p)
		}
		if err != nil {
			a.out.problem(Problem{KindMetadata, e.Key, err.Error()})
			continue
		}
		if a.cfg.Topic == "" || a.topicName(tp.Topic) == a.cfg.Topic {
			newest, _ := p.Newest()
			targets = append(targets, target{tp, newest})
		}
	}
	if a.cfg.Topic != "" && len(targets) == 0 {
		return fmt.Errorf("no topic %q", a.cfg.Topic)
	}
	slices.SortStableFunc(targets, func(x, y target) int { return cmp.Compare(x.newest.Incarnation, y.newest.Incarnation) })
	a.partitionsSeen.Store(int64(len(targets)))
	var g errgroup.Group
	g.SetLimit(max(1, a.cfg.Parallel/2))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, t := range targets {
		g.Go(func() error {
			err := a.checkPartition(ctx, t.tp)
			a.partitionsDone.Add(1)
			if err != nil {
				cancel(err)
			}
			return err
		})
	}
	return first(ctx, g.Wait())
}

// first prefers the error that ended a group over those it caused.
func first(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (a *auditor) loadTopics(ctx context.Context) error {
	entries, _, err := a.kv.Range(ctx, metadata.PrefixTopics)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	for _, e := range entries {
		var t metadata.Topic
		if err := json.Unmarshal(e.Value, &t); err != nil {
			a.out.problem(Problem{KindMetadata, e.Key, err.Error()})
			continue
		}
		a.topics[t.ID] = &t
	}
	return nil
}

// topicName is the name of a topic, its id where it has none.
func (a *auditor) topicName(id metadata.TopicID) string {
	if t := a.topics[id]; t != nil {
		return t.Name
	}
	return id.String()
}

func (a *auditor) partitionName(tp metadata.TopicPartition) string {
	return fmt.Sprintf("%s-%d", a.topicName(tp.Topic), tp.Partition)
}

// partition reads the key of a partition; false when there is none (any more).
func (a *auditor) partition(ctx context.Context, tp metadata.TopicPartition) (metadata.Partition, bool, error) {
	entries, _, err := a.kv.Get(ctx, metadata.PartitionKey(tp))
	if err != nil {
		return metadata.Partition{}, false, fmt.Errorf("read partition %s: %w", a.partitionName(tp), err)
	}
	var p metadata.Partition
	if !entries[0].Exists() {
		return p, false, nil
	}
	if err := json.Unmarshal(entries[0].Value, &p); err != nil {
		return p, false, fmt.Errorf("partition %s: %w", a.partitionName(tp), err)
	}
	return p, true, nil
}

// request runs f as one of the requests that may be in flight.
func (a *auditor) request(ctx context.Context, f func()) error {
	if err := a.requests.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer a.requests.Release(1)
	f()
	return nil
}

// pause waits, or ends with the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
