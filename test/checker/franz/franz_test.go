package franz

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/broker/node"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
	objects "github.com/tidemark-io/tidemark/tiering/object/mem"

	"github.com/tidemark-io/tidemark/test/checker"
)

const (
	topic      = "told"
	partitions = 3
	records    = 60
)

// startBroker runs a broker whose bucket and etcd are memory.
func startBroker(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	ready, ended := make(chan struct{}, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		ended <- node.Run(ctx, node.Config{
			Store: objects.New(), KV: mem.New().Client(), Identity: metadata.Identity{Generation: 1}, Single: true,
			Broker:       metadata.Broker{Host: "127.0.0.1", Port: int32(port)},
			Listen:       func() (clients, peers net.Listener, err error) { return l, nil, nil },
			Ready:        func() { ready <- struct{}{} },
			FlushSpacing: time.Millisecond, GroupInitialRebalanceDelay: 10 * time.Millisecond,
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	return l.Addr().String()
}

// TestADayIsTold has clients do a bit of everything and looks whether all of it
// got into the history, and whether the history is a good one.
func TestADayIsTold(t *testing.T) {
	addr := startBroker(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := checker.NewHistory()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	p, told := h.RetryingProducer("producer"), make(chan error, records)
	for i := range records {
		Produce(ctx, cl, p, topic, int32(i%partitions), 100, func(_ *kgo.Record, err error) { told <- err })
	}
	for range records {
		if err := <-told; err != nil {
			t.Fatal(err)
		}
	}
	assigned(ctx, t, h, addr)
	grouped(ctx, t, h, addr)
	for _, what := range []What{Starts, Stable, Ends} {
		offsets, err := List(ctx, cl, h, "lister", topic, what)
		want := int64(records / partitions)
		if what == Starts {
			want = 0
		}
		if err != nil || len(offsets) != partitions || offsets[0] != want {
			t.Errorf("%v, %v; want %d each", offsets, err, want)
		}
	}
	if err := Fetch(ctx, cl, h, "fetcher", "group", topic, partitions); err != nil {
		t.Error(err)
	}
	for i := range 2 {
		if err := Scan(ctx, h, fmt.Sprint("scan-", i), "broker-1", addr, topic); err != nil {
			t.Error(err)
		}
	}
	v := h.Check(checker.Rules{Nodes: []string{"broker-1"}})
	if !v.OK() {
		t.Errorf("%v: %v", v, v.Violations)
	}
	if v.Counts.Acked != records || v.Known != records || v.Counts.Read != 4*records || v.Scans != 2*partitions ||
		v.Committed == 0 || v.Fetched != partitions || v.Watermarks < 3*partitions {
		t.Errorf("not everything was told: %v", v)
	}
}

// assigned reads everything with a consumer that chooses its partitions.
func assigned(ctx context.Context, t *testing.T, h *checker.History, addr string) {
	c := h.Consumer("assigned", checker.ReadUncommitted, checker.Assigned, checker.Epochs)
	defer c.Close()
	cl, err := kgo.NewClient(append(Assign(c, topic, partitions), kgo.SeedBrokers(addr))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for n := 0; n < records && ctx.Err() == nil; {
		n += Poll(ctx, cl, c).NumRecords()
	}
}

// grouped reads everything with a member of a group, and commits.
func grouped(ctx context.Context, t *testing.T, h *checker.History, addr string) {
	m, err := Join(h, "member", "group", topic, kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for n := 0; n < records && ctx.Err() == nil; {
		n += m.Poll(ctx).NumRecords()
	}
	if err := m.Commit(ctx); err != nil {
		t.Error(err)
	}
}

// TestLossIsTold: a consumer that stands beyond the end of the log is told of.
func TestLossIsTold(t *testing.T) {
	addr := startBroker(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	h := checker.NewHistory()
	c := h.Consumer("ahead", checker.ReadUncommitted, checker.Assigned)
	admin, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := kadm.NewClient(admin).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(5)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for h.Counts().Events == 0 && ctx.Err() == nil {
		Poll(ctx, cl, c)
	}
	v := h.Check(checker.Rules{})
	if v.Broken["C9"] == 0 || !strings.Contains(v.Violations[0].String(), "was reset") {
		t.Errorf("%v: %v", v, v.Violations)
	}
}
