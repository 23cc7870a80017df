package coordinator

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

func TestGroupOfTwo(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		n := e.owned(func(c *Config) { c.Group.InitialRebalanceDelay = 3 * time.Second })
		began := time.Now()
		a := later(func() *kmsg.JoinGroupResponse { return n.join("g", "") })
		b := later(func() *kmsg.JoinGroupResponse { return n.join("g", "") })
		ja, jb := <-a, <-b
		if took := time.Since(began); took != 6*time.Second {
			t.Errorf("initial rebalance took %s", took)
		}
		wantCode(t, ja.ErrorCode, nil)
		wantCode(t, jb.ErrorCode, nil)
		if ja.LeaderID != jb.LeaderID || len(ja.Members)+len(jb.Members) != 2 || ja.Generation != 1 {
			t.Fatalf("joined %+v and %+v", ja, jb)
		}
		if ja.LeaderID != ja.MemberID {
			ja, jb = jb, ja
		}
		follower := later(func() *kmsg.SyncGroupResponse { return n.sync("g", jb.MemberID, 1) })
		leader := n.sync("g", ja.MemberID, 1, ja.MemberID, "p0", jb.MemberID, "p1")
		if s := <-follower; string(s.MemberAssignment) != "p1" || string(leader.MemberAssignment) != "p0" {
			t.Fatalf("assigned %q and %q", leader.MemberAssignment, s.MemberAssignment)
		}
		wantCode(t, n.heartbeat("g", jb.MemberID, 1), nil)
		resp := n.commitAs("g", ja.MemberID, 1, "t", map[int32]int64{0: 5, 100: 7, 200: 1})
		for _, p := range resp.Topics[0].Partitions {
			if p.Partition == 200 {
				wantCode(t, p.ErrorCode, kerr.UnknownTopicOrPartition)
			} else {
				wantCode(t, p.ErrorCode, nil)
			}
		}
		wantFetch(t, n, "g", "t", 0, 5)
		wantFetch(t, n, "g", "t", 100, 7)
		wantFetch(t, n, "g", "t", 1, -1)
		wantFetch(t, n, "g", "unknown", 1, -1)
		wantFetch(t, n, "no-such-group", "t", 0, -1)
		wantCode(t, n.commitAs("g", ja.MemberID, 0, "t", map[int32]int64{0: 9}).Topics[0].Partitions[0].ErrorCode, kerr.IllegalGeneration)
		wantCode(t, n.commit("g", "t", 0, 9), kerr.UnknownMemberID)
		// Both fall silent: the group empties by itself.
		seconds(60)
		if s := n.describe("g", 5).State; s != "Empty" {
			t.Fatalf("group is %s", s)
		}
	})
}

func TestRefusals(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		n := e.node(1)
		wantCode(t, n.join("g", "").ErrorCode, kerr.NotCoordinator)
		_, fetched := n.fetch("g", "t", 0)
		wantCode(t, fetched, kerr.NotCoordinator)
		n.kv.SetUnavailable(true)
		e.assignAll(1)
		wantCode(t, n.join("g", "").ErrorCode, kerr.CoordinatorLoadInProgress)
		wantCode(t, n.heartbeat("g", "m", 1), nil) // nothing to tell yet
		wantCode(t, n.commit("g", "t", 0, 1), kerr.CoordinatorLoadInProgress)
		wantCode(t, n.ListGroups(context.Background(), someone, kmsg.NewPtrListGroupsRequest()).ErrorCode, kerr.CoordinatorLoadInProgress)
		n.kv.SetUnavailable(false)
		seconds(5)
		wantCode(t, n.join("", "").ErrorCode, kerr.InvalidGroupID)
		wantCode(t, n.join(strings.Repeat("x", 40_000), "").ErrorCode, kerr.InvalidGroupID)
		wantCode(t, n.join("g", "who").ErrorCode, kerr.UnknownMemberID)
		wantCode(t, n.sync("g", "who", 1).ErrorCode, kerr.UnknownMemberID)
		wantCode(t, n.heartbeat("g", "who", 1), kerr.UnknownMemberID)
		for _, ms := range []int32{5_999, 1_800_001, -1} {
			wantCode(t, n.join("g", "", func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = ms }).ErrorCode, kerr.InvalidSessionTimeout)
		}
		wantCode(t, n.commitAs("g", "who", 3, "t", map[int32]int64{0: 1}).Topics[0].Partitions[0].ErrorCode, kerr.IllegalGeneration)
		wantCode(t, n.commit("g", "gone", 0, 1), kerr.UnknownTopicOrPartition)
		wantCode(t, n.commit("", "t", 0, 1), nil) // the empty id keeps offsets
		wantFetch(t, n, "", "t", 0, 1)
		b, err := n.Coordinator.Coordinator("g")
		if err != nil || b.ID != 1 {
			t.Fatal(b, err)
		}
	})
}

func TestTakeover(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a, b := e.node(1), e.node(2)
		e.assignAll(1)
		member, gen := a.stable("g")
		wantCode(t, a.commitAs("g", member, gen, "t", map[int32]int64{0: 10}).Topics[0].Partitions[0].ErrorCode, nil)

		// The first broker is stopped with a commit under way, and cut off
		// from the news.
		a.kv.Pause()
		a.blind = true
		stuck := later(func() int16 {
			return a.commitAs("g", member, gen, "t", map[int32]int64{0: 11}).Topics[0].Partitions[0].ErrorCode
		})
		e.assignAll(2)
		wantCode(t, b.heartbeat("g", member, gen), nil) // the generation goes on
		if s := b.sync("g", member, gen); s.ErrorCode != 0 || string(s.MemberAssignment) != "all" {
			t.Fatalf("assignment after the takeover: %+v", s)
		}
		wantFetch(t, b, "g", "t", 0, 10)
		wantCode(t, b.commitAs("g", member, gen, "t", map[int32]int64{0: 20}).Topics[0].Partitions[0].ErrorCode, nil)

		// The zombie wakes up. It believes to be coordinator still.
		a.kv.Resume()
		wantCode(t, <-stuck, kerr.NotCoordinator)
		seconds(1)
		wantFetch(t, b, "g", "t", 0, 20)
		wantCode(t, a.heartbeat("g", member, gen), kerr.NotCoordinator)
	})
}

func TestZombie(t *testing.T) {
	// Each of what a zombie may be asked for finds out by itself.
	for name, ask := range map[string]func(a *node, member string) int16{
		"commit": func(a *node, member string) int16 {
			return a.commitAs("g", member, 1, "t", map[int32]int64{0: 11}).Topics[0].Partitions[0].ErrorCode
		},
		"fetch": func(a *node, _ string) int16 {
			_, code := a.fetch("g", "t", 0)
			return code
		},
		"sync": func(a *node, member string) int16 {
			j := a.join("g", member)
			return a.sync("g", member, j.Generation, member, "stolen").ErrorCode
		},
		"leave": func(a *node, member string) int16 {
			req := kmsg.NewPtrLeaveGroupRequest()
			req.Group, req.MemberID = "g", member
			return a.LeaveGroup(context.Background(), someone, req).ErrorCode
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *env) {
				a, b := e.node(1), e.node(2)
				e.assignAll(1)
				member, gen := a.stable("g")
				a.blind = true
				e.assignAll(2)
				wantCode(t, a.heartbeat("g", member, gen), nil)
				wantCode(t, ask(a, member), kerr.NotCoordinator)
				wantCode(t, a.heartbeat("g", member, gen), kerr.NotCoordinator)
				wantCode(t, b.heartbeat("g", member, gen), nil)
				if s := b.sync("g", member, gen); string(s.MemberAssignment) != "all" {
					t.Fatalf("assignment is %q", s.MemberAssignment)
				}
				// What it does not coordinate it does not claim again.
				seconds(5)
				wantCode(t, a.join("g", "").ErrorCode, kerr.NotCoordinator)
				// But it takes what it is given.
				a.blind = false
				e.assignAll(1)
				wantCode(t, a.sync("g", member, gen).ErrorCode, nil)
			})
		})
	}
}

func TestParkedRequestsFollowTheShard(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.node(1, func(c *Config) { c.Group.InitialRebalanceDelay = 3 * time.Second })
		e.node(2)
		e.assignAll(1)
		parked := later(func() *kmsg.JoinGroupResponse { return a.join("g", "") })
		e.assignAll(2)
		wantCode(t, (<-parked).ErrorCode, kerr.NotCoordinator)
	})
}

func TestDisconnectedRequestIsGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(func(c *Config) { c.Group.InitialRebalanceDelay = 3 * time.Second })
		ctx, cancel := context.WithCancel(context.Background())
		parked := later(func() *kmsg.JoinGroupResponse { return a.JoinGroup(ctx, someone, joinReq("g", "")) })
		cancel()
		<-parked
		seconds(3600) // the member goes with its join timeout and its session
		sh := a.shard("g")
		sh.mu.Lock()
		defer sh.mu.Unlock()
		if len(sh.waiters) != 0 {
			t.Fatal("a ticket is left")
		}
		if e := sh.groups["g"]; e != nil && !e.g.Vacant() {
			t.Fatal("the member is left")
		}
	})
}

func TestMemberIDIsForgottenWithItsGroup(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		r := a.join("g", "", func(r *kmsg.JoinGroupRequest) { r.Version = 4 })
		wantCode(t, r.ErrorCode, kerr.MemberIDRequired)
		if !strings.HasPrefix(r.MemberID, "client-") {
			t.Fatal(r.MemberID)
		}
		seconds(11)
		sh := a.shard("g")
		sh.mu.Lock()
		defer sh.mu.Unlock()
		if len(sh.groups) != 0 {
			t.Fatal("the group is still in memory")
		}
	})
}

func TestReleaseAll(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(func(c *Config) {
			c.Gather = time.Second
			c.Group.InitialRebalanceDelay = 3 * time.Second
		})
		committing := later(func() int16 { return a.commit("c", "t", 0, 1) })
		parked := later(func() *kmsg.JoinGroupResponse { return a.join("g", "") })
		if err := a.ReleaseAll(context.Background()); err != nil {
			t.Fatal(err)
		}
		wantCode(t, <-committing, nil)
		wantCode(t, (<-parked).ErrorCode, kerr.NotCoordinator)
		wantCode(t, a.join("g", "").ErrorCode, kerr.NotCoordinator)
		b := e.node(2)
		e.assignAll(2)
		wantFetch(t, b, "c", "t", 0, 1)
	})
}

func TestIdleCostsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		member, gen := a.stable("g")
		wantCode(t, a.commitAs("g", member, gen, "t", map[int32]int64{0: 1}).Topics[0].Partitions[0].ErrorCode, nil)
		calls := a.calls()
		for range 1000 {
			seconds(5)
			wantCode(t, a.heartbeat("g", member, gen), nil)
		}
		if n := calls.count(""); n != 0 {
			t.Fatalf("%d calls to the store in an idle hour: %+v", n, calls.all[0])
		}
	})
}

func TestDeleteGroups(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		a.stable("busy")
		wantCode(t, a.commit("done", "t", 0, 1), nil)
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{"busy", "done", "none"}
		resp := a.DeleteGroups(context.Background(), someone, req)
		for i, want := range []*kerr.Error{kerr.NonEmptyGroup, nil, kerr.GroupIDNotFound} {
			wantCode(t, resp.Groups[i].ErrorCode, want)
		}
		left, _, _ := e.admin.Range(context.Background(), groupOffsetsPrefix(ShardOf("done"), "done"))
		if len(left) != 0 {
			t.Fatal("offsets are left")
		}
		wantFetch(t, a, "done", "t", 0, -1)
		wantCode(t, a.commit("done", "t", 0, 2), nil) // a new one of that name
		wantFetch(t, a, "done", "t", 0, 2)

		// Seconds later everything left, and the stored group with it.
		seconds(11)
		req.Groups = []string{"busy"}
		wantCode(t, a.DeleteGroups(context.Background(), someone, req).Groups[0].ErrorCode, nil)
		left, _, _ = e.admin.Range(context.Background(), groupPrefix(ShardOf("busy"), "busy"))
		if len(left) != 0 {
			t.Fatal("the group is left")
		}
	})
}

func TestOffsetDelete(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		subscribe := func(r *kmsg.JoinGroupRequest) {
			m := kmsg.ConsumerMemberMetadata{Topics: []string{"t"}}
			r.Protocols[0].Metadata = m.AppendTo(nil)
		}
		wantCode(t, a.commit("g", "u", 1, 5), nil)
		wantCode(t, a.commit("g", "t", 1, 6), nil)
		j := a.join("g", "", subscribe)
		a.sync("g", j.MemberID, 1, j.MemberID, "x")
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = "none"
		wantCode(t, a.OffsetDelete(context.Background(), someone, req).ErrorCode, kerr.GroupIDNotFound)
		req.Group = "g"
		for _, topic := range []string{"t", "u", "missing"} {
			rt := kmsg.NewOffsetDeleteRequestTopic()
			rt.Topic = topic
			rt.Partitions = []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 1}}
			req.Topics = append(req.Topics, rt)
		}
		resp := a.OffsetDelete(context.Background(), someone, req)
		wantCode(t, resp.ErrorCode, nil)
		for i, want := range []*kerr.Error{kerr.GroupSubscribedToTopic, nil, kerr.UnknownTopicOrPartition} {
			wantCode(t, resp.Topics[i].Partitions[0].ErrorCode, want)
		}
		wantFetch(t, a, "g", "t", 1, 6)
		wantFetch(t, a, "g", "u", 1, -1)
	})
}

func TestExpiry(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		wantCode(t, a.commit("simple", "t", 0, 1), nil)
		seconds(6 * 24 * 3600)
		wantCode(t, a.commit("simple", "t", 1, 1), nil)
		seconds(25 * 3600)
		wantFetch(t, a, "simple", "t", 0, -1)
		wantFetch(t, a, "simple", "t", 1, 1)

		// Offsets of a deleted topic go, when the store agrees that it is gone.
		wantCode(t, a.commit("simple", "u", 1, 1), nil)
		topic := e.topics["u"]
		a.view.change(func() { delete(a.view.topics, "u") })
		seconds(1200)
		key := chunkKey(groupOffsetsPrefix(ShardOf("simple"), "simple"), chunkOf(topic.ID, 1))
		exists := func() bool {
			got, _, err := e.admin.Get(context.Background(), key)
			if err != nil {
				t.Fatal(err)
			}
			return got[0].Exists()
		}
		if !exists() {
			t.Fatal("offsets went because a view was behind")
		}
		if _, err := e.admin.Txn(context.Background(), metadata.Txn{Then: []metadata.Op{metadata.Delete(metadata.TopicKey(topic.ID))}}); err != nil {
			t.Fatal(err)
		}
		seconds(1200)
		if exists() {
			t.Fatal("offsets of a deleted topic are still stored")
		}
		// The group goes with the last of it.
		seconds(8 * 24 * 3600)
		if d := a.describe("simple", 6); d.ErrorCode != kerr.GroupIDNotFound.Code {
			t.Fatalf("group is %+v", d)
		}
	})
}

func TestDescribeAndList(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		member, _ := a.stable("g")
		wantCode(t, a.commit("simple", "t", 0, 1), nil)
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Version, req.Groups, req.IncludeAuthorizedOperations = 6, []string{"g", "none"}, true
		resp := a.DescribeGroups(context.Background(), someone, req)
		g := resp.Groups[0]
		if g.State != "Stable" || g.Protocol != "range" || len(g.Members) != 1 || g.Members[0].MemberID != member ||
			g.Members[0].ClientHost != "/127.0.0.1" || string(g.Members[0].MemberAssignment) != "all" || g.AuthorizedOperations != groupOperations {
			t.Fatalf("described as %+v", g)
		}
		wantCode(t, resp.Groups[1].ErrorCode, kerr.GroupIDNotFound)
		req.Version = 5
		if g := a.DescribeGroups(context.Background(), someone, req).Groups[1]; g.ErrorCode != 0 || g.State != "Dead" {
			t.Fatalf("described as %+v", g)
		}
		list := func(states, types []string) int {
			req := kmsg.NewPtrListGroupsRequest()
			req.Version, req.StatesFilter, req.TypesFilter = 5, states, types
			return len(a.ListGroups(context.Background(), someone, req).Groups)
		}
		for _, tc := range []struct {
			states, types []string
			want          int
		}{
			{nil, nil, 2}, {[]string{"stable"}, nil, 1}, {[]string{"Empty", "Stable"}, []string{"Classic"}, 2},
			{[]string{"Nonsense"}, nil, 0}, {nil, []string{"consumer"}, 0},
		} {
			if got := list(tc.states, tc.types); got != tc.want {
				t.Errorf("%v %v: %d groups, want %d", tc.states, tc.types, got, tc.want)
			}
		}
	})
}

func TestUnreadableGroupIsQuarantined(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.node(1)
		key := headerKey(groupPrefix(ShardOf("bad"), "bad"))
		e.put(key, "not a header")
		e.assignAll(1)
		wantCode(t, a.join("bad", "").ErrorCode, kerr.UnknownServerError)
		wantCode(t, a.commit("bad", "t", 0, 1), kerr.UnknownServerError)
		a.stable("good")
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{"bad"}
		wantCode(t, a.DeleteGroups(context.Background(), someone, req).Groups[0].ErrorCode, nil)
		a.stable("bad")
	})
}

func TestRealView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := mem.New()
		kv := store.Client()
		view := metadata.NewView(kv, nil)
		c, err := New(Config{Incarnation: 7, KV: kv, View: view, Group: group.Config{InitialRebalanceDelay: -1}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{}, 2)
		go func() { _ = view.Run(ctx); done <- struct{}{} }()
		go func() { _ = c.Run(ctx); done <- struct{}{} }()
		e := &env{t: t, store: store, admin: kv}
		n := &node{Coordinator: c, e: e}
		for s := range metadata.GroupShards {
			e.put(metadata.CoordinatorKey(s), metadata.Coordinator{Incarnation: 7})
		}
		synctest.Wait()
		n.stable("g")
		cancel()
		<-done
		<-done
		_ = kv.Close()
	})
}
