package coordinator

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

// slowKV is a store that takes as long as etcd does.
type slowKV struct{ metadata.KV }

func (s slowKV) Txn(ctx context.Context, t metadata.Txn) (metadata.TxnResult, error) {
	time.Sleep(2 * time.Millisecond)
	return s.KV.Txn(ctx, t)
}

// BenchmarkThousandMembers has a thousand members of the consumer protocol join
// an empty group of 2,000 partitions at once, and measures how long it takes
// until each has its two, how many transactions, and the time of processors.
func BenchmarkThousandMembers(b *testing.B) {
	const members = 1000
	for b.Loop() {
		store := mem.New()
		kv := store.Client()
		id := metadata.TopicID{1}
		view := &fakeView{owners: map[int]metadata.Coordinator{}, revs: map[int]int64{}, topics: map[string]*metadata.Topic{"u": {ID: id, Name: "u", Partitions: 2 * members}}}
		shard := ShardOf("g")
		res, err := kv.Txn(context.Background(), metadata.Txn{Then: []metadata.Op{metadata.Put(metadata.CoordinatorKey(shard), []byte(`{"incarnation":"0000000000000001"}`))}})
		if err != nil {
			b.Fatal(err)
		}
		view.owners[shard], view.revs[shard] = metadata.Coordinator{Incarnation: 1}, res.Revision
		c, err := New(Config{Incarnation: 1, KV: slowKV{kv}, View: view})
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(ctx) }()
		var before, after syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
		began := time.Now()
		var wg sync.WaitGroup
		var beats sync.Map
		for i := range members {
			wg.Go(func() { beats.Store(i, settle(c, fmt.Sprint("m", i))) })
		}
		wg.Wait()
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		total := 0
		beats.Range(func(_, n any) bool { total += n.(int); return true })
		b.ReportMetric(time.Since(began).Seconds(), "s/rebalance")
		b.ReportMetric(time.Duration(after.Utime.Nano()-before.Utime.Nano()).Seconds(), "cpu-s/rebalance")
		b.ReportMetric(float64(total)/members, "heartbeats/member")
		stop()
		<-done
	}
}

// settle joins and sends heartbeats until the member has its two partitions and
// the group is stable.
func settle(c *Coordinator, member string) (beats int) {
	var epoch int32
	var own []kmsg.ConsumerGroupHeartbeatRequestTopic
	has := 0
	for say := false; ; {
		resp := c.ConsumerGroupHeartbeat(context.Background(), someone, beat("g", member, epoch, func(r *kmsg.ConsumerGroupHeartbeatRequest) {
			if say {
				r.Topics = own
			}
		}))
		beats++
		if resp.ErrorCode != 0 {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		epoch = resp.MemberEpoch
		if say = resp.Assignment != nil; say {
			own, has = []kmsg.ConsumerGroupHeartbeatRequestTopic{}, 0
			for _, t := range resp.Assignment.Topics {
				own = append(own, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t.TopicID, Partitions: t.Partitions})
				has += len(t.Partitions)
			}
			continue // it is acknowledged at once
		}
		if has == 2 && c.stable("g") {
			return beats
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// stable tells whether a consumer group is.
func (c *Coordinator) stable(id string) bool {
	sh := c.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.groups[id]
	return e != nil && e.k != nil && e.k.State() == consumer.StateStable
}
