package test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func badNameCases() []badCase {
	return []badCase{
		{"topics to create", badTopicsCreated},
		{"topics to create by asking for them", badTopicsAsked},
		{"longest topic name", longestTopic},
		{"topics to delete, grow and configure", badTopicsChanged},
		{"absurd numbers of partitions and replicas", absurdTopics},
		{"absurd fetches", absurdFetches},
		{"group ids that could meet in a path", groupsApart},
		{"ids of 32 KiB", longIDs},
		{"absurd group members", absurdMembers},
	}
}

// badTopics are names no topic may have.
var badTopics = map[string]string{
	"empty": "", "a dot": ".", "two dots": "..", "a slash": "a/b", "a path upwards": "../../etc/passwd",
	"a path": "/", "NUL": "a\x00b", "invalid UTF-8": "\xff\xfe", "half a character": "a\xc3", "a space": "a b",
	"a newline": "a\nb", "a letter beyond ASCII": "tópico", "a percent sign": "a%2Fb", "250 characters": strings.Repeat("x", 250),
	"32 KiB": strings.Repeat("x", 32<<10-1), "a name that differs in . and _": "bad_topic",
}

func createBad(name string, partitions int32, factor int16) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 5000
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, factor
	req.Topics = append(req.Topics, topic)
	return req
}

func badTopicsCreated(t *testing.T, r *badRig) {
	for what, name := range badTopics {
		for _, version := range []int16{2, 7} {
			got := r.conn.ask(t, createBad(name, 1, 1), version).(*kmsg.CreateTopicsResponse).Topics[0]
			if got.ErrorCode != kerr.InvalidTopicException.Code {
				t.Errorf("%s, version %d: %v", what, version, kerr.ErrorForCode(got.ErrorCode))
			}
		}
	}
}

// badTopicsAsked: with automatic creation on, a question must not do what a
// command may not.
func badTopicsAsked(t *testing.T, r *badRig) {
	for what, name := range badTopics {
		for _, version := range []int16{1, 12} {
			req := kmsg.NewPtrMetadataRequest()
			req.AllowAutoTopicCreation = true
			topic := kmsg.NewMetadataRequestTopic()
			topic.Topic = &name
			req.Topics = append(req.Topics, topic)
			got := r.conn.ask(t, req, version).(*kmsg.MetadataResponse).Topics[0]
			if got.ErrorCode != kerr.InvalidTopicException.Code && got.ErrorCode != kerr.UnknownTopicOrPartition.Code {
				t.Errorf("%s, version %d: %v", what, version, kerr.ErrorForCode(got.ErrorCode))
			}
		}
	}
}

func longestTopic(t *testing.T, r *badRig) {
	req := createBad(strings.Repeat("x", 249), 1, 1)
	req.ValidateOnly = true
	got := r.conn.ask(t, req, 7).(*kmsg.CreateTopicsResponse).Topics[0]
	if got.ErrorCode != 0 {
		t.Errorf("a name of 249 characters: %v", kerr.ErrorForCode(got.ErrorCode))
	}
}

func badTopicsChanged(t *testing.T, r *badRig) {
	wantError := func(what string, code int16) {
		t.Helper()
		if code == 0 || code == kerr.UnknownServerError.Code {
			t.Errorf("%s: %v", what, kerr.ErrorForCode(code))
		}
	}
	for what, name := range badTopics {
		remove := kmsg.NewPtrDeleteTopicsRequest()
		remove.TopicNames = []string{name}
		wantError("delete: "+what, r.conn.ask(t, remove, 5).(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode)

		grow := kmsg.NewPtrCreatePartitionsRequest()
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = name, 5
		grow.Topics = append(grow.Topics, topic)
		wantError("grow: "+what, r.conn.ask(t, grow, 3).(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode)

		for _, kind := range []kmsg.ConfigResourceType{kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker, 0, -1, 127} {
			if kind == kmsg.ConfigResourceTypeBroker && name == "" {
				continue // the cluster's default
			}
			alter := kmsg.NewPtrIncrementalAlterConfigsRequest()
			resource := kmsg.NewIncrementalAlterConfigsRequestResource()
			resource.ResourceType, resource.ResourceName = kind, name
			config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			config.Name, config.Value = "retention.ms", kmsg.StringPtr("1")
			resource.Configs = append(resource.Configs, config)
			alter.Resources = append(alter.Resources, resource)
			resp := r.conn.ask(t, alter, 1).(*kmsg.IncrementalAlterConfigsResponse)
			wantError(fmt.Sprintf("configure %d: %s", kind, what), resp.Resources[0].ErrorCode)
		}
	}
}

func absurdTopics(t *testing.T, r *badRig) {
	for _, c := range []struct {
		partitions int32
		factor     int16
		want       *kerr.Error
	}{
		{0, 1, kerr.InvalidPartitions},
		{-2, 1, kerr.InvalidPartitions},
		{math.MaxInt32, 1, kerr.InvalidPartitions},
		{math.MinInt32, 1, kerr.InvalidPartitions},
		{1, 0, kerr.InvalidReplicationFactor},
		{1, -2, kerr.InvalidReplicationFactor},
		{1, math.MinInt16, kerr.InvalidReplicationFactor},
	} {
		got := r.conn.ask(t, createBad("absurd", c.partitions, c.factor), 7).(*kmsg.CreateTopicsResponse).Topics[0]
		if got.ErrorCode != c.want.Code {
			t.Errorf("%d partitions, factor %d: %v, want %v", c.partitions, c.factor, kerr.ErrorForCode(got.ErrorCode), c.want)
		}
	}
	twice := createBad("twice", 1, 1)
	twice.Topics = append(twice.Topics, twice.Topics[0])
	for _, got := range r.conn.ask(t, twice, 7).(*kmsg.CreateTopicsResponse).Topics {
		if got.ErrorCode != kerr.InvalidRequest.Code {
			t.Errorf("a topic named twice: %v", kerr.ErrorForCode(got.ErrorCode))
		}
	}
	grow := kmsg.NewPtrCreatePartitionsRequest()
	for i, count := range []int32{math.MaxInt32, math.MinInt32, 0, -1, 1} {
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = []string{badTopic, badCompacted, badAccepted, badProbed, badTopic}[i], count
		grow.Topics = []kmsg.CreatePartitionsRequestTopic{topic}
		got := r.conn.ask(t, grow, 3).(*kmsg.CreatePartitionsResponse).Topics[0]
		if got.ErrorCode != kerr.InvalidPartitions.Code {
			t.Errorf("growth to %d: %v", count, kerr.ErrorForCode(got.ErrorCode))
		}
	}
}

func absurdFetches(t *testing.T, r *badRig) {
	for _, c := range []struct {
		name   string
		change func(*kmsg.FetchRequest)
		want   *kerr.Error // nil: nothing is wrong, and nothing comes
	}{
		{"offset -1", func(f *kmsg.FetchRequest) { f.Topics[0].Partitions[0].FetchOffset = -1 }, kerr.OffsetOutOfRange},
		{"the greatest offset", func(f *kmsg.FetchRequest) { f.Topics[0].Partitions[0].FetchOffset = math.MaxInt64 }, kerr.OffsetOutOfRange},
		{"the least offset", func(f *kmsg.FetchRequest) { f.Topics[0].Partitions[0].FetchOffset = math.MinInt64 }, kerr.OffsetOutOfRange},
		{"partition -1", func(f *kmsg.FetchRequest) { f.Topics[0].Partitions[0].Partition = -1 }, kerr.UnknownTopicOrPartition},
		{"a leader epoch to come", func(f *kmsg.FetchRequest) { f.Topics[0].Partitions[0].CurrentLeaderEpoch = math.MaxInt32 }, kerr.UnknownLeaderEpoch},
		{"less than no time", func(f *kmsg.FetchRequest) { f.MaxWaitMillis = math.MinInt32 }, nil},
		{"negative sizes", func(f *kmsg.FetchRequest) {
			f.MaxBytes, f.MinBytes, f.Topics[0].Partitions[0].PartitionMaxBytes = math.MinInt32, math.MinInt32, math.MinInt32
		}, nil},
	} {
		req := badFetch(badTopic, 0)
		c.change(req)
		got := kerr.ErrorForCode(r.conn.ask(t, req, 11).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode)
		if (got == nil) != (c.want == nil) || c.want != nil && got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	session := badFetch(badTopic, 0)
	session.SessionID, session.SessionEpoch = math.MaxInt32, 5
	if got := r.conn.ask(t, session, 11).(*kmsg.FetchResponse).ErrorCode; got != kerr.FetchSessionIDNotFound.Code {
		t.Errorf("a session nobody opened: %v", kerr.ErrorForCode(got))
	}
}

// groupsApart: whatever an id is made of, it is one group and no other's.
func groupsApart(t *testing.T, r *badRig) {
	ids := []string{
		"a", "a/b", "a/", "/a", "a//b", "a%2Fb", "a%2fb", "%61", "%", "%%", "..", "../a", ".", "/", "//", "h", "a/h", "a/m/0",
		"a\x00b", "a\x00", "\x00", "\xff", "\xff\xfe", "A", "á", "a\u0301", " ", "\n", `"`, "topics/", strings.Repeat("x", 32767/3),
	}
	for i, id := range ids {
		if code := r.commit(t, id, int64(i)); code != 0 {
			t.Errorf("commit of %.20q: %v", id, kerr.ErrorForCode(code))
		}
	}
	for gone := range ids {
		for i, id := range ids {
			want := int64(i)
			if i < gone {
				want = -1
			}
			if got := r.committed(t, id); got != want {
				t.Errorf("with %d groups deleted, %.20q is at %d, want %d", gone, id, got, want)
			}
		}
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{ids[gone]}
		if got := r.conn.ask(t, req, 1).(*kmsg.DeleteGroupsResponse).Groups[0]; got.ErrorCode != 0 {
			t.Errorf("delete of %.20q: %v", ids[gone], kerr.ErrorForCode(got.ErrorCode))
		}
	}
}

// commit stores an offset of a group without members.
func (r *badRig) commit(t *testing.T, group string, offset int64) int16 {
	t.Helper()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset = offset
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: badTopic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	return r.conn.ask(t, req, 8).(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
}

// committed is the offset a group has stored, -1 for none.
func (r *badRig) committed(t *testing.T, group string) int64 {
	t.Helper()
	got := r.offsets(t, group)
	if got.ErrorCode != 0 || len(got.Topics) == 0 {
		t.Fatalf("offsets of %.20q: %v, %d topics", group, kerr.ErrorForCode(got.ErrorCode), len(got.Topics))
	}
	return got.Topics[0].Partitions[0].Offset
}

func (r *badRig) offsets(t *testing.T, group string) *kmsg.OffsetFetchResponse {
	t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group
	req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: badTopic, Partitions: []int32{0}}}
	return r.conn.ask(t, req, 6).(*kmsg.OffsetFetchResponse)
}

func longIDs(t *testing.T, r *badRig) {
	const kib32 = 32 << 10
	for _, id := range []string{strings.Repeat("g", kib32), strings.Repeat("/", kib32-1), strings.Repeat("\xff", kib32-1)} {
		if code := r.commit(t, id, 1); code != kerr.InvalidGroupID.Code {
			t.Errorf("group id %.3q... of %d bytes: %v", id, len(id), kerr.ErrorForCode(code))
		}
		if got := r.offsets(t, id).ErrorCode; got != kerr.InvalidGroupID.Code {
			t.Errorf("offsets of %.3q... of %d bytes: %v", id, len(id), kerr.ErrorForCode(got))
		}
		join := badJoin(id)
		if got := r.conn.ask(t, join, 9).(*kmsg.JoinGroupResponse).ErrorCode; got != kerr.InvalidGroupID.Code {
			t.Errorf("join of %.3q... of %d bytes: %v", id, len(id), kerr.ErrorForCode(got))
		}
		init := kmsg.NewPtrInitProducerIDRequest()
		init.TransactionalID = &id
		if got := r.conn.ask(t, init, 4).(*kmsg.InitProducerIDResponse); got.ErrorCode == 0 {
			t.Errorf("transactional id %.3q... of %d bytes is taken", id, len(id))
		}
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.CoordinatorKeys = []string{id}
		r.conn.ask(t, find, 4)
	}
	long := kmsg.NewRequestFormatter(kmsg.FormatterClientID(strings.Repeat("\xff", kib32-1)))
	c := r.dial(t)
	for _, req := range []kmsg.Request{kmsg.NewPtrApiVersionsRequest(), flexibleHeader()} {
		c.send(long.AppendRequest(nil, req, 1))
		c.correlation = 1
		if _, err := c.answer(req); err != nil {
			t.Errorf("a client id of 32 KiB: %v", err)
		}
	}
}

func badJoin(group string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = group, 10_000, 10_000, "consumer"
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name = "range"
	req.Protocols = append(req.Protocols, protocol)
	return req
}

func absurdMembers(t *testing.T, r *badRig) {
	for _, c := range []struct {
		name   string
		change func(*kmsg.JoinGroupRequest)
		want   *kerr.Error
	}{
		{"no group", func(j *kmsg.JoinGroupRequest) { j.Group = "" }, kerr.InvalidGroupID},
		{"no session", func(j *kmsg.JoinGroupRequest) { j.SessionTimeoutMillis = 0 }, kerr.InvalidSessionTimeout},
		{"a session of less than no time", func(j *kmsg.JoinGroupRequest) { j.SessionTimeoutMillis = math.MinInt32 }, kerr.InvalidSessionTimeout},
		{"an endless session", func(j *kmsg.JoinGroupRequest) { j.SessionTimeoutMillis = math.MaxInt32 }, kerr.InvalidSessionTimeout},
		{"no protocols", func(j *kmsg.JoinGroupRequest) { j.Protocols = nil }, kerr.InconsistentGroupProtocol},
		{"no protocol type", func(j *kmsg.JoinGroupRequest) { j.ProtocolType = "" }, kerr.InconsistentGroupProtocol},
		{"2 MiB of metadata", func(j *kmsg.JoinGroupRequest) { j.Protocols[0].Metadata = make([]byte, 2<<20) }, kerr.MessageTooLarge},
		{"a member nobody knows", func(j *kmsg.JoinGroupRequest) { j.MemberID = "\x00/.." }, kerr.UnknownMemberID},
	} {
		req := badJoin("absurd")
		c.change(req)
		if got := kerr.ErrorForCode(r.conn.ask(t, req, 5).(*kmsg.JoinGroupResponse).ErrorCode); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	for _, generation := range []int32{math.MinInt32, -1, math.MaxInt32} {
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Group, beat.Generation, beat.MemberID = "absurd", generation, "nobody"
		if got := r.conn.ask(t, beat, 3).(*kmsg.HeartbeatResponse).ErrorCode; got == 0 {
			t.Errorf("a heartbeat of generation %d from nobody is taken", generation)
		}
	}
}
