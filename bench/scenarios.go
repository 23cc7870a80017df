package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
	"github.com/tidemark-io/tidemark/tiering/object/s3"
)

const (
	mb            = 1e6
	gb            = 1e9
	fullBuffer    = 4 << 20 // what a broker under load puts into one object
	putsInFlight  = 8
	rawShare      = 3 // the raw PUTs of a comparison take this fraction of its time, before and after
	producers     = 4
	latencyTopic  = "latency"
	steadyTopic   = "steady"
	throughput    = "throughput"
	catchUp       = "catch-up"
	warmUpRecords = 200
)

type bencher struct {
	options
	cluster *harness.Cluster
	raw     *rawStore
	adm     *kadm.Client
	figures figures
}

func (b *bencher) open() error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.cluster.Seeds()...))
	if err != nil {
		return err
	}
	b.adm = kadm.NewClient(cl)
	conf := b.cluster.StoreConfig()
	store, err := s3.Open(s3.Config{Endpoint: conf.Endpoint, Bucket: conf.Bucket, AccessKey: conf.AccessKey, SecretKey: conf.SecretKey})
	if err != nil {
		return err
	}
	b.raw = &rawStore{store: store, run: fmt.Sprint(time.Now().UnixNano())}
	return nil
}

func (b *bencher) close() {
	b.adm.Close()
	b.raw.store.Close()
}

func (b *bencher) topic(ctx context.Context, name string) error {
	_, err := b.adm.CreateTopic(ctx, int32(b.partitions), -1, nil, name)
	return err
}

func (b *bencher) producer(topic string, opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(b.cluster.Seeds()...), kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	}, opts...)...)
}

// latency compares a lone producer's wait with the PUT that it is waiting for.
func (b *bencher) latency(ctx context.Context) error {
	if err := b.topic(ctx, latencyTopic); err != nil {
		return err
	}
	cl, err := b.producer(latencyTopic, kgo.ProducerLinger(0))
	if err != nil {
		return err
	}
	defer cl.Close()
	value := noise(b.recordSize)
	one := func() (time.Duration, error) {
		begun := time.Now()
		err := cl.ProduceSync(ctx, &kgo.Record{Value: value()}).FirstErr()
		return time.Since(begun), err
	}
	for range warmUpRecords {
		if _, err := one(); err != nil {
			return err
		}
	}
	// The first half of the raw PUTs needs the size the second half measures,
	// so a short stretch of producing tells it beforehand.
	size, _, err := b.stretch(b.duration/rawShare, one)
	if err != nil {
		return err
	}
	before, err := b.raw.oneAtATime(ctx, size, b.duration/rawShare)
	if err != nil {
		return err
	}
	size, samples, err := b.stretch(b.duration, one)
	if err != nil {
		return err
	}
	after, err := b.raw.oneAtATime(ctx, size, b.duration/rawShare)
	if err != nil {
		return err
	}
	const name = "latency"
	b.figures.add(name, "object size", float64(size), "bytes", "")
	raw50, raw99 := b.figures.latencies(name, "raw PUT", append(before, after...))
	p50, p99 := b.figures.latencies(name, "produce", samples)
	b.figures.add(name, "produce/raw p50", p50/raw50, "x", "<= 1.5")
	b.figures.add(name, "produce/raw p99", p99/raw99, "x", "")
	return nil
}

// stretch repeats one for d, and tells the mean size of the objects created meanwhile.
func (b *bencher) stretch(d time.Duration, one func() (time.Duration, error)) (int, []time.Duration, error) {
	begin, err := read(b.cluster)
	if err != nil {
		return 0, nil, err
	}
	var samples []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		took, err := one()
		if err != nil {
			return 0, nil, err
		}
		samples = append(samples, took)
	}
	end, err := read(b.cluster)
	if err != nil {
		return 0, nil, err
	}
	used := end.since(begin)
	if used.creates == 0 {
		return 0, nil, errors.New("nothing was put into the bucket")
	}
	return int(used.createdBytes / used.creates), samples, nil
}

// steady sends records at a fixed rate, whatever the answers do, and measures
// from when each was due.
func (b *bencher) steady(ctx context.Context) error {
	if err := b.topic(ctx, steadyTopic); err != nil {
		return err
	}
	cl, err := b.producer(steadyTopic, kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	value := noise(b.recordSize)
	total := b.rate * int(b.duration/time.Second)
	samples := make([]time.Duration, total)
	var failed error
	var mu sync.Mutex // guards failed
	begin, err := read(b.cluster)
	if err != nil {
		return err
	}
	start := time.Now()
	for i := range total {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(b.rate))
		time.Sleep(time.Until(due))
		cl.Produce(ctx, &kgo.Record{Value: value()}, func(_ *kgo.Record, err error) {
			samples[i] = time.Since(due)
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	end, err := read(b.cluster)
	if err != nil {
		return err
	}
	const name = "steady"
	b.figures.add(name, "rate", float64(b.rate*b.recordSize)/mb, "MB/s", "")
	b.figures.latencies(name, "produce", samples)
	b.cost(name, end.since(begin), float64(total*b.recordSize))
	return nil
}

// cost adds what a scenario used per GB of record values.
func (b *bencher) cost(name string, used usage, bytes float64) {
	per := func(v float64) float64 { return v / (bytes / gb) }
	b.figures.add(name, "broker processor", per(used.brokerCPU), "s/GB", "")
	b.figures.add(name, "store processor", per(used.storeCPU), "s/GB", "")
	b.figures.add(name, "etcd processor", per(used.etcdCPU), "s/GB", "")
	b.figures.add(name, "store requests", per(used.storeRequests), "/GB", "")
	b.figures.add(name, "etcd requests", per(used.etcdRequests), "/GB", "")
	if used.creates > 0 {
		b.figures.add(name, "mean object", used.createdBytes/used.creates/1024, "KiB", "")
	}
}

// throughput sends as fast as the brokers take it.
func (b *bencher) throughput(ctx context.Context) error {
	if err := b.topic(ctx, throughput); err != nil {
		return err
	}
	before, err := b.raw.ceiling(ctx, fullBuffer, putsInFlight, b.duration/2)
	if err != nil {
		return err
	}
	begin, err := read(b.cluster)
	if err != nil {
		return err
	}
	sent, took, err := b.flood(ctx)
	if err != nil {
		return err
	}
	end, err := read(b.cluster)
	if err != nil {
		return err
	}
	after, err := b.raw.ceiling(ctx, fullBuffer, putsInFlight, b.duration/2)
	if err != nil {
		return err
	}
	raw, rate := (before+after)/2, sent/took.Seconds()
	b.figures.add(throughput, "raw PUT ceiling", raw/mb, "MB/s", "")
	b.figures.add(throughput, "produce", rate/mb, "MB/s", "")
	b.figures.add(throughput, "produce/raw", rate/raw*100, "%", ">= 60")
	b.cost(throughput, end.since(begin), sent)
	return nil
}

// flood returns the bytes acknowledged and the time they took.
func (b *bencher) flood(ctx context.Context) (float64, time.Duration, error) {
	var done sync.WaitGroup
	results := make(chan error, producers)
	var mu sync.Mutex // guards acked
	var acked float64
	begun := time.Now()
	for range producers {
		done.Go(func() {
			n, err := b.floodOne(ctx, begun.Add(b.duration))
			mu.Lock()
			acked += float64(n * b.recordSize)
			mu.Unlock()
			if err != nil {
				results <- err
			}
		})
	}
	done.Wait()
	took := time.Since(begun)
	select {
	case err := <-results:
		return 0, 0, err
	default:
	}
	return acked, took, nil
}

func (b *bencher) floodOne(ctx context.Context, until time.Time) (int, error) {
	cl, err := b.producer(throughput, kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(50_000),
		kgo.ProducerBatchMaxBytes(1<<20))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	value := noise(b.recordSize)
	var mu sync.Mutex // guards what follows
	var acked int
	var failed error
	for time.Now().Before(until) {
		cl.Produce(ctx, &kgo.Record{Value: value()}, func(_ *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			acked++
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return 0, err
	}
	mu.Lock()
	defer mu.Unlock()
	return acked, failed
}

// catchUp reads the throughput topic from the beginning.
func (b *bencher) catchUp(ctx context.Context) error {
	ends, err := b.adm.ListEndOffsets(ctx, throughput)
	if err != nil {
		return err
	}
	var left int64
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.cluster.Seeds()...), kgo.ConsumeTopics(throughput),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxPartitionBytes(4<<20))
	if err != nil {
		return err
	}
	defer cl.Close()
	begin, err := read(b.cluster)
	if err != nil {
		return err
	}
	var got float64
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) { got += float64(len(r.Value)); left-- })
	}
	took := time.Since(begun)
	end, err := read(b.cluster)
	if err != nil {
		return err
	}
	b.figures.add(catchUp, "consume", got/mb/took.Seconds(), "MB/s", "")
	b.cost(catchUp, end.since(begin), got)
	return nil
}

// noisePool is what noise values are cut from: more than any window a
// compressor looks back over, so that values do not repeat within an object.
const noisePool = 64 << 20

var noiseBytes = sync.OnceValue(func() []byte {
	b := make([]byte, noisePool)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
})

// noise hands out values of size bytes that no compression makes smaller, alone
// or together.
func noise(size int) func() []byte {
	pool := noiseBytes()
	at := rand.IntN(len(pool) - size)
	return func() []byte {
		if at+size > len(pool) {
			at = 0
		}
		at += size
		return pool[at-size : at : at]
	}
}
