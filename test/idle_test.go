package test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

// TestIdle counts what an idle cluster with a hundred long-polling consumers
// asks of etcd and of the bucket: at most one request a second and broker each.
func TestIdle(t *testing.T) {
	harness.System(t)
	const topic, consumers, groups = "idle", 100, 10
	c := harness.StartCluster(t, harness.Options{})
	createTopic(t, c, topic, 12)
	cl := newClient(t, c)
	for i := range 120 {
		r := &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "record %d", i)}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var polls sync.WaitGroup
	defer polls.Wait()
	defer cancel()
	for i := range consumers {
		cl := newClient(t, c, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(fmt.Sprintf("idle-%d", i%groups)))
		polls.Go(func() {
			for ctx.Err() == nil {
				cl.PollFetches(ctx)
			}
		})
	}
	time.Sleep(20 * time.Second) // groups settle, offsets are committed, checkpoints follow the last records
	window := 30 * time.Second
	before := requestCounts(t, c)
	time.Sleep(window)
	after := requestCounts(t, c)
	for i, b := range c.Brokers {
		for name := range after[i] {
			rate := (after[i][name] - before[i][name]) / window.Seconds()
			figure(t, "%s: %s %.2f a second", b.Name, name, rate)
			if rate > 1 {
				t.Errorf("%s: %s: %.2f a second, want at most 1", b.Name, name, rate)
			}
		}
	}
}

func requestCounts(t *testing.T, c *harness.Cluster) []map[string]float64 {
	t.Helper()
	var counts []map[string]float64
	for _, b := range c.Brokers {
		m, err := b.Metrics()
		if err != nil {
			t.Fatal(err)
		}
		of := make(map[string]float64)
		for _, name := range []string{"tidemark_store_requests_total", "tidemark_etcd_requests_total"} {
			n, err := m.Sum(name)
			if err != nil {
				t.Fatalf("%s: %v", b.Name, err)
			}
			if n == 0 {
				t.Errorf("%s: %s is 0 after a start and writes; it counts nothing", b.Name, name)
			}
			of[name] = n
		}
		counts = append(counts, of)
	}
	return counts
}
