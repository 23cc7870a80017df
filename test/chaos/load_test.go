package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	topic        = "chaos"
	payloadBytes = 400
	callTimeout  = 5 * time.Second
	// flushMax is how long after the last fault anything sent may take.
	flushMax = 60 * time.Second
)

// loadOptions shape the workload.
type loadOptions struct {
	partitions int32 // 12 when 0
	producers  int   // 3 when 0
	rate       int   // records a second and producer; 60 when 0
	reread     bool  // read the log from its beginning, over and over
	// staleness is how old watermarks may be; the checker's own rule when 0.
	staleness time.Duration
}

// load is clients at work on one topic. All they see is told to the history.
type load struct {
	r          *rig
	o          loadOptions
	cancel     context.CancelFunc // ends the sending, not the delivery of what was sent
	quit       context.CancelFunc // ends the readers
	sending    sync.WaitGroup
	reading    sync.WaitGroup
	producers  []*kgo.Client
	readingCtx context.Context // of whatever reads
	txns       *txnLoad        // nil without transactions
	mu         sync.Mutex      // guards what follows
	acks       map[int32][]ack
	highest    map[int32]int64 // acknowledged offset
	clientErrs []error
}

// ack is when a record was handed to a producer and when it was acknowledged.
type ack struct{ sent, acked time.Time }

// client is a franz-go client of the cluster that is closed with the test.
func (r *rig) client(opts ...kgo.Opt) *kgo.Client {
	r.t.Helper()
	cl := r.newClient(opts...)
	r.t.Cleanup(cl.Close)
	return cl
}

// newClient is one that its user closes.
func (r *rig) newClient(opts ...kgo.Opt) *kgo.Client {
	r.t.Helper()
	cl, err := kgo.NewClient(r.options(opts...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	return cl
}

// options are of clients that find the cluster through its proxies, and give up
// a broker that hangs without a word after five seconds, not the twenty of the
// defaults.
func (r *rig) options(opts ...kgo.Opt) []kgo.Opt {
	var seeds []string
	for _, p := range r.clients {
		seeds = append(seeds, p.Addr())
	}
	// Requests about a group's offsets name topics, not their ids.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.OffsetCommit), 9)
	versions.SetMaxKeyVersion(int16(kmsg.OffsetFetch), 9)
	return append([]kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.MaxVersions(versions),
		kgo.MetadataMinAge(100 * time.Millisecond), // find new leaders as soon as an application can
		kgo.DialTimeout(2 * time.Second),
		kgo.AlwaysRetryEOF(), // a broker that is killed as it accepts is not one that asks for SASL
		kgo.ProduceRequestTimeout(3 * time.Second), kgo.RequestTimeoutOverhead(2 * time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
	}, opts...)
}

func (r *rig) createTopic(name string, partitions int32) {
	r.t.Helper()
	adm := kadm.NewClient(r.client())
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	if _, err := adm.CreateTopic(ctx, partitions, -1, nil, name); err != nil {
		r.t.Fatalf("create topic %s: %v", name, err)
	}
	harness.Eventually(r.t, 20*time.Second, "a leader for every partition of "+name, func() error {
		_, err := r.leaders(adm, name)
		return err
	})
}

// leaders maps each partition to the index of the broker that leads it. It is an
// error when one has none.
func (r *rig) leaders(adm *kadm.Client, name string) (map[int32]int, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), callTimeout)
	defer cancel()
	meta, err := adm.Metadata(ctx, name)
	if err != nil {
		return nil, err
	}
	index := make(map[int32]int)
	for _, b := range meta.Brokers {
		for i, p := range r.clients {
			if fmt.Sprintf("%s:%d", b.Host, b.Port) == p.Addr() {
				index[b.NodeID] = i
			}
		}
	}
	td, ok := meta.Topics[name]
	if !ok || td.Err != nil || len(td.Partitions) == 0 {
		return nil, fmt.Errorf("topic %s: %v", name, td.Err)
	}
	by := make(map[int32]int)
	for p, pd := range td.Partitions {
		i, known := index[pd.Leader]
		if pd.Err != nil || !known {
			return nil, fmt.Errorf("partition %d: leader %d, %v", p, pd.Leader, pd.Err)
		}
		by[p] = i
	}
	return by, nil
}

// startLoad makes the topic, begins with all clients and waits until every
// partition has acknowledged something.
func (r *rig) startLoad(o loadOptions) *load {
	r.t.Helper()
	if o.partitions == 0 {
		o.partitions = 12
	}
	if o.producers == 0 {
		o.producers = 3
	}
	if o.rate == 0 {
		o.rate = 60
	}
	r.createTopic(topic, o.partitions)
	sending, cancel := context.WithCancel(context.Background())
	reading, quit := context.WithCancel(context.Background())
	l := &load{r: r, o: o, cancel: cancel, quit: quit, readingCtx: reading, acks: make(map[int32][]ack), highest: make(map[int32]int64)}
	r.t.Cleanup(func() { cancel(); quit(); l.sending.Wait(); l.reading.Wait() })
	for i := range o.producers {
		cl := r.client( // idempotent, and so with up to five requests in flight
			r.logged(fmt.Sprintf("producer-%d", i)),
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerLinger(2*time.Millisecond),
			kgo.UnknownTopicRetries(-1))
		l.producers = append(l.producers, cl)
		p := r.history.RetryingProducer(fmt.Sprintf("producer-%d", i))
		l.sending.Go(func() { l.produce(sending, cl, p) })
	}
	l.startReaders(reading)
	l.waitAcks(time.Now(), 20*time.Second)
	return l
}

func (l *load) produce(ctx context.Context, cl *kgo.Client, p *checker.Producer) {
	tick := time.NewTicker(time.Second / time.Duration(l.o.rate))
	defer tick.Stop()
	for n := int32(0); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		partition, begun := n%l.o.partitions, time.Now()
		// A context of its own: what was begun is delivered, whatever the outcome.
		franz.Produce(context.Background(), cl, p, topic, partition, payloadBytes, func(rec *kgo.Record, err error) {
			l.delivered(partition, rec.Offset, begun, err)
		})
	}
}

func (l *load) delivered(partition int32, offset int64, begun time.Time, err error) {
	now := time.Now()
	if err != nil {
		l.failed(fmt.Errorf("produce to partition %d: %w", partition, err))
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks[partition] = append(l.acks[partition], ack{begun, now})
	l.highest[partition] = max(l.highest[partition], offset)
}

// lastAcked is the highest offset that a partition has acknowledged.
func (l *load) lastAcked(partition int32) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.highest[partition]
}

// failed notes an error that a client showed to its application for good.
func (l *load) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clientErrs = append(l.clientErrs, err)
}

var errNothing = errors.New("nothing acknowledged")

// transient errors are shown to a polling application and retried by the client
// itself; so is the loss of a group's session, from which a member joins anew.
func transient(err error) bool {
	var session *kgo.ErrGroupSession
	if errors.As(err, &session) {
		return true
	}
	return franz.Transient(err)
}

// firstAck is how long after at the first acknowledgement came of a record that
// was sent to the partition after at; ok is false if none has come.
func (l *load) firstAck(partition int32, at time.Time) (d time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	acks := l.acks[partition]
	for i := len(acks) - 1; i >= 0 && acks[i].acked.After(at); i-- {
		if a := acks[i]; a.sent.After(at) && (!ok || a.acked.Sub(at) < d) {
			d, ok = a.acked.Sub(at), true
		}
	}
	return d, ok
}

// waitAcks waits until every partition has acknowledged something sent after at,
// and returns how long the slowest took.
func (l *load) waitAcks(at time.Time, limit time.Duration) time.Duration {
	l.r.t.Helper()
	var worst time.Duration
	harness.Eventually(l.r.t, limit, "an acknowledgement from every partition", func() error {
		worst = 0
		for p := range l.o.partitions {
			d, ok := l.firstAck(p, at)
			if !ok {
				return fmt.Errorf("partition %d: nothing acknowledged", p)
			}
			worst = max(worst, d)
		}
		return nil
	})
	return worst
}

// longestGap is the longest time without any acknowledgement between two times.
func (l *load) longestGap(from, to time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var at []time.Time
	for _, acks := range l.acks {
		for _, a := range acks {
			if a.acked.After(from) && a.acked.Before(to) {
				at = append(at, a.acked)
			}
		}
	}
	return gap(from, to, at)
}
