package test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/checker/franz"
	"github.com/tidemark-io/tidemark/test/harness"
)

// load is clients at work on one topic while a test does things to the brokers:
// idempotent producers, a consumer that reads everything, a group of two that
// commits, and one that asks for watermarks and offsets. Everything they do and
// see is a history, which the checker judges.
type load struct {
	t          *testing.T
	c          *harness.Cluster
	topic      string
	partitions int32
	hist       *checker.History
	closeHist  func() error

	cancel context.CancelFunc // ends the sending, not the delivery of what was sent
	quit   context.CancelFunc // ends everybody else
	done   sync.WaitGroup
	sent   []*kgo.Client

	mu     sync.Mutex // guards what follows
	acks   map[int32][]ack
	errors []error
}

// ack is when one record was handed to a producer and when it was acknowledged.
type ack struct{ sent, acked time.Time }

const (
	payloadBytes = 400
	loadGroup    = "load"
	askEvery     = 500 * time.Millisecond
)

// startLoad begins with producers that each send rate records a second, spread
// over all partitions.
func startLoad(t *testing.T, c *harness.Cluster, topic string, partitions int32, producers, rate int) *load {
	t.Helper()
	hist, closeHist, err := checker.CreateHistory(harness.Keep(t, "history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	sending, cancel := context.WithCancel(context.Background())
	working, quit := context.WithCancel(context.Background())
	l := &load{t: t, c: c, topic: topic, partitions: partitions, hist: hist, closeHist: closeHist,
		cancel: cancel, quit: quit, acks: make(map[int32][]ack)}
	t.Cleanup(func() { cancel(); quit(); l.done.Wait() })
	for i := range producers {
		cl := newClient(t, c, append(impatient(),
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerLinger(2*time.Millisecond),
			kgo.UnknownTopicRetries(-1))...)
		l.sent = append(l.sent, cl)
		p := hist.RetryingProducer(fmt.Sprintf("producer-%d", i))
		l.done.Go(func() { l.produce(sending, cl, p, rate) })
	}
	reader := hist.Consumer("reader", checker.ReadUncommitted, checker.Assigned, checker.Epochs)
	consumer := newClient(t, c, append(impatient(), franz.Assign(reader, topic, partitions)...)...)
	l.done.Go(func() { l.consume(working, consumer, reader) })
	for i := range 2 {
		l.join(working, fmt.Sprintf("member-%d", i))
	}
	asker := newClient(t, c, impatient()...)
	l.done.Go(func() { l.ask(working, asker) })
	return l
}

// impatient clients give up a broker that hangs without a word after five
// seconds, not the twenty of the defaults: the tests are of our failover.
func impatient() []kgo.Opt {
	return []kgo.Opt{
		kgo.ProduceRequestTimeout(3 * time.Second), kgo.RequestTimeoutOverhead(2 * time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
	}
}

func (l *load) produce(ctx context.Context, cl *kgo.Client, p *checker.Producer, rate int) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for n := int64(0); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		partition, begun := int32(n%int64(l.partitions)), time.Now()
		// A context of its own: what was begun is delivered, whatever the outcome.
		franz.Produce(context.Background(), cl, p, l.topic, partition, payloadBytes, func(_ *kgo.Record, err error) {
			l.delivered(partition, begun, err)
		})
	}
}

func (l *load) delivered(partition int32, begun time.Time, err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errors = append(l.errors, fmt.Errorf("record for partition %d: %w", partition, err))
		return
	}
	l.acks[partition] = append(l.acks[partition], ack{begun, now})
}

// failed notes an error that a client does not retry by itself.
func (l *load) failed(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors = append(l.errors, fmt.Errorf(format, args...))
}

func (l *load) consume(ctx context.Context, cl *kgo.Client, c *checker.Consumer) {
	defer c.Close()
	for ctx.Err() == nil {
		l.complain(ctx, franz.Poll(ctx, cl, c))
	}
}

func (l *load) complain(ctx context.Context, fetches kgo.Fetches) {
	for _, e := range fetches.Errors() {
		if ctx.Err() == nil && !franz.Transient(e.Err) {
			l.failed("fetch of partition %d: %w", e.Partition, e.Err)
		}
	}
}

// join runs a member of the group, which polls and commits.
func (l *load) join(ctx context.Context, name string) {
	m, err := franz.Join(l.hist, name, loadGroup, l.topic, append(impatient(), kgo.SeedBrokers(l.c.Seeds()...),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(time.Second))...)
	if err != nil {
		l.t.Fatal(err)
	}
	l.done.Go(func() {
		defer m.Close()
		for ctx.Err() == nil {
			poll, cancel := context.WithTimeout(ctx, askEvery)
			l.complain(poll, m.Poll(poll))
			cancel()
			commit, cancel := context.WithTimeout(ctx, 10*time.Second)
			_ = m.Commit(commit) // its outcome is in the history
			cancel()
		}
	})
}

// ask asks for watermarks and for the group's offsets.
func (l *load) ask(ctx context.Context, cl *kgo.Client) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// The answers are in the history, and so are the failures.
		asking, cancel := context.WithTimeout(ctx, 10*time.Second)
		for _, what := range []franz.What{franz.Ends, franz.Stable, franz.Starts} {
			_, _ = franz.List(asking, cl, l.hist, "asker", l.topic, what)
		}
		_ = franz.Fetch(asking, cl, l.hist, "asker", loadGroup, l.topic, l.partitions)
		cancel()
	}
}

// finish stops sending, waits until everything sent is delivered, reads the
// whole log back at every broker, audits the bucket and judges the history.
func (l *load) finish() {
	l.t.Helper()
	l.cancel()
	for _, cl := range l.sent {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		if err := cl.Flush(ctx); err != nil {
			l.t.Errorf("records still undelivered a minute after the last fault: %v", err)
		}
		cancel()
	}
	l.quit()
	l.done.Wait()
	rules := checker.Rules{}
	for _, b := range l.c.Brokers {
		if b.Running() {
			rules.Nodes = append(rules.Nodes, b.Name)
			l.scan(b)
		}
	}
	rules.Audit = l.c.AuditReport()
	if err := l.closeHist(); err != nil {
		l.t.Errorf("the history is incomplete: %v", err)
	}
	v := l.hist.Check(rules)
	figure(l.t, "%v", v)
	for _, broken := range v.Violations {
		l.t.Error(broken)
	}
	l.report(v)
}

func (l *load) scan(b *harness.Broker) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Minute)
	defer cancel()
	for i := range 2 {
		if err := franz.Scan(ctx, l.hist, fmt.Sprintf("scanner-%d-%s", i, b.Name), b.Name, b.ClientAddr(), l.topic); err != nil {
			l.t.Error(err)
		}
	}
}

func (l *load) report(v *checker.Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, err := range l.errors {
		if i == 10 {
			l.t.Errorf("… and %d more errors", len(l.errors)-i)
			break
		}
		l.t.Errorf("a client met an error it does not retry: %v", err)
	}
	if v.Counts.Acked == 0 || v.Committed == 0 || v.Fetched == 0 || v.Watermarks == 0 {
		l.t.Errorf("too little happened to show anything: %v", v)
	}
}

// firstAck is how long after at the first acknowledgement came of a record that
// was sent to the partition after at; ok is false if none has come.
func (l *load) firstAck(partition int32, at time.Time) (d time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.acks[partition] {
		if a.sent.After(at) && (!ok || a.acked.Sub(at) < d) {
			d, ok = a.acked.Sub(at), true
		}
	}
	return d, ok
}

// waitAcks waits until every partition has acknowledged something sent after at.
func (l *load) waitAcks(at time.Time, limit time.Duration) {
	l.t.Helper()
	harness.Eventually(l.t, limit, "an acknowledgement from every partition", func() error {
		for p := range l.partitions {
			if _, ok := l.firstAck(p, at); !ok {
				return fmt.Errorf("partition %d: nothing acknowledged", p)
			}
		}
		return nil
	})
}
