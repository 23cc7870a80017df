package coordinator

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/metadata"
)

// beat is a heartbeat of the consumer protocol; a join has everything it needs.
func beat(groupID, member string, epoch int32, edit ...func(*kmsg.ConsumerGroupHeartbeatRequest)) *kmsg.ConsumerGroupHeartbeatRequest {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.MemberEpoch = 1, groupID, member, epoch
	if epoch == 0 {
		req.RebalanceTimeoutMillis = 60_000
		req.SubscribedTopicNames = []string{"u"}
		req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	for _, f := range edit {
		f(req)
	}
	return req
}

func (n *node) beat(groupID, member string, epoch int32, edit ...func(*kmsg.ConsumerGroupHeartbeatRequest)) *kmsg.ConsumerGroupHeartbeatResponse {
	return n.ConsumerGroupHeartbeat(context.Background(), someone, beat(groupID, member, epoch, edit...))
}

// owning names the partitions of u that the member says it has.
func (e *env) owning(partitions ...int32) func(*kmsg.ConsumerGroupHeartbeatRequest) {
	return func(req *kmsg.ConsumerGroupHeartbeatRequest) {
		req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{{TopicID: e.topics["u"].ID, Partitions: partitions}}
	}
}

func instance(name string) func(*kmsg.ConsumerGroupHeartbeatRequest) {
	return func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.InstanceID = &name }
}

// assigned are the partitions of an answer, nil when it has none to tell.
func assigned(resp *kmsg.ConsumerGroupHeartbeatResponse) []int32 {
	if resp.Assignment == nil {
		return nil
	}
	out := []int32{}
	for _, t := range resp.Assignment.Topics {
		out = append(out, t.Partitions...)
	}
	return out
}

func wantAssigned(t *testing.T, resp *kmsg.ConsumerGroupHeartbeatResponse, epoch int32, want ...int32) {
	t.Helper()
	wantCode(t, resp.ErrorCode, nil)
	if got := assigned(resp); resp.MemberEpoch != epoch || !slices.Equal(got, want) || (got == nil) != (want == nil) {
		t.Fatalf("epoch %d with %v, want %d with %v", resp.MemberEpoch, got, epoch, want)
	}
}

func noInterval(cfg *Config) { cfg.Consumer.AssignmentInterval = -1 }

// shared is a group of two members with a partition each, at epoch 2.
func (n *node) shared(groupID string) {
	t, e := n.e.t, n.e
	t.Helper()
	wantAssigned(t, n.beat(groupID, "a", 0), 1, 0, 1)
	wantAssigned(t, n.beat(groupID, "b", 0), 2, []int32{}...)
	wantAssigned(t, n.beat(groupID, "a", 1), 1, 0)              // b's is to be given up
	wantAssigned(t, n.beat(groupID, "b", 2), 2)                 // not free yet
	wantAssigned(t, n.beat(groupID, "a", 1, e.owning(0, 1)), 1) // not given up yet
	wantAssigned(t, n.beat(groupID, "a", 1, e.owning(0)), 2)    // given up
	wantAssigned(t, n.beat(groupID, "b", 2), 2, 1)              // and free
	wantAssigned(t, n.beat(groupID, "b", 2, e.owning(1)), 2)    // said
	wantAssigned(t, n.beat(groupID, "a", 2), 2)                 // nothing new
	wantAssigned(t, n.beat(groupID, "a", 1, e.owning(0)), 2)    // its last answer was lost
	wantCode(t, n.beat(groupID, "a", 3).ErrorCode, kerr.FencedMemberEpoch)
}

func TestConsumerGroup(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(noInterval)
		wantCode(t, a.beat("g", "a", 5).ErrorCode, kerr.UnknownMemberID)
		wantCode(t, a.beat("g", "a", -1).ErrorCode, kerr.GroupIDNotFound)
		a.shared("g")

		d := a.describeConsumer("g")
		if d.State != "Stable" || d.Epoch != 2 || d.AssignmentEpoch != 2 || d.AssignorName != "uniform" || len(d.Members) != 2 ||
			d.Members[1].Assignment.TopicPartitions[0].Topic != "u" || d.Members[0].MemberType != 1 {
			t.Fatalf("%+v", d)
		}
		for types, want := range map[string]int{"consumer": 1, "Consumer": 1, "classic": 0} {
			req := kmsg.NewPtrListGroupsRequest()
			req.Version, req.TypesFilter, req.StatesFilter = 5, []string{types}, []string{"stable"}
			resp := a.ListGroups(context.Background(), someone, req)
			if len(resp.Groups) != want || want > 0 && (resp.Groups[0].GroupType != "consumer" || resp.Groups[0].ProtocolType != "consumer") {
				t.Fatalf("type %s: %+v", types, resp.Groups)
			}
		}
		old := kmsg.NewPtrDescribeGroupsRequest()
		old.Version, old.Groups = 6, []string{"g"}
		wantCode(t, a.DescribeGroups(context.Background(), someone, old).Groups[0].ErrorCode, kerr.GroupIDNotFound)

		wantCode(t, a.beat("g", "a", -1).ErrorCode, nil)
		wantAssigned(t, a.beat("g", "b", 2), 3, 0, 1)
		wantCode(t, a.delete("g"), kerr.NonEmptyGroup)
		wantCode(t, a.beat("g", "b", -1).ErrorCode, nil)
		if d := a.describeConsumer("g"); d.State != "Empty" {
			t.Fatalf("%+v", d)
		}
		wantCode(t, a.delete("g"), nil)
		wantCode(t, a.describeConsumer("g").ErrorCode, kerr.GroupIDNotFound)
	})
}

func (n *node) delete(groupID string) int16 {
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Groups = []string{groupID}
	return n.DeleteGroups(context.Background(), someone, req).Groups[0].ErrorCode
}

func (n *node) describeConsumer(groupID string) kmsg.ConsumerGroupDescribeResponseGroup {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Version, req.Groups = 1, []string{groupID}
	return n.ConsumerGroupDescribe(context.Background(), someone, req).Groups[0]
}

func TestConsumerRequestsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(noInterval)
		type edit = func(*kmsg.ConsumerGroupHeartbeatRequest)
		text := func(s string) *string { return &s }
		for name, c := range map[string]struct {
			epoch int32
			edit  edit
			want  *kerr.Error
		}{
			"no member":          {0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberID = "" }, kerr.InvalidRequest},
			"no group":           {0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Group = " " }, kerr.InvalidRequest},
			"empty instance":     {0, instance(""), kerr.InvalidRequest},
			"empty rack":         {0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RackID = text("") }, kerr.InvalidRequest},
			"no timeout":         {0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RebalanceTimeoutMillis = -1 }, kerr.InvalidRequest},
			"owns what":          {0, e.owning(0), kerr.InvalidRequest},
			"says not":           {0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Topics = nil }, kerr.InvalidRequest},
			"no subscription":    {0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicNames = nil }, kerr.InvalidRequest},
			"no such assignor":   {0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.ServerAssignor = text("best") }, kerr.UnsupportedAssignor},
			"bad epoch":          {-3, func(*kmsg.ConsumerGroupHeartbeatRequest) {}, kerr.InvalidRequest},
			"leave as whom":      {-2, func(*kmsg.ConsumerGroupHeartbeatRequest) {}, kerr.InvalidRequest},
			"bad expression":     {0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicRegex = text("a)|(b") }, kerr.InvalidRegularExpression},
			"endless expression": {0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicRegex = text(string(make([]byte, 9000))) }, kerr.InvalidRegularExpression},
		} {
			if got := a.beat("g", "m", c.epoch, c.edit).ErrorCode; got != c.want.Code {
				t.Errorf("%s: %s, want %s", name, codeName(got), c.want.Message)
			}
		}
		if n := len(a.shards[ShardOf("g")].groups); n != 0 {
			t.Errorf("%d groups were made", n)
		}
		// Version 0 may join without an id.
		resp := a.beat("g", "", 0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Version = 0 })
		wantAssigned(t, resp, 1, 0, 1)
		if resp.MemberID == nil || *resp.MemberID == "" {
			t.Error("no member id was given")
		}
	})
}

func TestConsumerGroupFull(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(func(cfg *Config) { cfg.Consumer.MembersMax = 1 })
		wantAssigned(t, a.beat("g", "a", 0), 1, 0, 1)
		wantCode(t, a.beat("g", "b", 0).ErrorCode, kerr.GroupMaxSizeReached)
		wantAssigned(t, a.beat("g", "a", 0), 1, 0, 1) // joins again
	})
}

func TestConsumerStaticMembers(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(noInterval)
		wantAssigned(t, a.beat("g", "a", 0, instance("i")), 1, 0, 1)
		wantCode(t, a.beat("g", "b", 0, instance("i")).ErrorCode, kerr.UnreleasedInstanceID)
		wantCode(t, a.beat("g", "b", 1, instance("i")).ErrorCode, kerr.FencedInstanceID)
		wantCode(t, a.beat("g", "b", 1, instance("j")).ErrorCode, kerr.UnknownMemberID)
		wantCode(t, a.beat("g", "b", -2, instance("i")).ErrorCode, kerr.FencedInstanceID)
		wantCode(t, a.beat("g", "a", -2, instance("i")).ErrorCode, nil)
		seconds(30)
		wantAssigned(t, a.beat("g", "b", 0, instance("i")), 1, 0, 1) // no rebalance
		wantCode(t, a.beat("g", "a", 1, instance("i")).ErrorCode, kerr.FencedInstanceID)
		wantCode(t, a.beat("g", "b", -2, instance("i")).ErrorCode, nil)
		seconds(46) // it does not come back
		if d := a.describeConsumer("g"); d.State != "Empty" || d.Epoch != 2 {
			t.Fatalf("%+v", d)
		}
	})
}

func TestConsumerTimeouts(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(noInterval)
		a.shared("g")
		for range 5 {
			seconds(20)
			wantAssigned(t, a.beat("g", "a", 2), 2)
			wantAssigned(t, a.beat("g", "b", 2), 2)
		}
		seconds(46)
		wantCode(t, a.beat("g", "a", 2).ErrorCode, kerr.UnknownMemberID)

		// One that speaks but does not give up what it has to is put out.
		wantAssigned(t, a.beat("h", "a", 0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RebalanceTimeoutMillis = 20_000 }), 1, 0, 1)
		wantAssigned(t, a.beat("h", "b", 0), 2, []int32{}...)
		wantAssigned(t, a.beat("h", "a", 1), 1, 0)
		for range 3 {
			seconds(6)
			wantAssigned(t, a.beat("h", "a", 1, e.owning(0, 1)), 1)
		}
		seconds(6)
		wantCode(t, a.beat("h", "a", 1, e.owning(0, 1)).ErrorCode, kerr.UnknownMemberID)
		wantAssigned(t, a.beat("h", "b", 2), 3, 0, 1)
	})
}

func TestConsumerCommits(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(noInterval)
		commit := func(member string, epoch int32, version int16, partition int32) int16 {
			req := kmsg.NewPtrOffsetCommitRequest()
			req.Version, req.Group, req.MemberID, req.Generation = version, "g", member, epoch
			req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "u", TopicID: e.topics["u"].ID, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: partition, Offset: 7}}}}
			return a.OffsetCommit(context.Background(), someone, req).Topics[0].Partitions[0].ErrorCode
		}
		fetch := func(member string, epoch int32) int16 {
			req := kmsg.NewPtrOffsetFetchRequest()
			req.Version = 9
			req.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", MemberID: &member, MemberEpoch: epoch, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "u", Partitions: []int32{0}}}}}
			return a.OffsetFetch(context.Background(), someone, req).Groups[0].ErrorCode
		}
		wantCode(t, commit("a", 1, 9, 0), kerr.GroupIDNotFound)
		wantCode(t, commit("", -1, 9, 0), nil)
		a.shared("g") // a has 0 since epoch 1, b has 1 since epoch 2
		wantCode(t, commit("", -1, 9, 0), kerr.UnknownMemberID)
		wantCode(t, commit("c", 2, 9, 0), kerr.UnknownMemberID)
		wantCode(t, commit("a", 2, 8, 0), kerr.UnsupportedVersion)
		for _, version := range []int16{9, 10} {
			wantCode(t, commit("a", 2, version, 0), nil)
			wantCode(t, commit("a", 1, version, 0), nil) // it had 0 in epoch 1 already (KIP-1251)
			wantCode(t, commit("a", 1, version, 1), kerr.StaleMemberEpoch)
			wantCode(t, commit("b", 1, version, 1), kerr.StaleMemberEpoch)
			wantCode(t, commit("a", 3, version, 0), kerr.StaleMemberEpoch)
		}
		wantCode(t, fetch("a", 2), nil)
		wantCode(t, fetch("a", 1), kerr.StaleMemberEpoch)
		wantCode(t, fetch("c", 2), kerr.UnknownMemberID)
		wantCode(t, fetch("", -1), nil)
		del := kmsg.NewPtrOffsetDeleteRequest()
		del.Group = "g"
		del.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "u", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}}, {Topic: "t", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}}}
		resp := a.OffsetDelete(context.Background(), someone, del)
		wantCode(t, resp.Topics[0].Partitions[0].ErrorCode, kerr.GroupSubscribedToTopic)
		wantCode(t, resp.Topics[1].Partitions[0].ErrorCode, nil)
	})
}

func TestConsumerGroupMoves(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a, b := e.owned(noInterval), e.node(2, noInterval)
		a.shared("g")
		wantAssigned(t, a.beat("g", "c", 0, instance("i")), 3, []int32{}...)
		before := a.describeConsumer("g")
		e.assignAll(2)
		wantCode(t, a.beat("g", "a", 2).ErrorCode, kerr.NotCoordinator)
		after := b.describeConsumer("g")
		if before.Epoch != after.Epoch || before.AssignmentEpoch != after.AssignmentEpoch || len(after.Members) != 3 {
			t.Fatalf("%+v\n%+v", before, after)
		}
		for i := range after.Members {
			x, y := before.Members[i], after.Members[i]
			if x.MemberID != y.MemberID || x.MemberEpoch != y.MemberEpoch || len(x.Assignment.TopicPartitions) != len(y.Assignment.TopicPartitions) ||
				len(x.TargetAssignment.TopicPartitions) != len(y.TargetAssignment.TopicPartitions) {
				t.Errorf("%+v\n%+v", x, y)
			}
		}
		wantAssigned(t, b.beat("g", "b", 2), 3) // the rebalance goes on where it was
		wantCode(t, b.beat("g", "c", 3, instance("i")).ErrorCode, nil)
		seconds(46) // sessions began anew, and end
		if d := b.describeConsumer("g"); d.State != "Empty" {
			t.Fatalf("%+v", d)
		}
	})
}

func TestConsumerRegex(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a, b := e.owned(noInterval), e.node(2, noInterval)
		regex := "u|n.*"
		join := func(req *kmsg.ConsumerGroupHeartbeatRequest) {
			req.SubscribedTopicNames, req.SubscribedTopicRegex = nil, &regex
		}
		wantAssigned(t, a.beat("g", "a", 0, join), 1, 0, 1)
		e.addTopic("new", 1)
		e.addTopic("knew", 1)
		seconds(11)
		a.beat("g", "a", 1) // has the expression matched again
		seconds(1)
		if got := a.beat("g", "a", 1); got.MemberEpoch != 2 || len(assigned(got)) != 3 {
			t.Fatalf("epoch %d with %v", got.MemberEpoch, assigned(got))
		}
		e.assignAll(2)
		wantAssigned(t, b.beat("g", "a", 2), 2) // nothing is new to the next coordinator
		del := kmsg.NewPtrOffsetDeleteRequest()
		del.Group = "g"
		del.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "new", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}}}
		wantCode(t, b.OffsetDelete(context.Background(), someone, del).Topics[0].Partitions[0].ErrorCode, kerr.GroupSubscribedToTopic)
	})
}

// The topic of offsets can be subscribed to before anything was committed, as it
// is listed; without a log to copy offsets to, it never comes.
func TestConsumerOfOffsets(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		_, copied := offsetsCopy()
		regex := "__consumer_.*"
		join := func(req *kmsg.ConsumerGroupHeartbeatRequest) {
			req.SubscribedTopicNames, req.SubscribedTopicRegex = nil, &regex
		}
		a := e.owned(noInterval, copied)
		got := a.beat("g", "a", 0, join)
		if n := len(assigned(got)); n != metadata.GroupShards || got.Assignment.Topics[0].TopicID != metadata.InternalTopicID(metadata.OffsetsTopic) {
			t.Errorf("%d partitions assigned, of %v", n, got.Assignment)
		}
	})
	inBubble(t, func(t *testing.T, e *env) {
		got := e.owned(noInterval).beat("g", "a", 0, func(req *kmsg.ConsumerGroupHeartbeatRequest) {
			req.SubscribedTopicNames = []string{metadata.OffsetsTopic}
		})
		wantAssigned(t, got, 1, []int32{}...)
	})
}

func TestConsumerGroupConfigs(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		if got := a.beat("g", "a", 0).HeartbeatIntervalMillis; got != 5000 {
			t.Errorf("interval %d", got)
		}
		a.view.change(func() {
			a.view.configs = map[string]map[string]string{metadata.ConfigGroup + "/g": {
				"consumer.heartbeat.interval.ms": "7000", "consumer.session.timeout.ms": "600000",
			}}
		})
		if got := a.beat("g", "a", 1).HeartbeatIntervalMillis; got != 7000 {
			t.Errorf("interval %d", got)
		}
		seconds(55) // above the default, and bounded by the broker's 60 s
		wantCode(t, a.beat("g", "a", 1).ErrorCode, nil)
		seconds(61)
		wantCode(t, a.beat("g", "a", 1).ErrorCode, kerr.UnknownMemberID)
	})
}

// A state that could not be stored is told to nobody, and is not the state.
func TestConsumerStoreOutOfSpace(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(noInterval)
		a.shared("g")
		full := &fullKV{KV: a.kv}
		a.cfg.KV = full
		full.on.Store(true)
		wantCode(t, a.beat("g", "c", 0).ErrorCode, kerr.CoordinatorNotAvailable)
		wantCode(t, a.beat("new", "c", 0).ErrorCode, kerr.CoordinatorNotAvailable)
		wantAssigned(t, a.beat("g", "a", 2), 2) // membership goes on
		if d := a.describeConsumer("g"); d.Epoch != 2 || len(d.Members) != 2 {
			t.Fatalf("%+v", d)
		}
		full.on.Store(false)
		wantAssigned(t, a.beat("g", "c", 0), 3, []int32{}...)
		wantCode(t, a.beat("new", "c", 0).ErrorCode, nil)
	})
}

// classicProtocol is a consumer's classic join.
func classicProtocol(topics ...string) func(*kmsg.JoinGroupRequest) {
	return func(req *kmsg.JoinGroupRequest) {
		m := kmsg.NewConsumerMemberMetadata()
		m.Topics = topics
		req.Protocols[0].Metadata = m.AppendTo(nil)
	}
}

func (e *env) classicAssignment(topic string, partitions ...int32) string {
	a := kmsg.NewConsumerMemberAssignment()
	a.Topics = []kmsg.ConsumerMemberAssignmentTopic{{Topic: topic, Partitions: partitions}}
	return string(a.AppendTo(nil))
}

func decodeClassic(t *testing.T, b []byte) []int32 {
	t.Helper()
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	out := []int32{}
	for _, topic := range a.Topics {
		out = append(out, topic.Partitions...)
	}
	return out
}

// TestMigration takes a group from the classic protocol to the new one and back,
// with members in it, and the coordinator moved at each stage.
func TestMigration(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		nodes := []*node{e.owned(noInterval), e.node(2, noInterval)}
		at := 0
		move := func() *node {
			at = 1 - at
			e.assignAll(metadata.Incarnation(at + 1))
			return nodes[at]
		}
		a := nodes[0]
		j := a.join("g", "", classicProtocol("u"))
		wantCode(t, j.ErrorCode, nil)
		wantCode(t, a.sync("g", j.MemberID, j.Generation, j.MemberID, e.classicAssignment("u", 0, 1)).ErrorCode, nil)
		wantCode(t, a.commitAs("g", j.MemberID, j.Generation, "u", map[int32]int64{0: 5}).Topics[0].Partitions[0].ErrorCode, nil)

		// A member of the new protocol comes: what the old one has stays its own.
		epoch := j.Generation + 1
		wantAssigned(t, a.beat("g", "n", 0), epoch, []int32{}...)
		a = move()
		if d := a.describeConsumer("g"); len(d.Members) != 2 || d.State != "Reconciling" {
			t.Fatalf("%+v", d)
		}
		wantCode(t, a.heartbeat("g", j.MemberID, j.Generation), kerr.RebalanceInProgress)
		wantCode(t, a.commitAs("g", j.MemberID, j.Generation, "u", map[int32]int64{0: 6}).Topics[0].Partitions[0].ErrorCode, nil)
		// It is an eager consumer, that gives up all before it joins.
		r := a.join("g", j.MemberID, classicProtocol("u"))
		wantCode(t, r.ErrorCode, nil)
		if r.Generation != epoch || r.LeaderID != "" || *r.ProtocolType != "consumer" {
			t.Fatalf("%+v", r)
		}
		s := a.sync("g", j.MemberID, r.Generation)
		wantCode(t, s.ErrorCode, nil)
		classicHas := decodeClassic(t, s.MemberAssignment)
		newHas := assigned(a.beat("g", "n", epoch))
		if len(classicHas) != 1 || len(newHas) != 1 || classicHas[0] == newHas[0] {
			t.Fatalf("the classic member has %v, the new one %v", classicHas, newHas)
		}
		wantCode(t, a.heartbeat("g", j.MemberID, epoch), nil)
		wantCode(t, a.heartbeat("g", j.MemberID, epoch-1), kerr.IllegalGeneration)

		// The new one leaves: a classic group again.
		a = move()
		wantCode(t, a.beat("g", "n", -1).ErrorCode, nil)
		wantCode(t, a.describeConsumer("g").ErrorCode, kerr.GroupIDNotFound)
		a = move()
		old := kmsg.NewPtrDescribeGroupsRequest()
		old.Version, old.Groups = 6, []string{"g"}
		d := a.DescribeGroups(context.Background(), someone, old).Groups[0]
		if d.ErrorCode != 0 || len(d.Members) != 1 {
			t.Fatalf("%+v", d)
		}
		r = a.join("g", j.MemberID, classicProtocol("u"))
		wantCode(t, r.ErrorCode, nil)
		if r.Generation <= epoch || r.LeaderID != j.MemberID {
			t.Fatalf("%+v after epoch %d", r, epoch)
		}
		wantFetch(t, a, "g", "u", 0, 6)
	})
}

// A group whose conversion could not be stored is what it was.
func TestMigrationNotStored(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(noInterval)
		j := a.join("g", "", classicProtocol("u"))
		wantCode(t, a.sync("g", j.MemberID, j.Generation, j.MemberID, e.classicAssignment("u", 0, 1)).ErrorCode, nil)
		full := &fullKV{KV: a.kv}
		a.cfg.KV = full
		full.on.Store(true)
		wantCode(t, a.beat("g", "n", 0).ErrorCode, kerr.CoordinatorNotAvailable)
		wantCode(t, a.heartbeat("g", j.MemberID, j.Generation), nil)
		full.on.Store(false)
		wantCode(t, a.beat("g", "n", 0).ErrorCode, nil)
		wantCode(t, a.heartbeat("g", j.MemberID, j.Generation), kerr.RebalanceInProgress)

		// And back: the last member of the new protocol leaves.
		full.on.Store(true)
		wantCode(t, a.beat("g", "n", -1).ErrorCode, kerr.CoordinatorNotAvailable)
		full.on.Store(false)
		wantCode(t, a.join("g", j.MemberID, classicProtocol("u")).ErrorCode, nil)
		e.node(2)
		e.assignAll(2)
		if n := len(e.nodes[1].shards[ShardOf("g")].groups); n != 1 {
			t.Fatalf("%d groups", n)
		}
	})
}

func TestMigrationRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(func(cfg *Config) { cfg.Consumer.Migration = consumer.Disabled })
		j := a.join("g", "", classicProtocol("u"))
		wantCode(t, a.sync("g", j.MemberID, j.Generation, j.MemberID, e.classicAssignment("u", 0, 1)).ErrorCode, nil)
		wantCode(t, a.beat("g", "n", 0).ErrorCode, kerr.GroupIDNotFound)
		wantCode(t, a.heartbeat("g", j.MemberID, j.Generation), nil)
		// An empty one changes whatever the policy, in both directions.
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group, leave.MemberID = "g", j.MemberID
		wantCode(t, a.LeaveGroup(context.Background(), someone, leave).ErrorCode, nil)
		wantAssigned(t, a.beat("g", "n", 0), 1, 0, 1)
		wantCode(t, a.join("g", "", classicProtocol("u"), func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "connect" }).ErrorCode, kerr.InconsistentGroupProtocol)
		wantCode(t, a.beat("g", "n", -1).ErrorCode, nil)
		wantCode(t, a.join("g", "", classicProtocol("u")).ErrorCode, nil)
	})
}

// TestMigrationByStaticMember: the last member of the new protocol is replaced
// by its classic self.
func TestMigrationByStaticMember(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(noInterval)
		j := a.join("g", "", classicProtocol("u"))
		wantCode(t, a.sync("g", j.MemberID, j.Generation, j.MemberID, e.classicAssignment("u", 0, 1)).ErrorCode, nil)
		wantCode(t, a.beat("g", "n", 0, instance("i")).ErrorCode, nil)
		name := "i"
		joining := later(func() *kmsg.JoinGroupResponse {
			return a.join("g", "", classicProtocol("u"), func(r *kmsg.JoinGroupRequest) { r.Version, r.InstanceID = 9, &name })
		})
		wantCode(t, a.describeConsumer("g").ErrorCode, kerr.GroupIDNotFound)
		other := a.join("g", j.MemberID, classicProtocol("u"))
		wantCode(t, other.ErrorCode, nil)
		r := <-joining
		wantCode(t, r.ErrorCode, nil)
		if len(r.Members)+len(other.Members) != 2 {
			t.Fatalf("%+v\n%+v", r, other)
		}
	})
}

func TestConsumerOffsetsExpire(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(noInterval, func(cfg *Config) { cfg.OffsetsRetention = time.Hour })
		wantCode(t, a.commit("g", "u", 0, 5), nil)
		wantAssigned(t, a.beat("g", "m", 0), 1, 0, 1)
		for range 400 {
			seconds(30)
			wantCode(t, a.beat("g", "m", 1).ErrorCode, nil)
		}
		wantFetch(t, a, "g", "u", 0, 5) // subscribed
		wantCode(t, a.beat("g", "m", -1).ErrorCode, nil)
		seconds(50 * 60)
		wantFetch(t, a, "g", "u", 0, 5) // the group became empty less than an hour ago
		seconds(30 * 60)
		wantFetch(t, a, "g", "u", 0, -1)
		wantCode(t, a.describeConsumer("g").ErrorCode, kerr.GroupIDNotFound)
	})
}
