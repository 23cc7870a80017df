package test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// probe is a well-behaved client that writes a record and reads it back, on a
// connection of its own, as long as it is not stopped.
type probe struct {
	quit          chan struct{}
	done          sync.WaitGroup
	writes, reads []time.Duration
	err           error
}

const probeEvery = 10 * time.Millisecond

func (r *badRig) probe(t *testing.T) *probe {
	t.Helper()
	p := &probe{quit: make(chan struct{})}
	c := r.dial(t)
	p.done.Go(func() {
		for tick := time.NewTicker(probeEvery); ; {
			select {
			case <-p.quit:
				tick.Stop()
				c.Close()
				return
			case <-tick.C:
			}
			if p.err = p.round(c); p.err != nil {
				<-p.quit
				return
			}
		}
	})
	return p
}

// stop ends the probe and returns how long its writes and reads took, in order.
func (p *probe) stop(t *testing.T) (writes, reads []time.Duration) {
	t.Helper()
	close(p.quit)
	p.done.Wait()
	if p.err != nil {
		t.Fatalf("another client, after %d rounds: %v", len(p.reads), p.err)
	}
	if len(p.reads) < 100 {
		t.Fatalf("another client came round %d times alone", len(p.reads))
	}
	slices.Sort(p.writes)
	slices.Sort(p.reads)
	return p.writes, p.reads
}

func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[min(len(sorted)-1, len(sorted)*p/100)].Round(10 * time.Microsecond)
}

func (p *probe) round(c *badConn) error {
	value := fmt.Appendf(nil, "round %d", len(p.reads))
	begun := time.Now()
	resp, err := c.try(badProduce(badProbed, plainBatch(value)), 9)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	p.writes = append(p.writes, time.Since(begun))
	got := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	if got.ErrorCode != 0 {
		return fmt.Errorf("write: error code %d", got.ErrorCode)
	}
	begun = time.Now()
	if resp, err = c.try(badFetch(badProbed, got.BaseOffset), 11); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	p.reads = append(p.reads, time.Since(begun))
	read := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if read.ErrorCode != 0 || !bytes.Contains(read.RecordBatches, value) {
		return fmt.Errorf("read of offset %d: error code %d, %d bytes", got.BaseOffset, read.ErrorCode, len(read.RecordBatches))
	}
	return nil
}

// badProduce is a request to write bytes to partition 0 of a topic.
func badProduce(topic string, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = records
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{p}}}
	return req
}

// badFetch is a request to read partition 0 of a topic.
func badFetch(topic string, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 500, 1, 1<<20
	p := kmsg.NewFetchRequestTopicPartition()
	p.FetchOffset, p.PartitionMaxBytes = offset, 1<<20
	req.Topics = []kmsg.FetchRequestTopic{{Topic: topic, Partitions: []kmsg.FetchRequestTopicPartition{p}}}
	return req
}
