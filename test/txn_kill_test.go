package test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

// TestTransactionKills has two members of a group copy a topic in transactions,
// some of which they abort, while one broker after the other is killed: leaders of
// both topics, coordinators of group and transactions. Every record comes out
// exactly once, and nothing stays open.
func TestTransactionKills(t *testing.T) {
	harness.System(t)
	const partitions, records = 6, 20_000
	kills := 4
	if harness.Long() {
		kills = 30
	}
	c := harness.StartCluster(t, harness.Options{Args: quickGroups})
	createTopic(t, c, "in", partitions)
	createTopic(t, c, "out", partitions)
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	x := &copyRun{t: t, c: c}
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() { x.copy(ctx, fmt.Sprint("copier-", i)) })
	}
	wg.Go(func() { x.produce(ctx, records) })
	wg.Go(func() {
		for i := range kills {
			time.Sleep(2 * time.Second)
			b := c.Brokers[i%len(c.Brokers)]
			b.Kill()
			time.Sleep(3 * time.Second)
			b.Start()
		}
		x.killed.Store(true)
	})
	harness.Eventually(t, 4*time.Minute, "everything copied and committed", func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !x.killed.Load() || !x.produced.Load() {
			return errors.New("still at work")
		}
		lag, err := newAdmin(t, c).Lag(ctx, "copiers")
		if err = errors.Join(err, lag.Error()); err != nil {
			return err
		}
		if n := lag["copiers"].Lag.Total(); n > 0 {
			return fmt.Errorf("%d behind", n)
		}
		return nil
	})
	stop()
	wg.Wait()

	adm := newAdmin(t, c)
	harness.Eventually(t, 90*time.Second, "every transaction ended everywhere", func() error { return ended(t.Context(), adm, "out") })
	seen := map[string]int{}
	ends := endOffsets(t, adm, "out")
	cl := newClient(t, c, kgo.ConsumeTopics("out"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	reading, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	for len(seen) < records && reading.Err() == nil {
		cl.PollFetches(reading).EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
	}
	quiet, enough := context.WithTimeout(t.Context(), time.Second)
	defer enough()
	cl.PollFetches(quiet).EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
	missing, extra := 0, 0
	for i := range records {
		switch n := seen[fmt.Sprint(i)]; {
		case n == 0:
			missing++
		case n > 1:
			extra += n - 1
		}
	}
	if missing > 0 || extra > 0 || len(seen) != records {
		t.Fatalf("%d missing, %d extra of %d records, ends %v", missing, extra, records, ends)
	}
	figure(t, "transactions: %d kills of brokers, %d records copied in %d transactions (%d aborted on purpose, %d given up), 0 missing, 0 extra",
		kills, records, x.transactions.Load(), x.aborted.Load(), x.failed.Load())
}

// ended tells what of a topic, or of all transactional ids, is still open.
func ended(ctx context.Context, adm *kadm.Client, topic string) error {
	txns, err := adm.ListTransactions(ctx, nil, []string{"Ongoing", "PrepareCommit", "PrepareAbort"})
	if err != nil {
		return err
	}
	if len(txns) > 0 {
		return fmt.Errorf("%d transactions are open", len(txns))
	}
	stable, err := adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return err
	}
	all, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	all.Each(func(o kadm.ListedOffset) {
		if s, _ := stable.Lookup(topic, o.Partition); s.Offset != o.Offset {
			err = fmt.Errorf("partition %d is stable up to %d of %d", o.Partition, s.Offset, o.Offset)
		}
	})
	return err
}

// copyRun is what the copiers have to do with one another.
type copyRun struct {
	t                             *testing.T
	c                             *harness.Cluster
	killed, produced              atomic.Bool
	transactions, aborted, failed atomic.Int64
}

func (x *copyRun) produce(ctx context.Context, records int) {
	cl := newClient(x.t, x.c, kgo.DefaultProduceTopic("in"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	for i := range records {
		cl.Produce(ctx, kgo.StringRecord(fmt.Sprint(i)), func(_ *kgo.Record, err error) {
			if err != nil {
				x.t.Errorf("produce: %v", err)
			}
		})
		if i%1000 == 999 { // over the time of the kills
			time.Sleep(800 * time.Millisecond)
		}
	}
	if err := cl.Flush(ctx); err != nil {
		x.t.Errorf("produce: %v", err)
	}
	x.produced.Store(true)
}

// copy copies until ctx ends; a session that cannot go on is replaced by another
// of the same transactional id.
func (x *copyRun) copy(ctx context.Context, id string) {
	for ctx.Err() == nil {
		s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(x.c.Seeds()...), kgo.TransactionalID(id), kgo.TransactionTimeout(20*time.Second),
			kgo.ConsumerGroup("copiers"), kgo.ConsumeTopics("in"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.DefaultProduceTopic("out"),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(10*time.Second), kgo.MetadataMinAge(100*time.Millisecond))
		if err != nil {
			x.t.Error(err)
			return
		}
		if err := x.session(ctx, s); err != nil && ctx.Err() == nil {
			x.failed.Add(1)
			x.t.Logf("%s: %v", id, err)
			if errors.Is(err, kerr.InvalidTxnState) || errors.Is(err, kerr.InvalidProducerIDMapping) {
				x.t.Errorf("%s: %v", id, err) // no fault explains these
			}
		}
		s.Close()
	}
}

func (x *copyRun) session(ctx context.Context, s *kgo.GroupTransactSession) error {
	for round := 1; ; round++ {
		fs := s.PollRecords(ctx, 200)
		if ctx.Err() != nil {
			return nil
		}
		if err := s.Begin(); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		var mu sync.Mutex
		var failed error
		fs.EachRecord(func(r *kgo.Record) {
			s.Produce(ctx, kgo.StringRecord(string(r.Value)), func(_ *kgo.Record, err error) {
				mu.Lock()
				defer mu.Unlock()
				failed = errors.Join(failed, err)
			})
		})
		if err := s.Client().Flush(ctx); err != nil {
			return err
		}
		mu.Lock()
		commit := failed == nil && round%7 != 0
		mu.Unlock()
		committed, err := s.End(ctx, kgo.TransactionEndTry(commit))
		x.transactions.Add(1)
		if !committed {
			x.aborted.Add(1)
		}
		if err != nil {
			return fmt.Errorf("end: %w", err)
		}
	}
}
