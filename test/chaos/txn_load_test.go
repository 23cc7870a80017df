package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/checker/franz"
	"github.com/tidemark-io/tidemark/test/harness"
)

const (
	txnIn  = "txn-in"  // plain records, which copiers read
	txnOut = "txn-out" // and write here, in transactions with their offsets
	txnMix = "txn-mix" // written in transactions, many of which end badly, by those who read it

	txnPartitions = 4
	txnGroup      = "copiers"
	copiers       = 2
	mixers        = 2
	feedRate      = 40 // records a second
	// txnTimeout is less than a broker is stopped for.
	txnTimeout = 10 * time.Second
	// txnGrace is how long after that a transaction may be open.
	txnGrace = 10 * time.Second
)

// txnLoad is transactions at work beside a load.
type txnLoad struct {
	r       *rig
	l       *load
	stop    context.CancelFunc // ends the feeding
	quit    context.CancelFunc // ends the transactions, each after what it is at
	feeding sync.WaitGroup
	working sync.WaitGroup

	committed, aborted, unknown, left atomic.Int64
}

// startTxns begins with transactions and waits until some were committed. With
// old, one of the clients is of the time before every end raised the epoch: what
// comes late of its transactions can be taken for part of the next (KIP-890).
func (l *load) startTxns(old bool) *txnLoad {
	r := l.r
	r.t.Helper()
	for _, name := range []string{txnIn, txnOut, txnMix} {
		r.createTopic(name, txnPartitions)
	}
	feeding, stop := context.WithCancel(context.Background())
	working, quit := context.WithCancel(context.Background())
	x := &txnLoad{r: r, l: l, stop: stop, quit: quit}
	l.txns = x
	r.t.Cleanup(func() { stop(); quit(); x.feeding.Wait(); x.working.Wait() })
	x.feeding.Go(func() { x.feed(feeding) })
	for i := range copiers {
		x.working.Go(func() { x.copy(working, fmt.Sprintf("copier-%d", i)) })
	}
	for i := range mixers {
		who := fmt.Sprintf("mixer-%d", i)
		var opts []kgo.Opt
		if old && i == 0 {
			opts = append(opts, kgo.MaxVersions(firstVersion()))
		}
		x.working.Go(func() { x.mix(working, who, who, opts...) })
	}
	for _, name := range []string{txnOut, txnMix} {
		l.reading.Go(func() { x.readCommitted(l.readingCtx, name) })
		l.reading.Go(func() { x.askMarks(l.readingCtx, name) })
	}
	l.reading.Go(func() { x.askOffsets(l.readingCtx) })
	harness.Eventually(r.t, time.Minute, "transactions of all clients", func() error {
		if n := x.committed.Load(); n < 4*(copiers+mixers) {
			return fmt.Errorf("%d committed", n)
		}
		return nil
	})
	return x
}

// firstVersion is the requests of clients that know the first version of the
// protocol of transactions.
func firstVersion() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(int16(kmsg.Produce), 11)
	v.SetMaxKeyVersion(int16(kmsg.AddPartitionsToTxn), 3)
	v.SetMaxKeyVersion(int16(kmsg.EndTxn), 4)
	v.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 4)
	return v
}

// feed writes what the copiers read.
func (x *txnLoad) feed(ctx context.Context) {
	cl := x.r.newClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1))
	defer cl.Close()
	p := x.r.history.RetryingProducer("feeder")
	tick := time.NewTicker(time.Second / feedRate)
	defer tick.Stop()
	for n := int32(0); ctx.Err() == nil; n++ {
		<-tick.C
		franz.Produce(context.Background(), cl, p, txnIn, n%txnPartitions, payloadBytes, func(_ *kgo.Record, err error) {
			if err != nil {
				x.l.failed(fmt.Errorf("feed: %w", err))
			}
		})
	}
	flush, cancel := context.WithTimeout(context.Background(), flushMax)
	defer cancel()
	if err := cl.Flush(flush); err != nil {
		x.r.t.Errorf("the feeder's records are still undelivered a minute after the last fault: %v", err)
	}
}

// readCommitted reads what is committed to a topic.
func (x *txnLoad) readCommitted(ctx context.Context, name string) {
	c := x.r.history.Consumer("reader of "+name, checker.ReadCommitted, checker.Assigned, checker.Epochs)
	cl := x.r.newClient(append(franz.Assign(c, name, txnPartitions), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	defer cl.Close()
	defer c.Close()
	for ctx.Err() == nil {
		x.l.poll(ctx, func(ctx context.Context) kgo.Fetches { return franz.Poll(ctx, cl, c) })
	}
}

// askMarks asks for the ends of a topic again and again.
func (x *txnLoad) askMarks(ctx context.Context, name string) {
	cl := x.r.newClient()
	defer cl.Close()
	for ctx.Err() == nil {
		waiting, cancel := context.WithTimeout(ctx, callTimeout)
		for _, what := range []franz.What{franz.Ends, franz.Stable} {
			_, _ = franz.List(waiting, cl, x.r.history, "lister of "+name, name, what) // it is in the history
		}
		cancel()
		sleep(ctx, askEvery)
	}
}

// askOffsets asks for the copiers' offsets again and again.
func (x *txnLoad) askOffsets(ctx context.Context) {
	cl := x.r.newClient()
	defer cl.Close()
	for ctx.Err() == nil {
		waiting, cancel := context.WithTimeout(ctx, callTimeout)
		_ = franz.FetchStable(waiting, cl, x.r.history, "fetcher of "+txnGroup, txnGroup, txnIn, txnPartitions) // it is in the history
		cancel()
		sleep(ctx, askEvery)
	}
}

// settle ends the transactions: all is copied, and nothing stays open.
func (x *txnLoad) settle() {
	t := x.r.t
	t.Helper()
	x.stop()
	x.feeding.Wait()
	cl := x.r.newClient()
	defer cl.Close()
	adm := kadm.NewClient(cl)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	harness.Eventually(t, time.Minute, "everything copied and committed", func() error { return behind(ctx, adm) })
	x.quit()
	x.working.Wait()
	harness.Eventually(t, txnTimeout+txnGrace, "every transaction ended everywhere", func() error {
		return errors.Join(open(ctx, adm), unstable(ctx, adm, txnOut), unstable(ctx, adm, txnMix))
	})
}

// behind tells how far the copiers are behind.
func behind(ctx context.Context, adm *kadm.Client) error {
	lag, err := adm.Lag(ctx, txnGroup)
	if err = errors.Join(err, lag.Error()); err != nil {
		return err
	}
	if n := lag[txnGroup].Lag.Total(); n > 0 || len(lag[txnGroup].Lag[txnIn]) != txnPartitions {
		return fmt.Errorf("%d behind in %d partitions", n, len(lag[txnGroup].Lag[txnIn]))
	}
	return nil
}

// open tells of transactions that have not ended.
func open(ctx context.Context, adm *kadm.Client) error {
	txns, err := adm.ListTransactions(ctx, nil, []string{"Ongoing", "PrepareCommit", "PrepareAbort"})
	if err == nil && len(txns) > 0 {
		err = fmt.Errorf("%d transactions are open", len(txns))
	}
	return err
}

// unstable tells of partitions whose last stable offset is not their end.
func unstable(ctx context.Context, adm *kadm.Client, topic string) error {
	stable, err := adm.ListCommittedOffsets(ctx, topic)
	if err = errors.Join(err, stable.Error()); err != nil {
		return err
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return err
	}
	ends.Each(func(o kadm.ListedOffset) {
		if s, _ := stable.Lookup(topic, o.Partition); s.Offset != o.Offset {
			err = errors.Join(err, fmt.Errorf("%s %d is stable up to %d of %d", topic, o.Partition, s.Offset, o.Offset))
		}
	})
	return err
}
