package broker

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
)

// pairFetch asks for both partitions of t.
func pairFetch(c *client, t *metadata.Topic, maxBytes, partitionMax int32) *fetcher {
	f := c.fetcher(11, t)
	f.req.MaxBytes = maxBytes
	f.part().PartitionMaxBytes = partitionMax
	second := *f.part()
	second.Partition = 1
	f.req.Topics[0].Partitions = append(f.req.Topics[0].Partitions, second)
	return f
}

func bytesOf(resp *kmsg.FetchResponse) (n []int) {
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			n = append(n, len(p.RecordBatches))
		}
	}
	return n
}

// A consumer that is behind in many partitions waits for the bucket once, not
// once a partition.
func TestPartitionsThatAreBehindAreReadTogether(t *testing.T) {
	r := newRig(t)
	topic, first := r.topic("t")
	second := r.log.part(metadata.TopicPartition{Topic: topic.ID, Partition: 1})
	c := r.dial()
	for i, p := range []*fakePartition{first, second} {
		if _, err := p.Append(someBatch(1), mustParse(t, someBatch(1)), 0, false); err != nil {
			t.Fatalf("partition %d: %v", i, err)
		}
		p.behind, p.reading = true, make(chan struct{})
	}
	done := make(chan []int, 1)
	go func() { done <- bytesOf(pairFetch(c, topic, 1<<20, 100<<10).fetch()) }()
	for i, p := range []*fakePartition{second, first} { // the second before the first
		select {
		case p.reading <- struct{}{}:
		case <-time.After(5 * time.Second):
			t.Fatalf("read %d does not begin before the others end", i)
		}
	}
	if n := <-done; len(n) != 2 || n[0] == 0 || n[1] == 0 {
		t.Errorf("partitions with %v bytes", n)
	}
}

// A batch above every limit is reached although the partition before it has
// nothing and both are read at once.
func TestLargeBatchBehindAnEmptyPartition(t *testing.T) {
	r := newRig(t)
	topic, first := r.topic("t")
	second := r.log.part(metadata.TopicPartition{Topic: topic.ID, Partition: 1})
	big := bigBatch(200 << 10)
	if _, err := second.Append(big, mustParse(t, big), 0, false); err != nil {
		t.Fatal(err)
	}
	first.behind, second.behind = true, true
	if n := bytesOf(pairFetch(r.dial(), topic, 100<<10, 10<<10).fetch()); len(n) != 2 || n[1] != len(big) {
		t.Errorf("partitions with %v bytes, want the batch of %d", n, len(big))
	}
}

// However many consumers are behind, what they hold leaves half of the memory
// for responses to those who are not.
func TestBackfillLeavesMemoryToTheRest(t *testing.T) {
	r := newRig(t, func(c *Config) { c.FetchBytesMax, c.FetchBytesTotalMax = 2<<20, 8<<20 })
	old, p := r.topic("old")
	big := bigBatch(1900 << 10)
	for range 2 {
		if _, err := p.Append(big, mustParse(t, big), 0, false); err != nil {
			t.Fatal(err)
		}
	}
	p.behind, p.reading = true, make(chan struct{})
	for range 6 {
		c := r.dial()
		f := c.fetcher(11, old)
		f.req.MaxBytes, f.part().PartitionMaxBytes = 2<<20, 2<<20
		c.send(f.req)
	}
	waitFor(t, func() bool { return !r.s.behindBytes.TryAcquire(1 << 20) })
	fresh, q := r.topic("fresh")
	if _, err := q.Append(someBatch(1), mustParse(t, someBatch(1)), 0, false); err != nil {
		t.Fatal(err)
	}
	c := r.dial()
	_ = c.nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	if p := c.fetcher(11, fresh).one(); len(p.RecordBatches) == 0 {
		t.Errorf("no records, error code %d", p.ErrorCode)
	}
	if err := r.s.fetchBytes.Acquire(context.Background(), 4<<20); err != nil {
		t.Fatal(err)
	}
	r.s.fetchBytes.Release(4 << 20)
	close(p.reading)
	waitFor(t, func() bool {
		if !r.s.fetchBytes.TryAcquire(8 << 20) {
			return false
		}
		r.s.fetchBytes.Release(8 << 20)
		return true
	})
}
