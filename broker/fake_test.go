package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/batch"
)

// fakeCommit is an append whose fate the test decides.
type fakeCommit struct {
	done chan struct{}
	err  error
}

func (c *fakeCommit) Done() <-chan struct{} { return c.done }
func (c *fakeCommit) Err() error            { return c.err }

// fakePartition is a log in memory. Appends commit at once unless held.
type fakePartition struct {
	mu      sync.Mutex
	epoch   int32
	ends    map[int32]int64 // of earlier epochs
	batches [][]byte
	start   int64
	end     int64
	tiered  int64
	hold    bool
	held    []*fakeCommit
	refuse  error
	subs    map[chan<- struct{}]struct{}
	reads   int
	behind  bool
	reading chan struct{} // not nil: a read waits until it can be received from
}

func (p *fakePartition) LeaderEpoch() int32 { return p.epoch }

func (p *fakePartition) Append(records []byte, h batch.Header, now int64, stamp bool) (Appended, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return Appended{}, p.refuse
	}
	a := Appended{BaseOffset: p.end, LogAppendTime: -1, LogStart: p.start}
	if stamp {
		batch.SetLogAppendTime(records, now)
		a.LogAppendTime = now
	}
	batch.SetOffset(records, p.end, p.epoch)
	p.end += int64(h.Records)
	p.batches = append(p.batches, records)
	c := &fakeCommit{done: make(chan struct{})}
	a.Commit = c
	p.held = append(p.held, c)
	if !p.hold {
		p.releaseLocked(nil)
	}
	return a, nil
}

func (p *fakePartition) AppendTxn(records []byte, h batch.Header, now int64, stamp bool, _ *tiering.TxnGuard) (Appended, error) {
	return p.Append(records, h, now, stamp)
}

func (p *fakePartition) AppendMarker(m tiering.TxnMarker, now int64, stamp bool) (Appended, error) {
	raw, h := batch.EncodeMarker(m.Marker, now)
	return p.Append(raw, h, now, stamp)
}

func (p *fakePartition) GuardTxn(int64, int16, bool) (*tiering.TxnGuard, error) { return nil, nil }
func (p *fakePartition) UnguardTxn(*tiering.TxnGuard)                           {}
func (p *fakePartition) Producers() []tiering.ProducerState                     { return nil }

func (p *fakePartition) ReadCommitted(ctx context.Context, offset int64, maxBytes int) (*tiering.ReadResult, error) {
	return p.Read(ctx, offset, maxBytes)
}

func (p *fakePartition) AvailableCommitted(offset, limit int64) int64 {
	return p.Available(offset, limit)
}

func (p *fakePartition) releaseLocked(err error) {
	for _, c := range p.held {
		c.err = err
		close(c.done)
	}
	p.held = nil
	for ch := range p.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (p *fakePartition) release(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releaseLocked(err)
}

func (p *fakePartition) high() int64 {
	if len(p.held) > 0 {
		return p.end - int64(len(p.held)) // tests hold batches of one record
	}
	return p.end
}

func (p *fakePartition) Offsets() tiering.Offsets {
	p.mu.Lock()
	defer p.mu.Unlock()
	return tiering.Offsets{LogStart: p.start, HighWatermark: p.high(), LastStable: p.high(), Tiered: max(p.start, p.tiered)}
}

func (p *fakePartition) Read(ctx context.Context, offset int64, maxBytes int) (*tiering.ReadResult, error) {
	if p.reading != nil {
		select {
		case <-p.reading:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	o := p.Offsets()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reads++
	r := &tiering.ReadResult{Offsets: o}
	if offset < o.LogStart || offset > o.HighWatermark {
		return r, tiering.ErrOffsetOutOfRange
	}
	for _, b := range p.batches {
		h, _ := batch.Parse(b)
		if h.LastOffset() < offset || h.LastOffset() >= o.HighWatermark || len(r.Records) > 0 && len(r.Records)+len(b) > maxBytes {
			continue
		}
		r.Records = append(r.Records, b...)
	}
	return r, nil
}

func (p *fakePartition) Subscribe(ch chan<- struct{}) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.subs == nil {
		p.subs = map[chan<- struct{}]struct{}{}
	}
	p.subs[ch] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.subs, ch)
	}
}

func (p *fakePartition) Behind(int64) bool { return p.behind }

func (p *fakePartition) Available(offset, limit int64) int64 {
	o := p.Offsets()
	p.mu.Lock()
	defer p.mu.Unlock()
	var n int64
	for _, b := range p.batches {
		if h, _ := batch.Parse(b); h.LastOffset() >= offset && h.LastOffset() < o.HighWatermark {
			n += int64(len(b))
		}
	}
	return min(n, limit)
}

func (p *fakePartition) EpochEnd(epoch int32) tiering.EpochEnd {
	if epoch >= p.epoch {
		return tiering.EpochEnd{Epoch: p.epoch, End: p.Offsets().HighWatermark}
	}
	best := tiering.EpochEnd{Epoch: -1, End: -1}
	for e, end := range p.ends {
		if e <= epoch && e > best.Epoch {
			best = tiering.EpochEnd{Epoch: e, End: end}
		}
	}
	return best
}

func (p *fakePartition) EpochOf(int64) int32 { return p.epoch }

func (p *fakePartition) OffsetForTimestamp(_ context.Context, ts int64) (tiering.TimestampOffset, error) {
	for _, b := range p.batches {
		if h, _ := batch.Parse(b); h.MaxTimestamp >= ts {
			return tiering.TimestampOffset{Offset: h.BaseOffset, Timestamp: h.MaxTimestamp, Epoch: p.epoch}, nil
		}
	}
	return tiering.TimestampOffset{Offset: -1, Timestamp: -1, Epoch: -1}, nil
}

func (p *fakePartition) MaxTimestamp(ctx context.Context) (tiering.TimestampOffset, error) {
	return p.OffsetForTimestamp(ctx, 0)
}

func (p *fakePartition) DeleteRecords(ctx context.Context, offset int64) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return -1, p.refuse
	}
	if p.hold {
		return -1, fmt.Errorf("%w: as the test wants", tiering.ErrTimedOut)
	}
	if offset == tiering.HighWatermark {
		offset = p.high()
	}
	if offset < 0 || offset > p.high() {
		return -1, tiering.ErrOffsetOutOfRange
	}
	p.start = max(p.start, offset)
	return p.start, nil
}

// fakeLog leads every partition of the view unless told otherwise.
type fakeLog struct {
	mu     sync.Mutex
	parts  map[metadata.TopicPartition]*fakePartition
	lead   bool
	check  error
	checks []time.Duration
	view   *fakeView
	admit  func(ctx context.Context, n int) (func(), error)
}

func (l *fakeLog) Admit(ctx context.Context, n int) (func(), error) {
	if l.admit != nil {
		return l.admit(ctx, n)
	}
	return func() {}, nil
}

func (l *fakeLog) Check(_ context.Context, maxAge time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checks = append(l.checks, maxAge)
	return l.check
}

func (l *fakeLog) Partition(tp metadata.TopicPartition) (Partition, error) {
	if !l.lead {
		return nil, tiering.ErrNotLeader
	}
	return l.part(tp), nil
}

// Await does not wait: nothing opens later here.
func (l *fakeLog) Await(_ context.Context, tp metadata.TopicPartition) (Partition, error) {
	return l.Partition(tp)
}

func (l *fakeLog) part(tp metadata.TopicPartition) *fakePartition {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.parts[tp]
	if !ok {
		p = &fakePartition{epoch: 3}
		l.parts[tp] = p
	}
	return p
}

// fakeView is the cluster's metadata, and fakeAdmin changes it.
type fakeView struct {
	mu      sync.Mutex
	brokers []metadata.Broker
	topics  map[string]*metadata.Topic
	owner   metadata.Incarnation
	configs map[string]map[string]string
}

func (v *fakeView) Brokers() []metadata.Broker { return v.brokers }
func (v *fakeView) Broker(i metadata.Incarnation) (metadata.Broker, bool) {
	for _, b := range v.brokers {
		if b.Incarnation == i {
			return b, true
		}
	}
	return metadata.Broker{}, false
}
func (v *fakeView) Controller() (metadata.Controller, bool) {
	return metadata.Controller{Incarnation: v.brokers[0].Incarnation}, true
}
func (v *fakeView) Topic(name string) (*metadata.Topic, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, ok := v.topics[name]
	return t, ok
}
func (v *fakeView) TopicByID(id metadata.TopicID) (*metadata.Topic, bool) {
	for _, t := range v.Topics() {
		if t.ID == id {
			return t, true
		}
	}
	return nil, false
}
func (v *fakeView) Topics() []*metadata.Topic {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.SortedFunc(maps.Values(v.topics), func(a, b *metadata.Topic) int { return strings.Compare(a.Name, b.Name) })
}
func (v *fakeView) Partition(tp metadata.TopicPartition) (*metadata.Partition, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return &metadata.Partition{Owners: []metadata.Owner{{Incarnation: v.owner, Epoch: 3}}}, true
}
func (v *fakeView) Coordinator(int) (metadata.Coordinator, int64, bool) {
	return metadata.Coordinator{Incarnation: v.owner, Epoch: 1}, 1, true
}
func (v *fakeView) Config(kind, name string) map[string]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.configs[kind+"/"+name]
}
func (v *fakeView) Subscribe() (<-chan struct{}, func())      { return nil, func() {} }
func (v *fakeView) WaitRevision(context.Context, int64) error { return nil }

type fakeAdmin struct {
	v    *fakeView
	next atomic.Int64
}

func (a *fakeAdmin) CreateTopic(_ context.Context, spec metadata.TopicSpec) (*metadata.Topic, int64, error) {
	a.v.mu.Lock()
	defer a.v.mu.Unlock()
	if a.v.topics[spec.Name] != nil {
		return nil, 0, metadata.ErrTopicExists
	}
	t := &metadata.Topic{ID: metadata.NewTopicID(), Name: spec.Name, Partitions: spec.Partitions, ReplicationFactor: spec.ReplicationFactor, Configs: spec.Configs}
	a.v.topics[spec.Name] = t
	return t, 1, nil
}
func (a *fakeAdmin) edit(id metadata.TopicID, f func(t *metadata.Topic) error) (int64, error) {
	for _, t := range a.v.Topics() {
		if t.ID == id {
			next := *t
			next.Configs = maps.Clone(t.Configs)
			if next.Configs == nil {
				next.Configs = map[string]string{}
			}
			if err := f(&next); err != nil {
				return 0, err
			}
			a.v.mu.Lock()
			defer a.v.mu.Unlock()
			a.v.topics[t.Name] = &next
			return 1, nil
		}
	}
	return 0, metadata.ErrUnknownTopic
}
func (a *fakeAdmin) DeleteTopic(_ context.Context, id metadata.TopicID) (int64, error) {
	a.v.mu.Lock()
	defer a.v.mu.Unlock()
	for name, t := range a.v.topics {
		if t.ID == id {
			delete(a.v.topics, name)
			return 1, nil
		}
	}
	return 0, metadata.ErrUnknownTopic
}
func (a *fakeAdmin) CreatePartitions(_ context.Context, id metadata.TopicID, total int32) (int64, error) {
	return a.edit(id, func(t *metadata.Topic) error { t.Partitions = total; return nil })
}
func (a *fakeAdmin) AlterTopicConfigs(_ context.Context, id metadata.TopicID, change func(map[string]string) error) (int64, error) {
	return a.edit(id, func(t *metadata.Topic) error { return change(t.Configs) })
}
func (a *fakeAdmin) AlterConfigs(_ context.Context, kind, name string, change func(map[string]string) error) (int64, error) {
	next := maps.Clone(a.v.Config(kind, name))
	if next == nil {
		next = map[string]string{}
	}
	if err := change(next); err != nil {
		return 0, err
	}
	a.v.mu.Lock()
	defer a.v.mu.Unlock()
	a.v.configs[kind+"/"+name] = next
	return 1, nil
}
func (a *fakeAdmin) AllocateProducerIDs(_ context.Context, n int64) (int64, error) {
	return a.next.Add(n) - n, nil
}

// fakeGroups refuses everything, but joins wait for join to be closed.
type fakeGroups struct {
	v    *fakeView
	join chan struct{}
	mu   sync.Mutex
	seen []string
}

func (g *fakeGroups) saw(s string) {
	g.mu.Lock()
	g.seen = append(g.seen, s)
	g.mu.Unlock()
}
func (g *fakeGroups) Coordinator(string) (metadata.Broker, error) { return g.v.brokers[0], nil }
func (g *fakeGroups) OffsetCommit(_ context.Context, _ ClientInfo, req *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	g.saw("commit " + req.Group)
	return kmsg.NewPtrOffsetCommitResponse()
}
func (g *fakeGroups) OffsetFetch(context.Context, ClientInfo, *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	return kmsg.NewPtrOffsetFetchResponse()
}
func (g *fakeGroups) JoinGroup(ctx context.Context, _ ClientInfo, req *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.ErrorCode = kerr.NotCoordinator.Code
	if req.Group == "wait" {
		select {
		case <-g.join:
		case <-ctx.Done():
		}
	}
	g.saw("join " + req.Group)
	return resp
}
func (g *fakeGroups) Heartbeat(_ context.Context, _ ClientInfo, req *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse {
	g.saw("heartbeat " + req.Group)
	if req.Group == "panic" {
		panic("as the test asked")
	}
	return kmsg.NewPtrHeartbeatResponse()
}
func (g *fakeGroups) LeaveGroup(context.Context, ClientInfo, *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse {
	return kmsg.NewPtrLeaveGroupResponse()
}
func (g *fakeGroups) ConsumerGroupHeartbeat(context.Context, ClientInfo, *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	return kmsg.NewPtrConsumerGroupHeartbeatResponse()
}
func (g *fakeGroups) ConsumerGroupDescribe(context.Context, ClientInfo, *kmsg.ConsumerGroupDescribeRequest) *kmsg.ConsumerGroupDescribeResponse {
	return kmsg.NewPtrConsumerGroupDescribeResponse()
}
func (g *fakeGroups) SyncGroup(context.Context, ClientInfo, *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse {
	return kmsg.NewPtrSyncGroupResponse()
}
func (g *fakeGroups) DescribeGroups(context.Context, ClientInfo, *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
	return kmsg.NewPtrDescribeGroupsResponse()
}
func (g *fakeGroups) ListGroups(context.Context, ClientInfo, *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse {
	return kmsg.NewPtrListGroupsResponse()
}
func (g *fakeGroups) DeleteGroups(context.Context, ClientInfo, *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse {
	return kmsg.NewPtrDeleteGroupsResponse()
}
func (g *fakeGroups) OffsetDelete(context.Context, ClientInfo, *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	return kmsg.NewPtrOffsetDeleteResponse()
}

// rig is a server on loopback over fakes.
type rig struct {
	t      *testing.T
	s      *Server
	log    *fakeLog
	view   *fakeView
	admin  *fakeAdmin
	groups *fakeGroups
	addr   string
	stop   func()
}

func newRig(t *testing.T, adjust ...func(*Config)) *rig {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int32(ln.Addr().(*net.TCPAddr).Port)
	v := &fakeView{topics: map[string]*metadata.Topic{}, configs: map[string]map[string]string{}, owner: 7,
		brokers: []metadata.Broker{{ID: 1, Incarnation: 7, Host: "127.0.0.1", Port: port, Rack: "r1"}, {ID: 2, Incarnation: 8, Host: "127.0.0.1", Port: port + 1}}}
	r := &rig{t: t, view: v, admin: &fakeAdmin{v: v}, groups: &fakeGroups{v: v, join: make(chan struct{})}, addr: ln.Addr().String()}
	r.log = &fakeLog{parts: map[metadata.TopicPartition]*fakePartition{}, lead: true, view: v}
	cfg := Config{Self: 7, ID: 1, ClusterID: "test-cluster", Listener: ln, Log: r.log, View: v, Admin: r.admin, Groups: r.groups,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Registerer: prometheus.NewRegistry(), AutoCreateTopics: true}
	for _, f := range adjust {
		f(&cfg)
	}
	if r.s, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.s.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the server does not stop")
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

// topic creates a topic and returns its first partition.
func (r *rig) topic(name string, configs ...string) (*metadata.Topic, *fakePartition) {
	r.t.Helper()
	m := map[string]string{}
	for i := 0; i < len(configs); i += 2 {
		m[configs[i]] = configs[i+1]
	}
	t, _, err := r.admin.CreateTopic(context.Background(), metadata.TopicSpec{Name: name, Partitions: 2, ReplicationFactor: 1, Configs: m})
	if err != nil {
		r.t.Fatal(err)
	}
	return t, r.log.part(metadata.TopicPartition{Topic: t.ID})
}

// client speaks the protocol by hand.
type client struct {
	t    *testing.T
	nc   net.Conn
	next int32
}

func (r *rig) dial() *client {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{t: r.t, nc: nc}
}

// send writes a request and returns its correlation id.
func (c *client) send(req kmsg.Request) int32 {
	c.t.Helper()
	c.next++
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("tester")).AppendRequest(nil, req, c.next)
	if _, err := c.nc.Write(frame); err != nil {
		c.t.Fatal(err)
	}
	return c.next
}

var errShortResponse = errors.New("response cut short")

// receive reads the response to req, which must be the next one.
func (c *client) receive(req kmsg.Request, correlation int32) (kmsg.Response, error) {
	var prefix [8]byte
	if _, err := io.ReadFull(c.nc, prefix[:]); err != nil {
		return nil, err
	}
	body := make([]byte, int(be32(prefix[:]))-4)
	if _, err := io.ReadFull(c.nc, body); err != nil {
		return nil, err
	}
	if got := be32(prefix[4:]); got != correlation {
		c.t.Errorf("correlation id %d, want %d", got, correlation)
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() && resp.Key() != 18 {
		if len(body) == 0 || body[0] != 0 {
			return nil, errShortResponse
		}
		body = body[1:]
	}
	return resp, resp.ReadFrom(body)
}

func be32(b []byte) int32 {
	return int32(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
}

// do sends a request and receives its response.
func do[Resp kmsg.Response](c *client, req kmsg.Request) Resp {
	c.t.Helper()
	resp, err := c.receive(req, c.send(req))
	if err != nil {
		c.t.Fatalf("%T v%d: %v", req, req.GetVersion(), err)
	}
	return resp.(Resp)
}
