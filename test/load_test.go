package test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/harness"
)

// load is idempotent producers and a consumer at work on one topic while a test
// does things to the brokers. Everything they see goes to a checker.
type load struct {
	t          *testing.T
	topic      string
	partitions int32
	check      *checker.Checker

	cancel context.CancelFunc // ends the sending, not the delivery of what was sent
	quit   context.CancelFunc // ends the consumer
	done   sync.WaitGroup
	sent   []*kgo.Client

	mu     sync.Mutex // guards what follows
	acks   map[int32][]ack
	errors []error
}

// ack is when one record was handed to a producer and when it was acknowledged.
type ack struct{ sent, acked time.Time }

const payloadBytes = 400

// startLoad begins with producers that each send rate records a second, spread
// over all partitions.
func startLoad(t *testing.T, c *harness.Cluster, topic string, partitions int32, producers, rate int) *load {
	t.Helper()
	sending, cancel := context.WithCancel(context.Background())
	polling, quit := context.WithCancel(context.Background())
	l := &load{t: t, topic: topic, partitions: partitions, check: checker.New(),
		cancel: cancel, quit: quit, acks: make(map[int32][]ack)}
	t.Cleanup(func() { cancel(); quit(); l.done.Wait() })
	for i := range producers {
		cl := newClient(t, c,
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerLinger(2*time.Millisecond),
			// A broker that hangs without a word is given up after five seconds, not
			// the twenty of the client's defaults: the test is of our failover.
			kgo.ProduceRequestTimeout(3*time.Second), kgo.RequestTimeoutOverhead(2*time.Second),
			kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
			kgo.UnknownTopicRetries(-1))
		l.sent = append(l.sent, cl)
		l.done.Go(func() { l.produce(sending, cl, uint32(i), rate) })
	}
	consumer := newClient(t, c, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	l.done.Go(func() { l.consume(polling, consumer) })
	return l
}

func (l *load) produce(ctx context.Context, cl *kgo.Client, producer uint32, rate int) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		stream := checker.Stream{Producer: producer, Partition: int32(n % uint64(l.partitions))}
		id := checker.ID{Stream: stream, Seq: n / uint64(l.partitions)}
		r := &kgo.Record{Topic: l.topic, Partition: stream.Partition, Value: checker.Payload(id, payloadBytes)}
		begun := time.Now()
		// A context of its own: what was begun is delivered, whatever the outcome.
		cl.Produce(context.Background(), r, func(r *kgo.Record, err error) { l.delivered(id, r, begun, err) })
	}
}

func (l *load) delivered(id checker.ID, r *kgo.Record, begun time.Time, err error) {
	now := time.Now()
	if err == nil {
		l.check.Acked(id, r.Offset)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errors = append(l.errors, fmt.Errorf("%v: %w", id, err))
		return
	}
	l.acks[r.Partition] = append(l.acks[r.Partition], ack{begun, now})
}

func (l *load) consume(ctx context.Context, cl *kgo.Client) {
	for ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) { l.check.Polled(r.Partition, r.Offset, r.Value) })
		for _, e := range fetches.Errors() {
			if ctx.Err() == nil && !transient(e.Err) {
				l.mu.Lock()
				l.errors = append(l.errors, fmt.Errorf("fetch of partition %d: %w", e.Partition, e.Err))
				l.mu.Unlock()
			}
		}
	}
}

// transient errors are shown to a polling application and retried by the client
// itself.
func transient(err error) bool {
	var code *kerr.Error
	return !errors.As(err, &code) || code.Retriable
}

// finish stops sending, waits until everything sent is delivered, reads the
// whole log back and judges the history.
func (l *load) finish(c *harness.Cluster) {
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
	scan(l.t, c, l.topic, func(r *kgo.Record) { l.check.Scanned(r.Partition, r.Offset, r.Value) })
	c.Audit()
	found, sum := l.check.Judge()
	for i, v := range found {
		if i == 20 {
			l.t.Errorf("… and %d more", len(found)-i)
			break
		}
		l.t.Error(v)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, err := range l.errors {
		if i == 10 {
			l.t.Errorf("… and %d more errors", len(l.errors)-i)
			break
		}
		l.t.Errorf("a client met an error it does not retry: %v", err)
	}
	figure(l.t, "%d records acknowledged, %d in the log, %d violations, %d client errors", sum.Acked, sum.Scanned, len(found), len(l.errors))
	if sum.Acked == 0 {
		l.t.Error("nothing was acknowledged; the test shows nothing")
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
