package chaos

import (
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/chaos/etcdproxy"
	"github.com/tidemark-io/tidemark/test/chaos/s3proxy"
	"github.com/tidemark-io/tidemark/test/chaos/tcpproxy"
	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/harness"
)

// etcdMembers is how many members the rig's etcd has.
const etcdMembers = 3

// rig is a cluster with a proxy on every link. Indices are those of brokers and
// of etcd's members.
type rig struct {
	t       *testing.T
	name    string // of the scenario
	seed    uint64
	random  *rand.Rand // for the test's goroutine
	begun   time.Time
	cluster *harness.Cluster
	brokers []*harness.Broker
	etcd    *harness.Etcd
	history *checker.History

	closeHistory func() error
	logs         atomic.Int64 // of clients that are kept

	clients []*tcpproxy.Proxy   // clients to a broker; reads Kafka's frames
	peers   []*tcpproxy.Proxy   // brokers to a broker; a link for each source
	toEtcd  [][]*tcpproxy.Proxy // a broker to a member
	members []*etcdproxy.Proxy  // before a member; all brokers'
	raft    []*tcpproxy.Proxy   // members to a member; a link for each source
	toStore []*tcpproxy.Proxy   // a broker to its store proxy
	stores  []*s3proxy.Proxy    // before the bucket; a broker's own

	keepers  sync.WaitGroup
	stopKeep chan struct{}

	mu     sync.Mutex // guards what follows
	down   []bool     // brokers that are meant to be down
	kills  int
	exits  []string // brokers that ended by themselves
	starts int      // attempts to start that a broker gave up
	active []*fault
}

type rigOptions struct {
	brokers    int // 3 when 0
	etcdArgs   []string
	brokerArgs []string
	brokerEnv  []string
	bin        string // another broker than the one that was built
	plain      bool   // brokers tier as they do by default, whatever the seed
	// prepare is called for each broker before its first start.
	prepare func(i int, b *harness.Broker)
}

// tinyTiering makes brokers tier, trim, collect and sweep all the time, as every
// other seed does. Sweeps wait for no age: nothing may rest on that.
var tinyTiering = []string{
	"--tier-interval", "500ms", "--tier-age", "2s", "--tier-segment-bytes", "1MiB", "--tier-segment-bytes-max", "2MiB",
	"--collect-interval", "1s", "--sweep-interval", "5s", "--sweep-age", "1ms", "--delete-grace", "1s", "--retention-interval", "500ms",
}

// newRig starts everything and a history. All of it ends with the test.
func newRig(t *testing.T, name string, o rigOptions) *rig {
	t.Helper()
	harness.System(t)
	harness.Binary(t)
	r := &rig{t: t, name: name, seed: seed(t), begun: time.Now(), stopKeep: make(chan struct{})}
	r.random = rand.New(rand.NewPCG(r.seed, 0))
	tiering := "by default"
	if r.seed%2 == 1 && !o.plain {
		o.brokerArgs = slices.Concat(tinyTiering, o.brokerArgs)
		tiering = "all the time"
	}
	r.openHistory()
	minio := harness.StartMinIO(t)
	r.startEtcd(o)
	r.cluster = harness.NewCluster(t, minio, r.etcd)
	if o.brokers == 0 {
		o.brokers = 3
	}
	for i := range o.brokers {
		r.addBroker(i, minio, o)
	}
	for _, b := range r.brokers {
		b.Launch()
	}
	r.cluster.WaitReady()
	for i := range r.brokers {
		r.keepers.Go(func() { r.keep(i) })
	}
	t.Cleanup(func() { close(r.stopKeep); r.keepers.Wait() })
	t.Logf("seed %d, tiering %s; everything ready after %v", r.seed, tiering, time.Since(r.begun).Round(time.Millisecond))
	r.begun = time.Now()
	return r
}

func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("TIDEMARK_SEED")
	if text == "" {
		return rand.Uint64N(1 << 32)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("TIDEMARK_SEED: %v", err)
	}
	return n
}

// tcp makes a proxy that ends with the test.
func (r *rig) tcp(addr, target string, owner tcpproxy.Owner) *tcpproxy.Proxy {
	r.t.Helper()
	var source func(net.Addr) string
	if owner != nil {
		source = owner.Of
	}
	p, err := tcpproxy.New(addr, target, source)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(p.Close)
	return p
}

// startEtcd runs the members, each behind a proxy for its peers and one for its
// clients.
func (r *rig) startEtcd(o rigOptions) {
	r.t.Helper()
	var mu sync.Mutex
	var prepared []*harness.EtcdMember
	owner := tcpproxy.Owner(func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		pids := make(map[string]int)
		for _, m := range prepared {
			if m.Running() {
				pids[m.Name] = m.PID()
			}
		}
		return pids
	})
	r.etcd = harness.StartEtcdWith(r.t, harness.EtcdOptions{
		Members: etcdMembers, Args: o.etcdArgs,
		Via: func(_ int, listen string) string {
			p := r.tcp(harness.FreeAddr(r.t), listen, owner)
			r.raft = append(r.raft, p)
			return p.Addr()
		},
		Prepared: func(m *harness.EtcdMember) {
			mu.Lock()
			defer mu.Unlock()
			prepared = append(prepared, m)
		},
	})
	for i, m := range r.etcd.Members {
		p, err := etcdproxy.New(harness.FreeAddr(r.t), m.Addr(), r.seed+uint64(i))
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(p.Close)
		r.members = append(r.members, p)
	}
}

// addBroker prepares a broker whose every link goes through a proxy.
func (r *rig) addBroker(i int, minio *harness.MinIO, o rigOptions) {
	r.t.Helper()
	b := r.cluster.Add()
	r.brokers = append(r.brokers, b)
	r.down = append(r.down, false)
	kafka, err := tcpproxy.NewKafka(harness.FreeAddr(r.t), b.Addr, r.seed+uint64(i))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(kafka.Close)
	store, err := s3proxy.New(harness.FreeAddr(r.t), minio.Addr, r.seed+uint64(i))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(store.Close)
	toStore := r.tcp(harness.FreeAddr(r.t), store.Addr(), nil)
	peer := r.tcp(harness.FreeAddr(r.t), b.Peer, r.brokerOf())
	var urls []string
	var toEtcd []*tcpproxy.Proxy
	for _, m := range r.members {
		p := r.tcp(harness.FreeAddr(r.t), m.Addr(), nil)
		toEtcd = append(toEtcd, p)
		urls = append(urls, "http://"+p.Addr())
	}
	r.clients, r.stores = append(r.clients, kafka), append(r.stores, store)
	r.toStore, r.peers, r.toEtcd = append(r.toStore, toStore), append(r.peers, peer), append(r.toEtcd, toEtcd)

	b.Advertised = kafka.Addr()
	b.Args = append(b.Args, "--advertise", kafka.Addr(), "--peer-advertise", peer.Addr(),
		"--etcd", strings.Join(urls, ","), "--s3-endpoint", "http://"+toStore.Addr())
	b.Args = append(b.Args, o.brokerArgs...)
	b.Env = append(append(b.Env, "GOMAXPROCS=1", "GOMEMLIMIT=1GiB"), o.brokerEnv...)
	if o.bin != "" {
		b.Bin = o.bin
	}
	if o.prepare != nil {
		o.prepare(i, b)
	}
}

// brokerOf tells brokers apart by their sockets.
func (r *rig) brokerOf() tcpproxy.Owner {
	return func() map[string]int {
		pids := make(map[string]int)
		for _, b := range r.cluster.Brokers {
			if b.Running() {
				pids[b.Name] = b.PID()
			}
		}
		return pids
	}
}

// keepEvery is how often a broker that should run is looked at.
const keepEvery = 100 * time.Millisecond

// keep starts a broker again that ended by itself, as an init system does, and
// remembers that it did.
func (r *rig) keep(i int) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.stopKeep:
			return
		case <-tick.C:
		}
		r.mu.Lock()
		if !r.down[i] && !r.brokers[i].Running() {
			r.noteExit(r.brokers[i])
			r.brokers[i].Launch()
		}
		r.mu.Unlock()
	}
}

// noteExit tells a broker that could not start, because what it needs was not
// there, from one that was at work and ended. Called with mu held.
func (r *rig) noteExit(b *harness.Broker) {
	log := strings.TrimRight(b.Log(), "\n")
	last := log[strings.LastIndexByte(log, '\n')+1:]
	if strings.HasPrefix(last, "tidemark: start: ") {
		r.starts++
		return
	}
	r.exits = append(r.exits, b.Name)
	r.t.Logf("%s ended by itself: %s", b.Name, last)
}

// kill ends brokers at once with SIGKILL and leaves them down.
func (r *rig) kill(targets ...int) {
	r.t.Helper()
	r.mu.Lock()
	for _, i := range targets {
		r.down[i] = true
		r.kills++
	}
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, i := range targets {
		wg.Go(r.brokers[i].Kill)
	}
	wg.Wait()
}

// start runs brokers that were killed and does not wait until they are ready.
func (r *rig) start(targets ...int) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range targets {
		if !r.brokers[i].Running() {
			r.brokers[i].Launch()
		}
		r.down[i] = false
	}
}

// all are the indices of the brokers.
func (r *rig) all() []int {
	all := make([]int, len(r.brokers))
	for i := range all {
		all[i] = i
	}
	return all
}

func (r *rig) names(targets []int) []string {
	var names []string
	for _, i := range targets {
		names = append(names, r.brokers[i].Name)
	}
	return names
}

// exited is how many times brokers ended by themselves.
func (r *rig) exited() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.exits)
}
