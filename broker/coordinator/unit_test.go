package coordinator

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
)

// fullKV is a store without space.
type fullKV struct {
	metadata.KV
	on atomic.Bool
}

func (f *fullKV) Txn(ctx context.Context, t metadata.Txn) (metadata.TxnResult, error) {
	if f.on.Load() {
		return metadata.TxnResult{}, metadata.ErrNoSpace
	}
	return f.KV.Txn(ctx, t)
}

func TestShardOf(t *testing.T) {
	// Hashes as Java computes them.
	for id, hash := range map[string]int32{
		"": 0, "a": 97, "hello": 99162322, "group-1": 293427299,
		"polygenelubricants": -2147483648, "my-group": -1906497762, "é": 233, "😀": 1772899,
	} {
		want := int(math.Abs(float64(hash))) % 50
		if hash == math.MinInt32 {
			want = 0
		}
		if got := ShardOf(id); got != want {
			t.Errorf("shard of %q is %d, want %d", id, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "%", "a/b", "a%2Fb", "..", "ü", "\xff\x00", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		e := escape(id)
		if strings.ContainsAny(e, "/\x00") || e == "" {
			t.Fatalf("%q escapes to %q", id, e)
		}
		back, err := unescape(e)
		if err != nil || back != id {
			t.Fatalf("%q came back as %q, %v", id, back, err)
		}
		// Nothing else means the same id.
		if other, err := unescape(id); err == nil && escape(other) != id {
			t.Fatalf("%q is read as %q", id, other)
		}
		if s := ShardOf(id); s < 0 || s >= metadata.GroupShards {
			t.Fatal(s)
		}
	})
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "plain", "\xff", "\"", "<&>", "\u2028", "{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := json.Marshal(text(s))
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > text(s).size() {
			t.Fatalf("%q takes %d bytes, not %d", s, len(b), text(s).size())
		}
		var back text
		if err := json.Unmarshal(b, &back); err != nil || string(back) != s {
			t.Fatalf("%q came back as %q, %v", s, back, err)
		}
	})
}

// FuzzStored feeds what could be in the store to whatever reads it.
func FuzzStored(f *testing.F) {
	f.Add([]byte(`{"format":1,"members":[[1,2]],"next":3}`), "groups/0/g/h")
	f.Add([]byte(`{"format":1,"offsets":[[1,2,-1,5],[2,3,4,5,6,"m"]]}`), "offsets/0/g/00000000000000000000000000000000/0")
	f.Add([]byte(`{}`), "groups/0/g/m/1/0")
	f.Fuzz(func(t *testing.T, value []byte, key string) {
		_, _ = decodeMember(value)
		_, _ = parseGroupKey(0, key)
		if _, id, err := parseChunkKey(0, key); err == nil {
			_, _ = decodeChunk(id, metadata.Entry{Key: key, Value: value, ModRevision: 1})
		}
		c, err := New(Config{Incarnation: 1, KV: &fullKV{}, View: &fakeView{}})
		if err != nil {
			t.Fatal(err)
		}
		l := loader{sh: &c.shards[0], entries: map[string]*entry{}}
		l.loadGroups([]metadata.Entry{{Key: key, Value: value, ModRevision: 1}})
		l.loadOffsets([]metadata.Entry{{Key: key, Value: value, ModRevision: 1}})
	})
}

// TestEveryVersion sends every request at every version through its wire form,
// to a coordinator and to one that is none.
func TestEveryVersion(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		for _, n := range []*node{e.owned(), e.node(9)} {
			for _, a := range everyAPI(n, e.topics["t"].ID) {
				for v := a.min; v <= a.max; v++ {
					req := a.request(v)
					req.SetVersion(v)
					parsed := kmsg.RequestForKey(req.Key())
					parsed.SetVersion(v)
					if err := parsed.ReadFrom(req.AppendTo(nil)); err != nil {
						t.Fatalf("%T v%d: %v", req, v, err)
					}
					resp := a.handle(parsed)
					if resp.GetVersion() != v {
						t.Fatalf("%T v%d answered as v%d", req, v, resp.GetVersion())
					}
					back := req.ResponseKind()
					back.SetVersion(v)
					if err := back.ReadFrom(resp.AppendTo(nil)); err != nil {
						t.Fatalf("%T v%d answer: %v", req, v, err)
					}
				}
			}
		}
	})
}

type versionedAPI struct {
	min, max int16
	request  func(v int16) kmsg.Request
	handle   func(kmsg.Request) kmsg.Response
}

func api[Q kmsg.Request, R kmsg.Response](min, max int16, request func(v int16) Q, handle func(context.Context, ClientInfo, Q) R) versionedAPI {
	return versionedAPI{min, max, func(v int16) kmsg.Request { return request(v) }, func(r kmsg.Request) kmsg.Response {
		return handle(context.Background(), someone, r.(Q))
	}}
}

func everyAPI(n *node, topic metadata.TopicID) []versionedAPI {
	return []versionedAPI{
		api(2, 10, func(int16) *kmsg.OffsetCommitRequest {
			r := kmsg.NewPtrOffsetCommitRequest()
			r.Group, r.Generation = "g", -1
			r.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", TopicID: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 1, Offset: 3}}}}
			return r
		}, n.OffsetCommit),
		api(1, 10, func(v int16) *kmsg.OffsetFetchRequest {
			r := kmsg.NewPtrOffsetFetchRequest()
			r.Group, r.RequireStable = "g", true
			r.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{1, 2}}}
			r.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g"}, {Group: "g", Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", TopicID: topic, Partitions: []int32{1}}}}}
			return r
		}, n.OffsetFetch),
		api(0, 9, func(v int16) *kmsg.JoinGroupRequest { return joinReq("j", "nobody") }, n.JoinGroup),
		api(0, 4, func(int16) *kmsg.HeartbeatRequest { return &kmsg.HeartbeatRequest{Group: "g"} }, n.Heartbeat),
		api(0, 5, func(int16) *kmsg.LeaveGroupRequest {
			return &kmsg.LeaveGroupRequest{Group: "g", MemberID: "m", Members: []kmsg.LeaveGroupRequestMember{{MemberID: "m"}}}
		}, n.LeaveGroup),
		api(0, 5, func(int16) *kmsg.SyncGroupRequest { return &kmsg.SyncGroupRequest{Group: "g", MemberID: "m"} }, n.SyncGroup),
		api(0, 6, func(int16) *kmsg.DescribeGroupsRequest {
			return &kmsg.DescribeGroupsRequest{Groups: []string{"g", "none"}}
		}, n.DescribeGroups),
		api(0, 5, func(int16) *kmsg.ListGroupsRequest { return kmsg.NewPtrListGroupsRequest() }, n.ListGroups),
		api(0, 3, func(int16) *kmsg.DeleteGroupsRequest { return &kmsg.DeleteGroupsRequest{Groups: []string{"none"}} }, n.DeleteGroups),
		api(0, 0, func(int16) *kmsg.OffsetDeleteRequest { return &kmsg.OffsetDeleteRequest{Group: "g"} }, n.OffsetDelete),
	}
}

func TestOffsetFetchVersions(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		wantCode(t, a.commit("g", "t", 1, 11), nil)
		wantCode(t, a.commit("g", "u", 0, 12), nil)
		ask := func(v int16, group string, topics []kmsg.OffsetFetchRequestTopic) *kmsg.OffsetFetchResponse {
			r := kmsg.NewPtrOffsetFetchRequest()
			r.Version, r.Group, r.Topics = v, group, topics
			return a.OffsetFetch(context.Background(), someone, r)
		}
		one := []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{1, 2}}}
		for v := int16(1); v < 8; v++ {
			r := ask(v, "g", one)
			p := r.Topics[0].Partitions
			if r.ErrorCode != 0 || p[0].Offset != 11 || p[0].LeaderEpoch != 3 || p[1].Offset != -1 || *p[1].Metadata != "" {
				t.Fatalf("v%d: %+v", v, r)
			}
		}
		if r := ask(2, "g", nil); len(r.Topics) != 2 || r.Topics[1].Partitions[0].Offset != 12 {
			t.Fatalf("all topics: %+v", r)
		}
		if r := ask(2, "g", []kmsg.OffsetFetchRequestTopic{}); len(r.Topics) != 0 {
			t.Fatalf("no topics: %+v", r)
		}
		a.draining.Store(true)
		defer a.draining.Store(false)
		wantCode(t, ask(1, "g", one).Topics[0].Partitions[1].ErrorCode, kerr.NotCoordinator)
		wantCode(t, ask(2, "g", one).ErrorCode, kerr.NotCoordinator)
	})
}

func TestTopicIDs(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		unknown := metadata.NewTopicID()
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Version, req.Group, req.Generation = 10, "g", -1
		for _, id := range []metadata.TopicID{e.topics["t"].ID, unknown} {
			req.Topics = append(req.Topics, kmsg.OffsetCommitRequestTopic{TopicID: id, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 1, Offset: 8}}})
		}
		resp := a.OffsetCommit(context.Background(), someone, req)
		wantCode(t, resp.Topics[0].Partitions[0].ErrorCode, nil)
		wantCode(t, resp.Topics[1].Partitions[0].ErrorCode, kerr.UnknownTopicID)

		fetch := kmsg.NewPtrOffsetFetchRequest()
		fetch.Version = 10
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = "g"
		for _, id := range []metadata.TopicID{e.topics["t"].ID, unknown} {
			g.Topics = append(g.Topics, kmsg.OffsetFetchRequestGroupTopic{TopicID: id, Partitions: []int32{1}})
		}
		fetch.Groups = append(fetch.Groups, g)
		topics := a.OffsetFetch(context.Background(), someone, fetch).Groups[0].Topics
		if topics[0].Partitions[0].Offset != 8 || topics[1].Partitions[0].Offset != -1 {
			t.Fatalf("%+v", topics)
		}
		wantCode(t, topics[1].Partitions[0].ErrorCode, kerr.UnknownTopicID)
		wantFetch(t, a, "g", "t", 1, 8)

		// A topic made again under the old name has no offsets.
		delete(e.topics, "t")
		e.addTopic("t", 4)
		wantFetch(t, a, "g", "t", 1, -1)
	})
}

func TestChunkEncoding(t *testing.T) {
	c := newChunk()
	at := time.UnixMilli(math.MaxInt64 / 4)
	big := &offset{offset: math.MinInt64, epoch: math.MinInt32, at: at, expires: at, metadata: "<\xff>"}
	longest := pending{producer: txn.Producer{ID: math.MaxInt64, Epoch: math.MaxInt16}, offset: big}
	changes := map[int32]place{
		math.MaxInt32:     {offset: big, pending: []pending{longest, {producer: txn.Producer{ID: 7, Epoch: 2}, offset: &offset{offset: 9, at: at}}}},
		math.MaxInt32 - 1: {offset: &offset{offset: 5, epoch: -1, at: at}},
		math.MaxInt32 - 3: {pending: []pending{longest}},
	}
	c.apply(map[int32]place{math.MaxInt32: {offset: &offset{offset: 1, at: at}}, math.MaxInt32 - 2: {offset: &offset{offset: 2, at: at}}})
	b, err := c.encode(changes)
	if err != nil {
		t.Fatal(err)
	}
	if size := c.sizeWith(changes); len(b) > size+chunkOverhead {
		t.Fatalf("%d bytes, bounded by %d", len(b), size)
	}
	got, err := decodeChunk(chunkOf(metadata.TopicID{}, math.MaxInt32), metadata.Entry{Value: b, ModRevision: 3})
	if err != nil || got.rev != 3 || len(got.parts) != 4 {
		t.Fatal(got, err)
	}
	if o := got.parts[math.MaxInt32].offset; *o != *big {
		t.Fatalf("%+v came back as %+v", big, o)
	}
	if w := got.parts[math.MaxInt32].pending; len(w) != 2 || w[0].producer != longest.producer || *w[0].offset != *big || w[1].offset.offset != 9 {
		t.Fatalf("pending: %+v", w)
	}
	if o := got.parts[math.MaxInt32-1].offset; o.offset != 5 || o.epoch != -1 || !o.expires.IsZero() {
		t.Fatalf("%+v", o)
	}
	if at := got.parts[math.MaxInt32-3]; at.offset != nil || len(at.pending) != 1 {
		t.Fatalf("%+v", at)
	}
	if b, err := c.encode(map[int32]place{math.MaxInt32: {}, math.MaxInt32 - 2: {}}); b != nil || err != nil {
		t.Fatal(b, err)
	}
}
