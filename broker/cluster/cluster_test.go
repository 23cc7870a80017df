package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

// rig is a cluster in one process: real metadata over a store in memory, fake
// logs over one bucket, a fake network.
type rig struct {
	t      *testing.T
	ctx    context.Context
	store  *mem.Store
	admin  *mem.Client
	bucket *fakeBucket
	net    *fakeNet
	nodes  []*member
	view   *metadata.View
	wg     sync.WaitGroup
	log    *slog.Logger
	real   bool // brokers talk over loopback
}

type member struct {
	*Node
	rig     *rig
	inc     metadata.Incarnation
	addr    string
	client  *mem.Client
	session *metadata.Session
	log     *fakeLog
	cancel  context.CancelFunc
	ended   chan struct{}
	err     error // valid after ended
}

// inCluster runs f with a cluster of n brokers, in fake time.
func inCluster(t *testing.T, n int, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { runRig(t, &rig{}, n, f) })
}

func runRig(t *testing.T, r *rig, n int, f func(r *rig)) {
	ctx, cancel := context.WithCancel(context.Background())
	r.t, r.ctx, r.store, r.bucket = t, ctx, mem.New(), newFakeBucket(t)
	r.net, r.log = &fakeNet{ends: make(map[string]*fakeEnd)}, slog.New(slog.DiscardHandler)
	if os.Getenv("CLUSTER_TEST_LOG") != "" {
		r.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	r.admin = r.store.Client()
	r.view = metadata.NewView(r.admin, r.log)
	r.wg.Go(func() { _ = r.view.Run(ctx) })
	defer func() { cancel(); r.wg.Wait() }()
	for range n {
		r.join()
	}
	f(r)
}

// join starts one more broker.
func (r *rig) join() *member {
	r.t.Helper()
	return r.joinAt(fmt.Sprintf("broker-%d", len(r.nodes)))
}

func (r *rig) joinAt(addr string) *member {
	r.t.Helper()
	m := &member{rig: r, addr: addr, client: r.store.Client(), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(r.ctx)
	m.cancel = cancel
	var err error
	var listener net.Listener
	if r.real {
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			r.t.Fatal(err)
		}
		m.addr = listener.Addr().String()
	}
	m.session, err = metadata.Register(ctx, m.client, metadata.SessionConfig{
		Generation: 1, Log: r.log, Broker: metadata.Broker{Peer: m.addr},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	m.inc = m.session.Incarnation()
	view := metadata.NewView(m.client, r.log)
	m.log = newFakeLog(r.bucket, m.client, m.inc)
	cfg := Config{
		Incarnation: m.inc, KV: m.client, View: view, Session: m.session, Log: m.log,
		Logger: r.log.With("self", m.inc), PeerListener: listener,
	}
	if !r.real {
		cfg.network = r.net
	}
	m.Node, err = New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	m.log.peers = m.Node
	r.net.listen(m.addr, m.inc, m.Node)
	r.wg.Go(func() { _ = view.Run(ctx) })
	r.wg.Go(func() { _ = m.session.Run(ctx) })
	r.wg.Go(func() {
		defer close(m.ended)
		m.err = m.Node.Run(ctx)
		r.net.kill(m.addr)
		cancel()
	})
	r.nodes = append(r.nodes, m)
	return m
}

// kill ends a broker as kill -9 would.
func (m *member) kill() {
	m.client.SetUnavailable(true)
	m.rig.net.kill(m.addr)
	m.cancel()
	<-m.ended
}

func (r *rig) topic(name string, partitions int32) *metadata.Topic {
	r.t.Helper()
	topic, rev, err := metadata.CreateTopic(r.ctx, r.admin, metadata.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: 1})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.view.WaitRevision(r.ctx, rev); err != nil {
		r.t.Fatal(err)
	}
	return topic
}

// led counts the partitions of a topic each broker serves.
func (r *rig) led(topic *metadata.Topic) map[metadata.Incarnation]int {
	c := make(map[metadata.Incarnation]int)
	for p := range topic.Partitions {
		for _, inc := range r.bucket.leaders(metadata.TopicPartition{Topic: topic.ID, Partition: p}) {
			c[inc]++
		}
	}
	return c
}

func total(c map[metadata.Incarnation]int) (n int) {
	for _, v := range c {
		n += v
	}
	return n
}

// shards counts the group shards by coordinator.
func (r *rig) shards() map[metadata.Incarnation]int {
	c := make(map[metadata.Incarnation]int)
	for s := range metadata.GroupShards {
		if o, _, ok := r.view.Coordinator(s); ok {
			c[o.Incarnation]++
		}
	}
	return c
}

// eventually waits for a condition, in fake time, and returns how long it took.
func (r *rig) eventually(within time.Duration, what string, ok func() bool) time.Duration {
	r.t.Helper()
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > within {
			r.t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begun)
}

func (r *rig) controller() *member {
	r.t.Helper()
	var m *member
	r.eventually(10*time.Second, "a controller among the living", func() bool {
		c, ok := r.view.Controller()
		i := slices.IndexFunc(r.nodes, func(m *member) bool { return ok && m.inc == c.Incarnation && m.alive() })
		if i >= 0 {
			m = r.nodes[i]
		}
		return i >= 0
	})
	return m
}

func (m *member) alive() bool {
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// other returns a live broker that is not the controller.
func (r *rig) other() *member {
	c := r.controller()
	i := slices.IndexFunc(r.nodes, func(m *member) bool { return m != c && m.alive() })
	return r.nodes[i]
}

func (r *rig) balanced(topic *metadata.Topic, each ...int) func() bool {
	slices.Sort(each)
	return func() bool {
		var got []int
		led := r.led(topic)
		for _, m := range r.nodes {
			if m.alive() {
				got = append(got, led[m.inc])
			}
		}
		slices.Sort(got)
		return slices.Equal(got, each)
	}
}

// settle waits until a topic is spread as given and the cluster has come to rest.
func (r *rig) settle(topic *metadata.Topic, each ...int) {
	r.t.Helper()
	r.eventually(5*time.Second, "settled", r.balanced(topic, each...))
	time.Sleep(2 * time.Second)
}

// The same over real sockets and in real time: a broker that dies, one that
// joins and one that leaves.
func TestOverLoopback(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds of real time")
	}
	runRig(t, &rig{real: true}, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		victim := r.other()
		victim.kill()
		took := r.eventually(3*time.Second, "taken over", func() bool {
			led := r.led(topic)
			return led[victim.inc] == 0 && total(led) == 12
		})
		t.Logf("kill to new leadership: %v", took)
		r.join()
		r.settle(topic, 4, 4, 4)
		leaver := r.controller()
		begun := time.Now()
		if err := leaver.Drain(r.ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("drained in %v", time.Since(begun))
		r.eventually(time.Second, "taken over", func() bool {
			led := r.led(topic)
			return led[leaver.inc] == 0 && total(led) == 12
		})
		for _, m := range r.nodes {
			if m.log.asked == 0 {
				continue
			}
			return
		}
		t.Error("nobody ever asked for a release")
	})
}

func TestNewTopicIsLed(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		r.controller()
		time.Sleep(3 * time.Second)
		topic := r.topic("orders", 12)
		took := r.eventually(time.Second, "12 partitions led by three", r.balanced(topic, 4, 4, 4))
		if took > 300*time.Millisecond {
			t.Errorf("took %v", took)
		}
		r.eventually(3*time.Second, "50 shards on three", func() bool {
			c := r.shards()
			return total(c) == metadata.GroupShards && len(c) == 3
		})
	})
}

func TestKilledBrokerIsReplaced(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		for _, victim := range []*member{r.other(), r.controller()} {
			victim.kill()
			took := r.eventually(2*time.Second, "all led without "+victim.inc.String(), func() bool {
				led := r.led(topic)
				return led[victim.inc] == 0 && total(led) == 12
			})
			t.Logf("kill to new leadership: %v", took)
			if took > time.Second {
				t.Errorf("took %v", took)
			}
			r.eventually(time.Second, "shards moved", func() bool {
				c := r.shards()
				return c[victim.inc] == 0 && total(c) == metadata.GroupShards
			})
		}
		last := r.controller()
		if led := r.led(topic); led[last.inc] != 12 {
			t.Errorf("led %v", led)
		}
	})
}

// TestOffsetsTopicFollowsCoordinators: whoever coordinates a shard leads its
// partition of __consumer_offsets, whatever else that makes uneven.
func TestOffsetsTopicFollowsCoordinators(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic, rev, err := metadata.CreateTopic(r.ctx, r.admin, metadata.TopicSpec{
			Name: metadata.OffsetsTopic, ID: metadata.InternalTopicID(metadata.OffsetsTopic), Partitions: metadata.GroupShards, ReplicationFactor: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.view.WaitRevision(r.ctx, rev); err != nil {
			t.Fatal(err)
		}
		together := func() bool {
			for shard := range metadata.GroupShards {
				o, _, ok := r.view.Coordinator(shard)
				leaders := r.bucket.leaders(metadata.TopicPartition{Topic: topic.ID, Partition: int32(shard)})
				if !ok || len(leaders) != 1 || leaders[0] != o.Incarnation {
					return false
				}
			}
			return true
		}
		r.eventually(10*time.Second, "coordinators lead", together)
		r.other().kill()
		r.eventually(20*time.Second, "coordinators lead again", func() bool { return together() && len(r.shards()) == 2 })
	})
}

func TestRestartOnTheSameAddress(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		victim := r.other()
		victim.kill()
		r.joinAt(victim.addr)
		r.eventually(5*time.Second, "the new process has its share", r.balanced(topic, 4, 4, 4))
		if led := r.led(topic); led[victim.inc] != 0 {
			t.Errorf("led %v", led)
		}
	})
}

func TestJoiningBrokerGetsWork(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		r.join()
		took := r.eventually(3*time.Second, "3 each", r.balanced(topic, 3, 3, 3, 3))
		t.Logf("join to balance: %v", took)
		for _, m := range r.nodes {
			if s := m.log.sealed(); len(s) != 0 {
				t.Errorf("%s sealed %v for a move", m.inc, s)
			}
		}
	})
}

func TestDrain(t *testing.T) {
	for _, role := range []string{"other", "controller"} {
		t.Run(role, func(t *testing.T) {
			inCluster(t, 3, func(r *rig) {
				topic := r.topic("orders", 12)
				r.settle(topic, 4, 4, 4)
				leaver := r.other()
				if role == "controller" {
					leaver = r.controller()
				}
				begun := time.Now()
				if err := leaver.Drain(r.ctx); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun); took > 500*time.Millisecond {
					t.Errorf("drain took %v", took)
				}
				// The last of them are released, and on their way to be opened.
				r.eventually(100*time.Millisecond, "all led by others", func() bool {
					led := r.led(topic)
					return total(led) == 12 && led[leaver.inc] == 0
				})
				<-leaver.ended
				if leaver.err != nil {
					t.Errorf("run: %v", leaver.err)
				}
				r.controller()
			})
		})
	}
}

func TestDrainAlone(t *testing.T) {
	inCluster(t, 1, func(r *rig) {
		topic := r.topic("orders", 3)
		r.settle(topic, 3)
		begun := time.Now()
		if err := r.nodes[0].Drain(r.ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 200*time.Millisecond {
			t.Errorf("took %v", took)
		}
		<-r.nodes[0].ended
		if err := r.nodes[0].err; err != nil {
			t.Error(err)
		}
	})
}

// A process that hangs keeps its connections: its session's end gives it away.
// When it comes back it finds its incarnation over.
func TestHungBroker(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		victim := r.other()
		victim.client.Pause()
		r.net.hang(victim.addr, true)
		took := r.eventually(10*time.Second, "taken over", func() bool {
			led := r.led(topic)
			return led[victim.inc] == 0 && total(led) == 12
		})
		t.Logf("hang to new leadership: %v", took)
		for p := range topic.Partitions {
			if err := victim.log.produce(metadata.TopicPartition{Topic: topic.ID, Partition: p}); err == nil {
				t.Errorf("the deposed leader wrote to partition %d", p)
			}
		}
		victim.client.Resume()
		r.net.hang(victim.addr, false)
		<-victim.ended
		if !errors.Is(victim.err, ErrIncarnationOver) {
			t.Errorf("run: %v", victim.err)
		}
	})
}

// An idle log does not write, so it would never find the fence: the vanished
// registration makes the broker look.
func TestSealedIdleBrokerNotices(t *testing.T) {
	inCluster(t, 2, func(r *rig) {
		victim := r.other()
		time.Sleep(2 * time.Second)
		if _, err := r.controller().log.Seal(r.ctx, victim.inc); err != nil {
			t.Fatal(err)
		}
		r.eventually(time.Second, "the sealed broker to stop", func() bool { return !victim.alive() })
		if !errors.Is(victim.err, ErrIncarnationOver) {
			t.Errorf("run: %v", victim.err)
		}
	})
}

// Healthy brokers lose their leases when etcd hiccups. They register again, and
// nothing moves.
func TestLostLeasesMoveNothing(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		before := r.led(topic)
		for _, m := range r.nodes {
			r.store.DropLease(m.session.Lease())
		}
		time.Sleep(30 * time.Second)
		for inc, n := range r.led(topic) {
			if before[inc] != n {
				t.Errorf("%s led %d, now %d", inc, before[inc], n)
			}
		}
		for _, m := range r.nodes {
			if !m.alive() || len(m.log.sealed()) > 0 {
				t.Errorf("%s: alive %v, sealed %v", m.inc, m.alive(), m.log.sealed())
			}
		}
		r.controller()
		r.eventually(time.Second, "a new topic led", r.balanced(r.topic("later", 3), 1, 1, 1))
	})
}

// One broker is cut off from etcd for good, and answers its peers.
func TestBrokerWithoutEtcdIsGivenTime(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		victim := r.other()
		victim.client.SetUnavailable(true)
		time.Sleep(15 * time.Second) // its lease lapses after 4 to 6 s
		if led := r.led(topic); led[victim.inc] != 4 {
			t.Errorf("taken over early: %v", led)
		}
		r.eventually(10*time.Second, "taken over", func() bool {
			led := r.led(topic)
			return led[victim.inc] == 0 && total(led) == 12
		})
	})
}

func TestBrokerThatAloneCannotWrite(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		for _, victim := range []*member{r.other(), r.controller()} {
			victim.log.stick(time.Now())
			took := r.eventually(10*time.Second, "sealed", func() bool { return r.led(topic)[victim.inc] == 0 })
			if took < stuckLimit {
				t.Errorf("sealed after %v", took)
			}
			r.eventually(2*time.Second, "taken over", func() bool { return total(r.led(topic)) == 12 })
		}
	})
}

func TestBucketOutageMovesNothing(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		for _, m := range r.nodes {
			m.log.stick(time.Now())
		}
		time.Sleep(4 * time.Second)
		dead := r.other()
		dead.kill() // even a dead broker waits for the bucket
		time.Sleep(20 * time.Second)
		for _, m := range r.nodes {
			if s := m.log.sealed(); len(s) != 0 {
				t.Errorf("%s sealed %v", m.inc, s)
			}
		}
		for _, m := range r.nodes {
			m.log.stick(time.Time{})
		}
		r.eventually(5*time.Second, "the dead one taken over", func() bool {
			led := r.led(topic)
			return led[dead.inc] == 0 && total(led) == 12
		})
	})
}

// The whole cluster dies and other processes start: they know none of the old
// incarnations.
func TestColdStart(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		old := slices.Clone(r.nodes)
		for _, m := range old {
			m.kill()
		}
		time.Sleep(10 * time.Second)
		for range 3 {
			r.join()
		}
		took := r.eventually(10*time.Second, "led by the new ones", func() bool {
			led := r.led(topic)
			for _, m := range old {
				if led[m.inc] > 0 {
					return false
				}
			}
			return total(led) == 12
		})
		t.Logf("cold start: %v", took)
		r.eventually(5*time.Second, "balanced", r.balanced(topic, 4, 4, 4))
	})
}

func TestOwnerListsAreTrimmed(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		victim := r.other()
		victim.kill()
		r.eventually(5*time.Second, "taken over", func() bool {
			led := r.led(topic)
			return led[victim.inc] == 0 && total(led) == 12
		})
		longest := func() (n int) {
			r.view.Partitions(func(_ metadata.TopicPartition, p *metadata.Partition) bool {
				n = max(n, len(p.Owners))
				return true
			})
			return n
		}
		time.Sleep(time.Second)
		if longest() < 2 {
			t.Fatal("trimmed before a checkpoint")
		}
		for _, m := range r.nodes {
			if m.alive() {
				m.log.checkpointAll()
			}
		}
		r.eventually(time.Second, "one owner each", func() bool { return longest() == 1 })
	})
}

func TestDeletedTopicIsLetGo(t *testing.T) {
	inCluster(t, 2, func(r *rig) {
		topic := r.topic("orders", 4)
		r.settle(topic, 2, 2)
		if _, err := metadata.DeleteTopic(r.ctx, r.admin, topic.ID); err != nil {
			t.Fatal(err)
		}
		r.eventually(time.Second, "let go", func() bool { return total(r.led(topic)) == 0 })
	})
}

// The controller keeps history bounded, and leaves the last minutes of it.
func TestHistoryIsCompacted(t *testing.T) {
	inCluster(t, 2, func(r *rig) {
		kv := r.admin
		r.controller()
		time.Sleep(time.Minute) // what a start writes is written
		before := r.revision(kv)
		for i := range 2 * compactWorth {
			if _, err := kv.Txn(r.ctx, metadata.Txn{Then: []metadata.Op{metadata.Put("offsets/0/g", fmt.Append(nil, i))}}); err != nil {
				t.Fatal(err)
			}
		}
		written := r.revision(kv)
		time.Sleep(2*compactEvery + time.Minute)
		if !r.forgotten(kv, before+1) {
			t.Error("old history is kept")
		}
		if r.forgotten(kv, written+1) {
			t.Error("recent history is gone")
		}
	})
}

func (r *rig) revision(kv metadata.KV) int64 {
	r.t.Helper()
	_, rev, err := kv.Get(r.ctx, "any")
	if err != nil {
		r.t.Fatal(err)
	}
	return rev
}

// forgotten reports whether a watch cannot begin at rev any more.
func (r *rig) forgotten(kv metadata.KV, rev int64) bool {
	ctx, cancel := context.WithTimeout(r.ctx, time.Second)
	defer cancel()
	for e := range kv.Watch(ctx, "offsets/", rev) {
		if errors.Is(e.Err, metadata.ErrCompacted) {
			return true
		}
	}
	return false
}
