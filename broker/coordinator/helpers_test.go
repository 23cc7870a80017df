package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

// fakeView is a view that shows what a test lets it.
type fakeView struct {
	mu     sync.Mutex
	owners map[int]metadata.Coordinator
	revs   map[int]int64
	topics map[string]*metadata.Topic
	subs   []chan struct{}
	// sorted are the topics by name until one changes.
	sorted  []*metadata.Topic
	configs map[string]map[string]string
	leaders map[metadata.TopicPartition]metadata.Incarnation
}

func (v *fakeView) Topics() []*metadata.Topic {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sorted == nil {
		for _, t := range v.topics {
			v.sorted = append(v.sorted, t)
		}
		slices.SortFunc(v.sorted, func(a, b *metadata.Topic) int { return strings.Compare(a.Name, b.Name) })
	}
	return v.sorted
}

func (v *fakeView) Partition(tp metadata.TopicPartition) (*metadata.Partition, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p, ok := v.leaders[tp]
	return &metadata.Partition{Owners: []metadata.Owner{{Incarnation: p}}}, ok
}

func (v *fakeView) Config(kind, name string) map[string]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.configs[kind+"/"+name]
}

func (v *fakeView) WaitRevision(context.Context, int64) error { return nil }

func (v *fakeView) Coordinator(shard int) (metadata.Coordinator, int64, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, ok := v.owners[shard]
	return o, v.revs[shard], ok
}

func (v *fakeView) Subscribe() (<-chan struct{}, func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	ch := make(chan struct{}, 1)
	v.subs = append(v.subs, ch)
	return ch, func() {}
}

func (v *fakeView) Topic(name string) (*metadata.Topic, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, ok := v.topics[name]
	return t, ok
}

func (v *fakeView) TopicByID(id metadata.TopicID) (*metadata.Topic, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, t := range v.topics {
		if t.ID == id {
			return t, true
		}
	}
	return nil, false
}

func (v *fakeView) Broker(i metadata.Incarnation) (metadata.Broker, bool) {
	return metadata.Broker{ID: int32(i), Incarnation: i}, i < 100
}

func (v *fakeView) change(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
	v.sorted = nil
	for _, ch := range v.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// env is a store, its administrator and the brokers on it.
type env struct {
	t     *testing.T
	store *mem.Store
	admin *mem.Client
	nodes []*node
	// topics exist in every view.
	topics map[string]*metadata.Topic
}

// node is one broker's coordinator.
type node struct {
	*Coordinator
	e    *env
	kv   *mem.Client
	view *fakeView
	inc  metadata.Incarnation
	stop func()
	// blind views learn of no more assignments.
	blind bool
}

func inBubble(t *testing.T, f func(t *testing.T, e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &env{t: t, store: mem.New(), topics: map[string]*metadata.Topic{}}
		e.admin = e.store.Client()
		e.addTopic("t", 200)
		e.addTopic("u", 2)
		defer func() {
			for _, n := range e.nodes {
				n.kv.Resume()
				n.kv.SetUnavailable(false)
				n.stop()
				_ = n.kv.Close()
			}
			_ = e.admin.Close()
		}()
		f(t, e)
	})
}

func (e *env) addTopic(name string, partitions int32) *metadata.Topic {
	topic := &metadata.Topic{ID: metadata.NewTopicID(), Name: name, Partitions: partitions}
	e.put(metadata.TopicKey(topic.ID), topic)
	e.topics[name] = topic
	for _, n := range e.nodes {
		n.view.change(func() { n.view.topics[name] = topic })
	}
	return topic
}

func (e *env) put(key string, value any) int64 {
	e.t.Helper()
	b, err := json.Marshal(value)
	if err != nil {
		e.t.Fatal(err)
	}
	res, err := e.admin.Txn(context.Background(), metadata.Txn{Then: []metadata.Op{metadata.Put(key, b)}})
	if err != nil {
		e.t.Fatal(err)
	}
	return res.Revision
}

func (e *env) node(inc metadata.Incarnation, edit ...func(*Config)) *node {
	e.t.Helper()
	n := &node{e: e, kv: e.store.Client(), inc: inc, view: &fakeView{owners: map[int]metadata.Coordinator{}, revs: map[int]int64{}, topics: map[string]*metadata.Topic{}}}
	for name, topic := range e.topics {
		n.view.topics[name] = topic
	}
	cfg := Config{Incarnation: inc, KV: n.kv, View: n.view, Group: group.Config{InitialRebalanceDelay: -1}}
	for _, f := range edit {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	n.Coordinator = c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	n.stop = func() { cancel(); <-done }
	e.nodes = append(e.nodes, n)
	synctest.Wait()
	return n
}

// assign gives shards to a broker, as the controller does.
func (e *env) assign(inc metadata.Incarnation, shards ...int) {
	e.t.Helper()
	for _, s := range shards {
		owner := metadata.Coordinator{Incarnation: inc, Epoch: int32(inc)}
		rev := e.put(metadata.CoordinatorKey(s), owner)
		for _, n := range e.nodes {
			if !n.blind {
				n.view.change(func() { n.view.owners[s], n.view.revs[s] = owner, rev })
			}
		}
	}
	synctest.Wait()
}

func (e *env) assignAll(inc metadata.Incarnation) {
	e.t.Helper()
	for s := range metadata.GroupShards {
		e.assign(inc, s)
	}
}

// owned is a broker with every shard.
func (e *env) owned(edit ...func(*Config)) *node {
	e.t.Helper()
	n := e.node(1, edit...)
	e.assignAll(1)
	return n
}

var someone = ClientInfo{ID: "client", Host: "127.0.0.1"}

func joinReq(groupID, member string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID = 3, groupID, member
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10_000, 20_000
	req.ProtocolType = "consumer"
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "range", []byte("meta-"+member)
	req.Protocols = append(req.Protocols, p)
	return req
}

// later runs f and gives its result.
func later[T any](f func() T) <-chan T {
	ch := make(chan T, 1)
	go func() { ch <- f() }()
	synctest.Wait()
	return ch
}

func (n *node) join(groupID, member string, edit ...func(*kmsg.JoinGroupRequest)) *kmsg.JoinGroupResponse {
	req := joinReq(groupID, member)
	for _, f := range edit {
		f(req)
	}
	return n.JoinGroup(context.Background(), someone, req)
}

func (n *node) sync(groupID, member string, gen int32, assignments ...string) *kmsg.SyncGroupResponse {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 3, groupID, member, gen
	for i := 0; i+1 < len(assignments); i += 2 {
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = assignments[i], []byte(assignments[i+1])
		req.GroupAssignment = append(req.GroupAssignment, a)
	}
	return n.SyncGroup(context.Background(), someone, req)
}

func (n *node) heartbeat(groupID, member string, gen int32) int16 {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 4, groupID, member, gen
	return n.Heartbeat(context.Background(), someone, req).ErrorCode
}

// stable makes a stable group of one member.
func (n *node) stable(groupID string) (member string, gen int32) {
	n.e.t.Helper()
	j := n.join(groupID, "")
	wantCode(n.e.t, j.ErrorCode, nil)
	s := n.sync(groupID, j.MemberID, j.Generation, j.MemberID, "all")
	wantCode(n.e.t, s.ErrorCode, nil)
	return j.MemberID, j.Generation
}

func (n *node) commitAs(groupID, member string, gen int32, topic string, offsets map[int32]int64) *kmsg.OffsetCommitResponse {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 8, groupID, member, gen
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = topic
	for p, o := range offsets {
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset, rp.LeaderEpoch = p, o, 3
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return n.OffsetCommit(context.Background(), someone, req)
}

// commit commits one offset from outside of membership.
func (n *node) commit(groupID, topic string, partition int32, offset int64) int16 {
	resp := n.commitAs(groupID, "", -1, topic, map[int32]int64{partition: offset})
	return resp.Topics[0].Partitions[0].ErrorCode
}

// fetch returns one committed offset.
func (n *node) fetch(groupID, topic string, partition int32) (int64, int16) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version = 8
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = groupID
	rt := kmsg.NewOffsetFetchRequestGroupTopic()
	rt.Topic, rt.Partitions = topic, []int32{partition}
	g.Topics = append(g.Topics, rt)
	req.Groups = append(req.Groups, g)
	resp := n.OffsetFetch(context.Background(), someone, req)
	if code := resp.Groups[0].ErrorCode; code != 0 {
		return 0, code
	}
	p := resp.Groups[0].Topics[0].Partitions[0]
	return p.Offset, p.ErrorCode
}

func wantCode(t *testing.T, got int16, want *kerr.Error) {
	t.Helper()
	if got != code(want) {
		t.Fatalf("got %s, want %s", codeName(got), codeName(code(want)))
	}
}

func codeName(c int16) string {
	if err := kerr.TypedErrorForCode(c); err != nil {
		return err.Message
	}
	return fmt.Sprint(c)
}

func wantFetch(t *testing.T, n *node, groupID, topic string, partition int32, want int64) {
	t.Helper()
	got, code := n.fetch(groupID, topic, partition)
	wantCode(t, code, nil)
	if got != want {
		t.Fatalf("committed offset of %s-%d is %d, want %d", topic, partition, got, want)
	}
}

// calls counts a client's calls of one kind.
func (n *node) calls() *callCount {
	cc := &callCount{}
	n.kv.Inject(func(c mem.Call) (mem.Fault, bool) {
		cc.mu.Lock()
		defer cc.mu.Unlock()
		cc.all = append(cc.all, c)
		return mem.Fault{}, false
	})
	return cc
}

type callCount struct {
	mu  sync.Mutex
	all []mem.Call
}

func (c *callCount) count(op string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, call := range c.all {
		if op == "" || call.Op == op {
			n++
		}
	}
	return n
}

func seconds(n int) { time.Sleep(time.Duration(n) * time.Second) }
