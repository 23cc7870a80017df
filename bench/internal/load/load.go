// Package load drives a Kafka cluster, whichever it is, with producers and
// consumers.
//
// Under a rate the load is open: a record is due at a time that does not depend
// on how the cluster answers, and its latency counts from then. Without a rate
// the producers send as much as is taken, and only throughput means anything.
//
// A record's key is the time it was due, so that a consumer knows it; its
// partition is the producer's next in turn.
package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/bench/internal/hist"
	"github.com/tidemark-io/tidemark/bench/internal/workload"
)

const (
	bufferedBytes = 16 << 20        // of one producer
	settle        = 2 * time.Minute // for what is outstanding at the end
	positionTime  = 500 * time.Millisecond
)

// Session is the clients of one case. Its producers stay connected from one
// measurement to the next.
type Session struct {
	seeds     []string
	load      workload.Load
	topics    []string
	idle      []string // topics that nobody touches
	producers []*kgo.Client
	values    []*workload.Payload
	next      []int // partition each producer has next
	admin     *kadm.Client
}

// Result is what one measurement saw.
type Result struct {
	Ack      hist.H // from due to acknowledged
	EndToEnd hist.H // from due to consumed
	Late     hist.H // from due to handed to the client: the generator's own part
	Produced int64  // records acknowledged
	Consumed int64
	Bytes    int64         // of values produced, or consumed by a catch-up
	Elapsed  time.Duration // until the last was acknowledged, or read by a catch-up
	Drained  time.Duration // of a tail: until every consumer had everything
}

// Open connects to the cluster and creates the load's topics.
func Open(ctx context.Context, seeds []string, l workload.Load, name string) (*Session, error) {
	s := &Session{seeds: seeds, load: l}
	cl, err := kgo.NewClient(kgo.SeedBrokers(seeds...))
	if err != nil {
		return nil, err
	}
	s.admin = kadm.NewClient(cl)
	for i := range l.Topics {
		s.topics = append(s.topics, fmt.Sprintf("%s-%d", name, i))
	}
	if err := s.create(ctx, l.Partitions, s.topics...); err != nil {
		s.Close()
		return nil, err
	}
	return s.openProducers()
}

// Dialer opens a connection to a broker.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// OpenAt is a session of producers alone, whose connections dial opens and
// whose topics are there already.
func OpenAt(dial Dialer, l workload.Load, topics []string) (*Session, error) {
	s := &Session{seeds: []string{"sink:9092"}, load: l, topics: topics}
	return s.openProducers(kgo.Dialer(dial))
}

// Topics are the names of the load's topics.
func (s *Session) Topics() []string { return s.topics }

// openProducers returns the session, or closes it.
func (s *Session) openProducers(opts ...kgo.Opt) (*Session, error) {
	for i := range s.load.Producers {
		cl, err := kgo.NewClient(append(s.producerOptions(), opts...)...)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.producers = append(s.producers, cl)
		s.values = append(s.values, workload.NewPayload(s.load.Payload, s.load.RecordSize, uint64(i)))
		s.next = append(s.next, i)
	}
	return s, nil
}

// CreateIdle creates the partitions that nobody touches.
func (s *Session) CreateIdle(ctx context.Context, name string) error {
	if s.load.Idle == 0 {
		return nil
	}
	s.idle = []string{name}
	return s.create(ctx, s.load.Idle, name)
}

func (s *Session) create(ctx context.Context, partitions int, topics ...string) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	responses, err := s.admin.CreateTopics(ctx, int32(partitions), -1, nil, topics...)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	if err := responses.Error(); err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	return s.awaitLeaders(ctx, partitions, topics)
}

// awaitLeaders waits until every partition has one.
func (s *Session) awaitLeaders(ctx context.Context, partitions int, topics []string) error {
	for {
		ends, err := s.admin.ListEndOffsets(ctx, topics...)
		led := 0
		ends.Each(func(o kadm.ListedOffset) {
			if o.Err == nil {
				led++
			}
		})
		if err == nil && led == partitions*len(topics) {
			return nil
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("%d of %d partitions have a leader: %w", led, partitions*len(topics), errors.Join(err, ctx.Err()))
		}
	}
}

// Drop deletes the load's topics, of a cluster that outlives the run.
func (s *Session) Drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	responses, err := s.admin.DeleteTopics(ctx, append(s.idle, s.topics...)...)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		return fmt.Errorf("delete topics: %w", err)
	}
	return nil
}

// Close ends the clients; what they have not sent is dropped.
func (s *Session) Close() {
	for _, cl := range s.producers {
		cl.Close()
	}
	if s.admin != nil {
		s.admin.Close()
	}
}

func (s *Session) producerOptions() []kgo.Opt {
	l := s.load
	opts := []kgo.Opt{
		kgo.SeedBrokers(s.seeds...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(l.Linger), kgo.ProducerBatchMaxBytes(int32(l.BatchBytes)),
		kgo.MaxBufferedRecords(1 << 20), kgo.MaxBufferedBytes(bufferedBytes),
		kgo.ProducerBatchCompression(codecs[l.Compression]()), kgo.RequiredAcks(acks[l.Acks]()),
	}
	if !l.Idempotent {
		// As many as an idempotent producer has.
		opts = append(opts, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(5))
	}
	return opts
}

var acks = map[string]func() kgo.Acks{"all": kgo.AllISRAcks, "leader": kgo.LeaderAck, "none": kgo.NoAck}

var codecs = map[string]func() kgo.CompressionCodec{
	"none": kgo.NoCompression, "gzip": kgo.GzipCompression, "snappy": kgo.SnappyCompression,
	"lz4": kgo.Lz4Compression, "zstd": kgo.ZstdCompression,
}

// Produce runs the load for d.
func (s *Session) Produce(ctx context.Context, d time.Duration) (*Result, error) {
	start := time.Now()
	parts := make([]Result, len(s.producers))
	g, ctx := errgroup.WithContext(ctx)
	for i := range s.producers {
		g.Go(func() error { return s.produceOne(ctx, i, start, start.Add(d), &parts[i]) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	r := &Result{Elapsed: time.Since(start)}
	for i := range parts {
		r.Ack.Merge(&parts[i].Ack)
		r.Late.Merge(&parts[i].Late)
		r.Produced += parts[i].Produced
	}
	r.Bytes = r.Produced * int64(s.load.RecordSize)
	return r, nil
}

// produceOne is producer i from start to end, and until all is acknowledged.
func (s *Session) produceOne(ctx context.Context, i int, start, end time.Time, r *Result) error {
	cl := s.producers[i]
	var mu sync.Mutex // guards r.Ack, r.Produced and failed
	var failed error
	send := func(due time.Time) {
		r.Late.Record(time.Since(due))
		cl.Produce(ctx, s.record(i, due), func(_ *kgo.Record, err error) {
			took := time.Since(due)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			r.Produced++
			r.Ack.Record(took)
		})
	}
	if err := s.drive(ctx, i, start, end, send); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	if err := cl.Flush(ctx); err != nil {
		return fmt.Errorf("not all acknowledged %v after the last was sent: %w", settle, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		return fmt.Errorf("produce: %w", failed)
	}
	return nil
}

// drive calls send at the load's rate, or as often as it returns.
func (s *Session) drive(ctx context.Context, i int, start, end time.Time, send func(time.Time)) error {
	if s.load.Rate > 0 {
		sched := schedule{start: start, perSecond: s.load.PerSecond(), producer: i, producers: s.load.Producers}
		return sched.pace(ctx, end, send)
	}
	for now := time.Now(); now.Before(end); now = time.Now() {
		if err := ctx.Err(); err != nil {
			return err
		}
		send(now)
	}
	return nil
}

// record is the next record of producer i, in the partition it has next.
func (s *Session) record(i int, due time.Time) *kgo.Record {
	all := len(s.topics) * s.load.Partitions
	n := s.next[i] % all
	s.next[i] = n + s.load.Producers
	return &kgo.Record{
		Topic: s.topics[n%len(s.topics)], Partition: int32(n / len(s.topics)),
		Key: binary.BigEndian.AppendUint64(nil, uint64(due.UnixNano())), Value: s.values[i].Next(),
	}
}
