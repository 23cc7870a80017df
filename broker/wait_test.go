package broker

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// stuckAdmin is a metadata store that does not answer.
type stuckAdmin struct{ Admin }

func (stuckAdmin) CreateTopic(ctx context.Context, _ metadata.TopicSpec) (*metadata.Topic, int64, error) {
	<-ctx.Done()
	return nil, 0, ctx.Err()
}

// Changes outlive a client that hangs up, but not the server.
func TestDrainDoesNotWaitForAStoreThatIsAway(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Admin = stuckAdmin{c.Admin} })
	c := r.dial()
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(5)
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "t", 1, 1
	create.Topics, create.TimeoutMillis = append(create.Topics, topic), 60_000
	c.send(create)
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	done := make(chan struct{})
	go func() { _ = r.s.Drain(ctx); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		t.Fatal("the drain goes on after its time")
	}
}

// unopened is a log whose partitions do not open, however long one waits.
type unopened struct{ Log }

func (unopened) Partition(metadata.TopicPartition) (Partition, error) {
	return nil, tiering.ErrNotLeader
}

func (unopened) Await(ctx context.Context, _ metadata.TopicPartition) (Partition, error) {
	<-ctx.Done()
	return nil, tiering.ErrNotLeader
}

// Requests wait for a partition that is about to open, but a partition that
// does not must not hold up its connection's requests one by one.
func TestPartitionThatDoesNotOpenSlowsDownOnce(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Log = unopened{c.Log} })
	topic, _ := r.topic("t")
	c := r.dial()
	begun := time.Now()
	for range 4 {
		if p := c.produceOne(9, topic, nil); p.ErrorCode != kerr.NotLeaderForPartition.Code {
			t.Fatalf("error code %d", p.ErrorCode)
		}
	}
	if took := time.Since(begun); took > 2*openWait {
		t.Errorf("four requests took %v", took)
	}
}

// A session that lapsed may come back under another broker id, which clients
// then expect to meet here.
func TestBrokerIDFollowsTheRegistration(t *testing.T) {
	r := newRig(t)
	r.view.brokers[0].ID = 5
	c := r.dial()
	req := kmsg.NewPtrApiVersionsRequest()
	req.SetVersion(5)
	req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1"
	id := "test-cluster"
	req.ClusterID, req.NodeID = &id, 5
	if resp := do[*kmsg.ApiVersionsResponse](c, req); resp.ErrorCode != 0 {
		t.Errorf("error code %d", resp.ErrorCode)
	}
}

// A few responses that are taken slowly must not keep everybody else from
// records: a fetch takes the memory it needs, not what it may at most use.
func TestFetchTakesNoMoreMemoryThanItNeeds(t *testing.T) {
	r := newRig(t, func(c *Config) { c.FetchBytesMax, c.FetchBytesTotalMax = 8<<20, 8<<20 })
	topic, _ := r.topic("t")
	c := r.dial()
	if p := c.produceOne(9, topic, someBatch(1)); p.ErrorCode != 0 {
		t.Fatalf("error code %d", p.ErrorCode)
	}
	const slow = 7<<20 + 512<<10
	if !r.s.fetchBytes.TryAcquire(slow) {
		t.Fatal("the budget is not as configured")
	}
	defer r.s.fetchBytes.Release(slow)
	f := c.fetcher(11, topic)
	f.req.MaxBytes, f.part().PartitionMaxBytes = 8<<20, 8<<20
	_ = c.nc.SetReadDeadline(time.Now().Add(time.Second))
	if p := f.one(); len(p.RecordBatches) == 0 {
		t.Errorf("no records, error code %d", p.ErrorCode)
	}
}
