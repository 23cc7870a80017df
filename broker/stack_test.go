package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/broker/coordinator"
	"github.com/tidemark-io/tidemark/broker/internal/producerid"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
	"github.com/tidemark-io/tidemark/tiering"
	objects "github.com/tidemark-io/tidemark/tiering/object/mem"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// newStack runs the real log, view and group coordinator over stores in memory,
// with a stand-in for the controller that leads whatever it sees.
func newStack(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := startStack(t, ln, "127.0.0.1", int32(ln.Addr().(*net.TCPAddr).Port), nil)
	t.Cleanup(k.stop)
	return ln.Addr().String()
}

// stack is a broker's parts at work.
type stack struct {
	server *Server
	kv     metadata.KV
	store  *objects.Store
	view   *metadata.View
	groups *coordinator.Coordinator
	fenced atomic.Bool // the test has the log fenced
	stop   func()      // ends them and waits
}

// startStack runs a stack behind a listener; tune may change the server's config.
func startStack(t testing.TB, ln net.Listener, host string, port int32, tune func(*Config)) *stack {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	k := new(stack)
	var wg sync.WaitGroup
	run := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil && !(k.fenced.Load() && errors.Is(err, tiering.ErrFenced)) {
				t.Error(err)
			}
		})
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	kv := mem.New().Client()
	self := metadata.MakeIncarnation(1, 1)
	registration, err := json.Marshal(metadata.Broker{ID: 1, Incarnation: self, Host: host, Port: port})
	must(err)
	ops := []metadata.Op{metadata.Put(metadata.BrokerKey(self), registration), metadata.Put(metadata.ChainKey(self), []byte("{}"))}
	shard, err := json.Marshal(metadata.Coordinator{Incarnation: self, Epoch: 1})
	must(err)
	for i := range metadata.GroupShards {
		ops = append(ops, metadata.Put(metadata.CoordinatorKey(i), shard))
	}
	_, err = kv.Txn(ctx, metadata.Txn{Then: ops})
	must(err)
	view := metadata.NewView(kv, slog.New(slog.DiscardHandler))
	run(view.Run)
	must(view.WaitReady(ctx))
	store := objects.New()
	log, err := tiering.Open(ctx, tiering.Config{Incarnation: self, Cluster: wal.ClusterID{1}, Store: store, Chains: tiering.NewChains(kv), FlushSpacing: 2 * time.Millisecond})
	must(err)
	run(log.Run)
	admin := KVAdmin{KV: kv, Preferred: func(int32) metadata.Incarnation { return self }}
	peers := NewPeers(self, nil)
	groups, err := coordinator.New(coordinator.Config{Incarnation: self, KV: kv, View: view, Logger: slog.New(slog.DiscardHandler),
		Peers: peers, ProducerIDs: producerid.New(admin.AllocateProducerIDs)})
	must(err)
	run(groups.Run)
	run(func(ctx context.Context) error { return leadAll(ctx, kv, view, log, self) })
	cfg := Config{Self: self, ID: 1, ClusterID: "stack", Listener: ln, Log: TieringLog(log), View: view, Groups: groups, Transactions: groups, AutoCreateTopics: true,
		Admin: admin}
	if tune != nil {
		tune(&cfg)
	}
	s, err := New(cfg)
	must(err)
	peers.Serve(s)
	run(s.Run)
	k.server, k.kv, k.store, k.view, k.groups = s, kv, store, view, groups
	k.stop = func() { cancel(); wg.Wait(); peers.Close() }
	return k
}

// leadAll claims and leads every partition that nobody owns.
func leadAll(ctx context.Context, kv metadata.KV, view *metadata.View, log *tiering.Log, self metadata.Incarnation) error {
	changed, cancel := view.Subscribe()
	defer cancel()
	owners := []metadata.Owner{{Incarnation: self, Epoch: 0}}
	claim, err := json.Marshal(metadata.Partition{Owners: owners, Preferred: self})
	if err != nil {
		return err
	}
	led := map[metadata.TopicPartition]bool{}
	for {
		var lead []tiering.LeadRequest
		var ops []metadata.Op
		view.Partitions(func(tp metadata.TopicPartition, _ *metadata.Partition) bool {
			if !led[tp] {
				led[tp] = true
				ops = append(ops, metadata.Put(metadata.PartitionKey(tp), claim))
				lead = append(lead, tiering.LeadRequest{Partition: tp, Owners: owners})
			}
			return true
		})
		if len(ops) > 0 {
			if _, err := kv.Txn(ctx, metadata.Txn{Then: ops}); err != nil {
				return err
			}
			for _, err := range log.Lead(ctx, lead) {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// TestWholeStack produces with every codec and reads back in a group, then
// looks at the offsets.
func TestWholeStack(t *testing.T) {
	addr := newStack(t)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	const topic, perCodec = "orders", 300
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	want := map[string]bool{}
	for i, codec := range codecs {
		cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := kadm.NewClient(cl).CreateTopic(ctx, 4, 3, nil, topic); err != nil {
				t.Fatal(err)
			}
		}
		for j := range perCodec {
			v := fmt.Sprintf("%d/%d", i, j)
			want[v] = true
			cl.Produce(ctx, &kgo.Record{Key: []byte(v), Value: []byte(v)}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		if err := cl.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		cl.Close()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumerGroup("readers"), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for len(want) > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err0(); err != nil {
			t.Fatalf("%v with %d records missing", err, len(want))
		}
		fs.EachError(func(topic string, p int32, err error) { t.Errorf("%s %d: %v", topic, p, err) })
		fs.EachRecord(func(r *kgo.Record) {
			if !want[string(r.Value)] {
				t.Fatalf("%q twice or out of nowhere", r.Value)
			}
			delete(want, string(r.Value))
		})
	}
	if err := cl.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(cl)
	lag, err := adm.Lag(ctx, "readers")
	if err != nil || lag.Error() != nil {
		t.Fatal(err, lag.Error())
	}
	if n := lag["readers"].Lag.Total(); n != 0 {
		t.Errorf("lag %d", n)
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	if total != int64(len(codecs)*perCodec) {
		t.Errorf("%d records at the end, want %d", total, len(codecs)*perCodec)
	}
}
