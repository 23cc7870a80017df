package broker

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// produceOne sends one batch to partition 0 of a topic.
func (c *client) produceOne(version int16, t *metadata.Topic, records []byte) kmsg.ProduceResponseTopicPartition {
	c.t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(version)
	fillRequest(req, t.ID)
	req.Topics[0].Topic = t.Name
	req.Topics[0].Partitions[0].Records = records
	return do[*kmsg.ProduceResponse](c, req).Topics[0].Partitions[0]
}

func TestProduceRefusals(t *testing.T) {
	r := newRig(t)
	plain, part := r.topic("plain", "max.message.bytes", "10000")
	compacted, _ := r.topic("compacted", "cleanup.policy", "compact")
	c := r.dial()
	edit := func(f func(b []byte)) []byte { b := someBatch(2); f(b); return resum(b) }
	attributes := func(a uint16) []byte { return edit(func(b []byte) { binary.BigEndian.PutUint16(b[21:], a) }) }
	for _, tc := range []struct {
		name    string
		version int16
		topic   *metadata.Topic
		records []byte
		want    *kerr.Error
	}{
		{"no records", 9, plain, nil, kerr.InvalidRecord},
		{"cut short", 9, plain, someBatch(2)[:70], kerr.InvalidRecord},
		{"two batches", 9, plain, append(someBatch(1), someBatch(1)...), kerr.InvalidRecord},
		{"magic 0", 9, plain, edit(func(b []byte) { b[16] = 0 }), kerr.InvalidRecord},
		{"magic 1", 9, plain, edit(func(b []byte) { b[16] = 1 }), kerr.InvalidRecord},
		{"magic 3", 9, plain, edit(func(b []byte) { b[16] = 3 }), kerr.InvalidRecord},
		{"checksum", 9, plain, func() []byte { b := someBatch(2); b[len(b)-3] ^= 1; return b }(), kerr.CorruptMessage},
		{"count", 9, plain, edit(func(b []byte) { b[60]++ }), kerr.InvalidRecord},
		{"control batch", 9, plain, attributes(0x20), kerr.InvalidRecord},
		{"transactional batch", 9, plain, edit(func(b []byte) {
			b[22] |= 0x10
			copy(b[43:57], make([]byte, 14))
		}), kerr.TransactionalIDAuthorizationFailed},
		{"codec 6", 9, plain, attributes(6), kerr.UnsupportedCompressionType},
		{"zstd before version 7", 6, plain, sealBatch([]byte{1, 2}, 1, 4), kerr.UnsupportedCompressionType},
		{"too large", 9, plain, bigBatch(10001), kerr.MessageTooLarge},
		{"from the future", 9, plain, edit(func(b []byte) {
			binary.BigEndian.PutUint64(b[27:], uint64(time.Now().Add(2*time.Hour).UnixMilli()))
		}), kerr.InvalidTimestamp},
		{"no key in a compacted topic", 9, compacted, makeBatch(1, nil, []byte("v")), kerr.InvalidRecord},
		{"old version", 2, plain, someBatch(1), kerr.UnsupportedVersion},
		{"internal topic", 9, internalTopics[0], someBatch(1), kerr.InvalidTopicException},
		{"unknown topic", 9, &metadata.Topic{Name: "nope"}, someBatch(1), kerr.UnknownTopicOrPartition},
		{"unknown topic id", 13, &metadata.Topic{ID: metadata.NewTopicID()}, someBatch(1), kerr.UnknownTopicID},
		{"null topic id", 13, &metadata.Topic{}, someBatch(1), kerr.UnknownTopicID},
	} {
		got := c.produceOne(tc.version, tc.topic, tc.records)
		if got.ErrorCode != tc.want.Code || tc.version >= 3 && got.BaseOffset != -1 {
			t.Errorf("%s: %v at %d, want %v", tc.name, kerr.ErrorForCode(got.ErrorCode), got.BaseOffset, tc.want)
		}
	}
	if o := part.Offsets(); o.HighWatermark != 0 {
		t.Errorf("a refusal changed the log: %+v", o)
	}
	got := c.produceOne(9, compacted, makeBatch(1, nil, []byte("v")))
	if len(got.ErrorRecords) != 1 || got.ErrorMessage == nil {
		t.Errorf("the record at fault is not named: %+v", got)
	}
}

func TestProduceAcks(t *testing.T) {
	r := newRig(t)
	topic, part := r.topic("t")
	c := r.dial()
	send := func(acks int16) *kmsg.ProduceRequest {
		req := kmsg.NewPtrProduceRequest()
		req.SetVersion(9)
		fillRequest(req, topic.ID)
		req.Acks = acks
		return req
	}
	if got := do[*kmsg.ProduceResponse](c, send(2)).Topics[0].Partitions[0].ErrorCode; got != kerr.InvalidRequiredAcks.Code {
		t.Errorf("acks 2: %d", got)
	}
	c.send(send(0)) // no answer: the next one is of the next request
	if got := do[*kmsg.ProduceResponse](c, send(1)).Topics[0].Partitions[0]; got.ErrorCode != 0 || got.BaseOffset != 1 {
		t.Errorf("acks 1: %+v", got)
	}
	part.hold = true
	late := send(-1)
	late.TimeoutMillis = 30
	if got := do[*kmsg.ProduceResponse](c, late).Topics[0].Partitions[0]; got.ErrorCode != kerr.RequestTimedOut.Code || got.BaseOffset != -1 {
		t.Errorf("a late commit: %+v", got)
	}
	go func() {
		waitFor(t, func() bool { part.mu.Lock(); defer part.mu.Unlock(); return len(part.held) == 2 })
		part.release(tiering.ErrFenced)
	}()
	if got := do[*kmsg.ProduceResponse](c, send(-1)).Topics[0].Partitions[0]; got.ErrorCode != kerr.NotLeaderForPartition.Code || got.BaseOffset != -1 {
		t.Errorf("a fenced commit: %+v", got)
	}
	part.hold = false
	part.refuse = tiering.ErrOutOfOrderSequence
	c.send(send(0)) // an error without an answer closes the connection
	if _, err := c.nc.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("acks 0 with an error: %v", err)
	}
}

func TestProduceElsewhereNamesTheLeader(t *testing.T) {
	r := newRig(t)
	topic, _ := r.topic("t")
	r.log.lead, r.view.owner = false, 8
	c := r.dial()
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(10)
	fillRequest(req, topic.ID)
	resp := do[*kmsg.ProduceResponse](c, req)
	if p := resp.Topics[0].Partitions[0]; p.ErrorCode != kerr.NotLeaderForPartition.Code || p.CurrentLeader.LeaderID != 2 || p.CurrentLeader.LeaderEpoch != 3 {
		t.Errorf("%+v", p)
	}
	if len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != 2 {
		t.Errorf("%+v", resp.Brokers)
	}
}

func TestLogAppendTime(t *testing.T) {
	r := newRig(t)
	topic, _ := r.topic("t", "message.timestamp.type", "LogAppendTime")
	if got := r.dial().produceOne(9, topic, someBatch(1)); got.ErrorCode != 0 || got.LogAppendTime <= 0 {
		t.Errorf("%+v", got)
	}
}

// fetcher sends fetches of partition 0 and 1 of a topic.
type fetcher struct {
	*client
	topic *metadata.Topic
	req   *kmsg.FetchRequest
}

func (c *client) fetcher(version int16, t *metadata.Topic) *fetcher {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(version)
	fillRequest(req, t.ID)
	req.Topics[0].Topic = t.Name
	req.SessionEpoch = 0
	return &fetcher{c, t, req}
}

func (f *fetcher) part() *kmsg.FetchRequestTopicPartition { return &f.req.Topics[0].Partitions[0] }

func (f *fetcher) fetch() *kmsg.FetchResponse {
	f.t.Helper()
	return do[*kmsg.FetchResponse](f.client, f.req)
}

func (f *fetcher) one() kmsg.FetchResponseTopicPartition {
	f.t.Helper()
	resp := f.fetch()
	if resp.ErrorCode != 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		f.t.Fatalf("%+v", resp)
	}
	return resp.Topics[0].Partitions[0]
}

func TestFetchErrors(t *testing.T) {
	r := newRig(t)
	topic, part := r.topic("t")
	part.ends = map[int32]int64{1: 1}
	c := r.dial()
	c.produceOne(9, topic, someBatch(1))
	c.produceOne(9, topic, someBatch(1))
	for _, tc := range []struct {
		name    string
		version int16
		set     func(f *fetcher)
		want    *kerr.Error
	}{
		{"beyond the end", 12, func(f *fetcher) { f.part().FetchOffset = 3 }, kerr.OffsetOutOfRange},
		{"negative offset", 12, func(f *fetcher) { f.part().FetchOffset = -1 }, kerr.OffsetOutOfRange},
		{"old leader epoch", 12, func(f *fetcher) { f.part().CurrentLeaderEpoch = 2 }, kerr.FencedLeaderEpoch},
		{"new leader epoch", 12, func(f *fetcher) { f.part().CurrentLeaderEpoch = 4 }, kerr.UnknownLeaderEpoch},
		{"unknown partition", 12, func(f *fetcher) { f.part().Partition = 9 }, kerr.UnknownTopicOrPartition},
		{"unknown topic", 12, func(f *fetcher) { f.req.Topics[0].Topic = "nope" }, kerr.UnknownTopicOrPartition},
		{"unknown topic id", 13, func(f *fetcher) { f.req.Topics[0].TopicID = metadata.NewTopicID() }, kerr.UnknownTopicID},
	} {
		f := c.fetcher(tc.version, topic)
		tc.set(f)
		if got := f.one(); got.ErrorCode != tc.want.Code || got.RecordBatches == nil {
			t.Errorf("%s: %v, want %v", tc.name, kerr.ErrorForCode(got.ErrorCode), tc.want)
		}
	}
	f := c.fetcher(12, topic)
	f.part().FetchOffset, f.part().LastFetchedEpoch = 2, 1
	if got := f.one(); got.DivergingEpoch.Epoch != 1 || got.DivergingEpoch.EndOffset != 1 || len(got.RecordBatches) != 0 {
		t.Errorf("diverging: %+v", got)
	}
}

// TestDeposedLeaderDoesNotMislead: whoever cannot prove that it leads neither
// says "out of range" nor "nothing more".
func TestDeposedLeaderDoesNotMislead(t *testing.T) {
	r := newRig(t)
	topic, _ := r.topic("t")
	c := r.dial()
	c.produceOne(9, topic, someBatch(1))
	c.fetcher(12, topic).one() // below the end: no proof needed
	if len(r.log.checks) != 0 {
		t.Errorf("a fetch below the end asked for proof: %v", r.log.checks)
	}
	f := c.fetcher(12, topic)
	f.part().FetchOffset = 1
	f.one()
	f.part().FetchOffset = 5
	f.one()
	if !slices.Equal(r.log.checks, []time.Duration{time.Second, 0}) {
		t.Errorf("proofs asked for: %v", r.log.checks)
	}
	r.log.mu.Lock()
	r.log.check = tiering.ErrFenced
	r.log.mu.Unlock()
	for _, offset := range []int64{1, 5} {
		f.part().FetchOffset = offset
		if got := f.one(); got.ErrorCode != kerr.NotLeaderForPartition.Code {
			t.Errorf("at %d: %v", offset, kerr.ErrorForCode(got.ErrorCode))
		}
	}
	list := kmsg.NewPtrListOffsetsRequest()
	list.SetVersion(7)
	fillRequest(list, topic.ID)
	if got := do[*kmsg.ListOffsetsResponse](c, list).Topics[0].Partitions[0].ErrorCode; got != kerr.NotLeaderForPartition.Code {
		t.Errorf("list offsets: %d", got)
	}
}

func TestFetchWaitsForMinBytes(t *testing.T) {
	r := newRig(t)
	topic, part := r.topic("t")
	c, producer := r.dial(), r.dial()
	f := c.fetcher(12, topic)
	f.req.MinBytes, f.req.MaxWaitMillis = 1, 20_000
	id := c.send(f.req)
	waitFor(t, func() bool { part.mu.Lock(); defer part.mu.Unlock(); return len(part.subs) == 1 })
	begin := time.Now()
	producer.produceOne(9, topic, someBatch(3))
	resp, err := c.receive(f.req, id)
	if err != nil {
		t.Fatal(err)
	}
	if p := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]; p.HighWatermark != 3 || len(p.RecordBatches) == 0 || time.Since(begin) > 5*time.Second {
		t.Errorf("%+v after %v", p, time.Since(begin))
	}
	f.part().FetchOffset = 3
	f.req.MaxWaitMillis = 50
	begin = time.Now()
	if got := f.one(); len(got.RecordBatches) != 0 || time.Since(begin) < 45*time.Millisecond {
		t.Errorf("an empty fetch came back after %v", time.Since(begin))
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	if len(part.subs) != 0 {
		t.Error("a subscription is left over")
	}
}

func TestFetchLimits(t *testing.T) {
	r := newRig(t)
	topic, part := r.topic("t")
	other := r.log.part(metadata.TopicPartition{Topic: topic.ID, Partition: 1})
	c := r.dial()
	for range 3 {
		c.produceOne(9, topic, bigBatch(1000))
	}
	other.batches, other.end = slices.Clone(part.batches[:1]), 1
	f := c.fetcher(12, topic)
	second := *f.part()
	second.Partition = 1
	f.req.Topics[0].Partitions = append(f.req.Topics[0].Partitions, second)
	f.req.MaxBytes = 10 // less than one batch: the first partition still moves on
	resp := f.fetch()
	sizes := []int{}
	for _, p := range resp.Topics[0].Partitions {
		sizes = append(sizes, len(p.RecordBatches))
		if p.ErrorCode != 0 || p.HighWatermark < 1 {
			t.Errorf("%+v", p)
		}
	}
	if sizes[0] < 1000 || sizes[0] > 1200 || sizes[1] != 0 {
		t.Errorf("sizes %v", sizes)
	}
}

func TestFetchSession(t *testing.T) {
	r := newRig(t)
	topic, _ := r.topic("t")
	c := r.dial()
	f := c.fetcher(13, topic)
	second := *f.part()
	second.Partition = 1
	f.req.Topics[0].Partitions = append(f.req.Topics[0].Partitions, second)
	full := f.fetch()
	if full.SessionID == 0 || len(full.Topics[0].Partitions) != 2 {
		t.Fatalf("%+v", full)
	}
	next := func(epoch int32) *kmsg.FetchResponse {
		f.req.SessionID, f.req.SessionEpoch = full.SessionID, epoch
		return f.fetch()
	}
	topics := f.req.Topics
	f.req.Topics = nil
	if got := next(1); got.ErrorCode != 0 || len(got.Topics) != 0 {
		t.Errorf("nothing new: %+v", got)
	}
	r.dial().produceOne(13, topic, someBatch(1))
	got := next(2)
	if len(got.Topics) != 1 || len(got.Topics[0].Partitions) != 1 || got.Topics[0].Partitions[0].Partition != 0 || got.Topics[0].TopicID != [16]byte(topic.ID) {
		t.Errorf("one partition has news: %+v", got)
	}
	if got := next(2); got.ErrorCode != kerr.InvalidFetchSessionEpoch.Code {
		t.Errorf("an epoch twice: %+v", got)
	}
	forgotten := kmsg.NewFetchRequestForgottenTopic()
	forgotten.TopicID, forgotten.Partitions = topic.ID, []int32{0}
	f.req.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{forgotten}
	if got := next(3); got.ErrorCode != 0 || len(got.Topics) != 0 {
		t.Errorf("after forgetting: %+v", got)
	}
	f.req.ForgottenTopics = nil
	f.req.SetVersion(12)
	if got := next(4); got.ErrorCode != kerr.FetchSessionTopicIDError.Code {
		t.Errorf("names in a session of ids: %+v", got)
	}
	f.req.SetVersion(13)
	f.req.Topics = topics
	if got := next(-1); got.ErrorCode != 0 || got.SessionID != 0 {
		t.Errorf("the final fetch: %+v", got)
	}
	if got := next(4); got.ErrorCode != kerr.FetchSessionIDNotFound.Code {
		t.Errorf("after the end: %+v", got)
	}
}

func TestListOffsets(t *testing.T) {
	r := newRig(t)
	topic, part := r.topic("t")
	c := r.dial()
	c.produceOne(9, topic, someBatch(4))
	part.start = 1
	ask := func(version int16, ts int64) kmsg.ListOffsetsResponseTopicPartition {
		req := kmsg.NewPtrListOffsetsRequest()
		req.SetVersion(version)
		fillRequest(req, topic.ID)
		req.Topics[0].Partitions[0].Timestamp = ts
		return do[*kmsg.ListOffsetsResponse](c, req).Topics[0].Partitions[0]
	}
	for _, tc := range []struct {
		version int16
		ts      int64
		offset  int64
		code    int16
	}{
		{1, -1, 4, 0}, {1, -2, 1, 0}, {11, -1, 4, 0}, {7, -3, 0, 0}, {8, -4, 1, 0}, {9, -5, -1, 0}, {11, -6, 1, 0},
		{6, -3, -1, 35}, {7, -4, -1, 35}, {8, -5, -1, 35}, {10, -6, -1, 35}, {11, -7, -1, 35},
		{5, 0, 0, 0}, {5, math.MaxInt64, -1, 0},
	} {
		if got := ask(tc.version, tc.ts); got.Offset != tc.offset || got.ErrorCode != tc.code {
			t.Errorf("v%d %d: %+v", tc.version, tc.ts, got)
		}
	}
	part.tiered = 3
	for ts, want := range map[int64]int64{-1: 4, -2: 1, -4: 3, -5: 2, -6: 3} {
		if got := ask(11, ts); got.Offset != want || got.ErrorCode != 0 || got.LeaderEpoch < 0 {
			t.Errorf("tiered up to 3, %d: %+v", ts, got)
		}
	}
}

// An internal topic that the log does not have is listed, and nobody says where
// it begins and ends: another broker may have created it, and more.
func TestInternalTopicsBeforeTheyExist(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	list := kmsg.NewPtrListOffsetsRequest()
	list.SetVersion(5)
	list.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: offsetsTopic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Partition: 7, Timestamp: -1, CurrentLeaderEpoch: -1}}}}
	if got := do[*kmsg.ListOffsetsResponse](c, list).Topics[0].Partitions[0]; got.ErrorCode != kerr.UnknownTopicOrPartition.Code || got.Offset != -1 {
		t.Errorf("list offsets: %+v", got)
	}
	fetch := kmsg.NewPtrFetchRequest()
	fetch.SetVersion(12)
	fetch.SessionEpoch, fetch.MaxBytes = -1, 1<<20
	fetch.Topics = []kmsg.FetchRequestTopic{{Topic: offsetsTopic, Partitions: []kmsg.FetchRequestTopicPartition{{Partition: 7, FetchOffset: 500, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, PartitionMaxBytes: 1 << 20}}}}
	if got := do[*kmsg.FetchResponse](c, fetch).Topics[0].Partitions[0]; got.ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("fetch: %+v", got)
	}
	epochs := kmsg.NewPtrOffsetForLeaderEpochRequest()
	epochs.SetVersion(4)
	epochs.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: offsetsTopic, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{Partition: 7, CurrentLeaderEpoch: -1}}}}
	if got := do[*kmsg.OffsetForLeaderEpochResponse](c, epochs).Topics[0].Partitions[0]; got.ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("epoch end: %+v", got)
	}
}

// What DeleteRecords answers, for each of the reasons there are.
func TestDeleteRecords(t *testing.T) {
	r := newRig(t)
	topic, part := r.topic("t")
	compacted, _ := r.topic("compacted")
	compacted.Configs = map[string]string{"cleanup.policy": "compact"}
	both, _ := r.topic("both")
	both.Configs = map[string]string{"cleanup.policy": "compact,delete"}
	c := r.dial()
	c.produceOne(9, topic, someBatch(4))
	ask := func(version int16, name string, partition int32, offset int64) kmsg.DeleteRecordsResponseTopicPartition {
		t.Helper()
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.SetVersion(version)
		req.TimeoutMillis = 5000
		req.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: name, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: partition, Offset: offset}}}}
		resp := do[*kmsg.DeleteRecordsResponse](c, req)
		if len(resp.Topics) != 1 || resp.Topics[0].Topic != name || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].Partition != partition {
			t.Fatalf("%+v", resp)
		}
		return resp.Topics[0].Partitions[0]
	}
	for _, tc := range []struct {
		what      string
		version   int16
		topic     string
		partition int32
		offset    int64
		low       int64
		code      *kerr.Error
	}{
		{"v0", 0, "t", 0, 1, 1, nil},
		{"v1", 1, "t", 0, 2, 2, nil},
		{"v2", 2, "t", 0, 3, 3, nil},
		{"reached already", 2, "t", 0, 1, 3, nil},
		{"above the high watermark", 2, "t", 0, 5, -1, kerr.OffsetOutOfRange},
		{"no offset at all", 2, "t", 0, -2, -1, kerr.OffsetOutOfRange},
		{"the high watermark", 2, "t", 0, -1, 4, nil},
		{"no such topic", 2, "nope", 0, 1, -1, kerr.UnknownTopicOrPartition},
		{"no such partition", 2, "t", 99, 1, -1, kerr.UnknownTopicOrPartition},
		{"a negative partition", 2, "t", -1, 1, -1, kerr.UnknownTopicOrPartition},
		{"a compacted topic", 2, "compacted", 0, 0, -1, kerr.PolicyViolation},
		{"compacted and deleted", 2, "both", 0, 0, 0, nil},
		{"an internal topic", 2, offsetsTopic, 0, 0, -1, kerr.InvalidTopicException},
		{"the other internal topic", 2, transactionsTopic, 0, 0, -1, kerr.InvalidTopicException},
	} {
		want := int16(0)
		if tc.code != nil {
			want = tc.code.Code
		}
		if got := ask(tc.version, tc.topic, tc.partition, tc.offset); got.LowWatermark != tc.low || got.ErrorCode != want {
			t.Errorf("%s: %+v, want low watermark %d and code %d", tc.what, got, tc.low, want)
		}
	}
	// A deposed leader says nothing about offsets.
	r.log.check = tiering.ErrFenced
	for _, offset := range []int64{-1, 1, 100} {
		if got := ask(2, "t", 0, offset); got.ErrorCode != kerr.NotLeaderForPartition.Code || got.LowWatermark != -1 {
			t.Errorf("deposed, offset %d: %+v", offset, got)
		}
	}
	r.log.check = nil
	part.hold = true
	if got := ask(2, "t", 0, 4); got.ErrorCode != kerr.RequestTimedOut.Code {
		t.Errorf("not committed in time: %+v", got)
	}
	part.hold = false
	part.refuse = tiering.ErrFenced
	if got := ask(2, "t", 0, 4); got.ErrorCode != kerr.NotLeaderForPartition.Code {
		t.Errorf("fenced meanwhile: %+v", got)
	}
	part.refuse = nil
	r.log.lead = false
	if got := ask(2, "t", 0, 4); got.ErrorCode != kerr.NotLeaderForPartition.Code {
		t.Errorf("led elsewhere: %+v", got)
	}
}

// The policy of a topic follows its configs, those of the brokers and the
// defaults, as they are at the moment.
func TestPolicy(t *testing.T) {
	r := newRig(t)
	topic, _ := r.topic("t")
	want := tiering.Policy{Delete: true, RetentionMillis: 604800000, RetentionBytes: -1, SegmentBytes: 1 << 30, SegmentMillis: 604800000}
	if got := r.s.Policy(topic.ID); got != want {
		t.Errorf("by default: %+v", got)
	}
	topic.Configs = map[string]string{"cleanup.policy": "compact", "retention.ms": "5", "retention.bytes": "7", "segment.bytes": "1048576", "segment.ms": "9"}
	want = tiering.Policy{RetentionMillis: 5, RetentionBytes: 7, SegmentBytes: 1 << 20, SegmentMillis: 9}
	if got := r.s.Policy(topic.ID); got != want {
		t.Errorf("by its configs: %+v", got)
	}
	topic.Configs["cleanup.policy"] = " compact , delete"
	want.Delete = true
	if got := r.s.Policy(topic.ID); got != want {
		t.Errorf("compacted and deleted: %+v", got)
	}
	offsets, _ := r.topic(offsetsTopic)
	offsets.Configs = map[string]string{"cleanup.policy": "delete", "retention.ms": "86400000"} // as it is created
	if got := r.s.Policy(offsets.ID); !got.Delete || got.RetentionMillis != offsetsRetention.Milliseconds() || got.RetentionBytes != -1 {
		t.Errorf("of the copies of offsets: %+v", got)
	}
	r.view.mu.Lock()
	r.view.configs[metadata.ConfigBroker+"/"] = map[string]string{"log.retention.ms": "77", "log.retention.bytes": "88"}
	r.view.mu.Unlock()
	other, _ := r.topic("other")
	if got := r.s.Policy(other.ID); got.RetentionMillis != 77 || got.RetentionBytes != 88 {
		t.Errorf("by the cluster's defaults: %+v", got)
	}
	if got := r.s.Policy(metadata.NewTopicID()); got != (tiering.Policy{}) {
		t.Errorf("of no topic: %+v", got)
	}
}

func TestMetadata(t *testing.T) {
	r := newRig(t)
	topic, _ := r.topic("t")
	c := r.dial()
	ask := func(version int16, auto bool, topics ...kmsg.MetadataRequestTopic) *kmsg.MetadataResponse {
		req := kmsg.NewPtrMetadataRequest()
		req.SetVersion(version)
		req.AllowAutoTopicCreation = auto
		req.Topics = topics
		return do[*kmsg.MetadataResponse](c, req)
	}
	name := func(s string) kmsg.MetadataRequestTopic { return kmsg.MetadataRequestTopic{Topic: &s} }
	all := ask(12, false)
	if len(all.Topics) != 3 || len(all.Brokers) != 2 || *all.ClusterID != "test-cluster" || all.ControllerID != 1 || !all.Topics[0].IsInternal || len(all.Topics[0].Partitions) != 50 {
		t.Errorf("%+v", all)
	}
	if all.Topics[2].AuthorizedOperations != math.MinInt32 || all.AuthorizedOperations != math.MinInt32 {
		t.Error("operations were not asked for")
	}
	if got := ask(12, false, kmsg.MetadataRequestTopic{TopicID: topic.ID}); *got.Topics[0].Topic != "t" {
		t.Errorf("%+v", got.Topics)
	}
	if got := ask(12, true, kmsg.MetadataRequestTopic{TopicID: metadata.NewTopicID()}); got.Topics[0].ErrorCode != kerr.UnknownTopicID.Code || got.Topics[0].Topic != nil {
		t.Errorf("%+v", got.Topics)
	}
	if got := ask(9, false, name("new")); got.Topics[0].ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("%+v", got.Topics)
	}
	if got := ask(9, true, name("new")); got.Topics[0].ErrorCode != 0 || len(got.Topics[0].Partitions) != 1 || got.Topics[0].Partitions[0].Leader != 1 {
		t.Errorf("%+v", got.Topics)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a\x00b", string(bytes.Repeat([]byte{'x'}, 250)), "\xff\xfe"} {
		if got := ask(9, true, name(bad)); got.Topics[0].ErrorCode != kerr.InvalidTopicException.Code {
			t.Errorf("%q: %+v", bad, got.Topics)
		}
	}
	r.view.owner = 99 // a broker that is gone
	if got := ask(9, false, name("t")); got.Topics[0].Partitions[0].ErrorCode != kerr.LeaderNotAvailable.Code || got.Topics[0].Partitions[0].Leader != -1 {
		t.Errorf("%+v", got.Topics)
	}
}

func TestTopicsLifecycle(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	create := func(validate bool, topics ...kmsg.CreateTopicsRequestTopic) []kmsg.CreateTopicsResponseTopic {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.SetVersion(7)
		req.ValidateOnly, req.Topics, req.TimeoutMillis = validate, topics, 5000
		return do[*kmsg.CreateTopicsResponse](c, req).Topics
	}
	spec := func(name string, partitions int32, factor int16, configs ...string) kmsg.CreateTopicsRequestTopic {
		s := kmsg.NewCreateTopicsRequestTopic()
		s.Topic, s.NumPartitions, s.ReplicationFactor = name, partitions, factor
		for i := 0; i < len(configs); i += 2 {
			s.Configs = append(s.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: configs[i], Value: &configs[i+1]})
		}
		return s
	}
	manual := spec("manual", -1, -1)
	manual.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{1, 2}}, {Partition: 1, Replicas: []int32{2, 1}}}
	gap, stranger, both := manual, manual, manual
	gap.Topic, gap.ReplicaAssignment = "gap", []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 1, Replicas: []int32{1}}}
	stranger.Topic, stranger.ReplicaAssignment = "stranger", []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Replicas: []int32{9}}}
	both.Topic, both.NumPartitions = "both", 2
	for _, tc := range []struct {
		spec kmsg.CreateTopicsRequestTopic
		want int16
	}{
		{spec("a", 3, 3), 0}, // more replicas than brokers: recorded
		{spec("a", 3, 1), kerr.TopicAlreadyExists.Code},
		{spec("defaults", -1, -1), 0},
		{spec("zero", 0, 1), kerr.InvalidPartitions.Code},
		{spec("many", math.MaxInt32, 1), kerr.InvalidPartitions.Code},
		{spec("factor", 1, 0), kerr.InvalidReplicationFactor.Code},
		{spec("factor", 1, -2), kerr.InvalidReplicationFactor.Code},
		{spec("x.y", 1, 1), 0},
		{spec("x_y", 1, 1), kerr.InvalidTopicException.Code},
		{spec("bad name", 1, 1), kerr.InvalidTopicException.Code},
		{spec("__consumer_offsets", 1, 1), kerr.TopicAlreadyExists.Code},
		{spec("config", 1, 1, "no.such.config", "1"), kerr.InvalidConfig.Code},
		{spec("config", 1, 1, "max.message.bytes", "33554433"), kerr.InvalidConfig.Code},
		{spec("config", 1, 1, "retention.ms", "1000", "min.insync.replicas", "2"), 0},
		{manual, 0},
		{gap, kerr.InvalidReplicaAssignment.Code},
		{stranger, kerr.InvalidReplicaAssignment.Code},
		{both, kerr.InvalidRequest.Code},
	} {
		if got := create(false, tc.spec)[0]; got.ErrorCode != tc.want {
			t.Errorf("%s: %v, want %v", tc.spec.Topic, kerr.ErrorForCode(got.ErrorCode), kerr.ErrorForCode(tc.want))
		}
	}
	if got := create(true, spec("dry", 4, 1)); got[0].ErrorCode != 0 || got[0].NumPartitions != 4 {
		t.Errorf("%+v", got)
	}
	if _, ok := r.view.Topic("dry"); ok {
		t.Error("validate only created a topic")
	}
	if got := create(false, spec("twin", 1, 1), spec("twin", 1, 1)); len(got) != 1 || got[0].ErrorCode != kerr.InvalidRequest.Code {
		t.Errorf("%+v", got)
	}
	grow := kmsg.NewPtrCreatePartitionsRequest()
	grow.SetVersion(3)
	for _, tc := range []struct {
		count int32
		want  int16
	}{{3, kerr.InvalidPartitions.Code}, {2, kerr.InvalidPartitions.Code}, {5, 0}} {
		grow.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: "a", Count: tc.count}}
		if got := do[*kmsg.CreatePartitionsResponse](c, grow).Topics[0].ErrorCode; got != tc.want {
			t.Errorf("grow to %d: %d", tc.count, got)
		}
	}
	a, _ := r.view.Topic("a")
	del := kmsg.NewPtrDeleteTopicsRequest()
	del.SetVersion(6)
	nope, internal := "nope", offsetsTopic
	del.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: a.ID}, {Topic: &nope}, {TopicID: metadata.NewTopicID()}, {Topic: &internal}}
	want := []int16{0, kerr.UnknownTopicOrPartition.Code, kerr.UnknownTopicID.Code, kerr.InvalidTopicException.Code}
	for i, got := range do[*kmsg.DeleteTopicsResponse](c, del).Topics {
		if got.ErrorCode != want[i] {
			t.Errorf("delete %d: %d, want %d", i, got.ErrorCode, want[i])
		}
	}
	if _, ok := r.view.Topic("a"); ok || a.Partitions != 5 {
		t.Errorf("%+v", a)
	}
}

func TestConfigs(t *testing.T) {
	r := newRig(t)
	r.topic("t", "retention.ms", "5000")
	c := r.dial()
	describe := func(kind kmsg.ConfigResourceType, name, config string) kmsg.DescribeConfigsResponseResourceConfig {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.SetVersion(4)
		req.IncludeSynonyms, req.IncludeDocumentation = true, true
		req.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kind, ResourceName: name, ConfigNames: []string{config}}}
		res := do[*kmsg.DescribeConfigsResponse](c, req).Resources[0]
		if len(res.Configs) != 1 {
			t.Fatalf("%s: %+v", config, res)
		}
		return res.Configs[0]
	}
	type op = kmsg.IncrementalAlterConfigsRequestResourceConfig
	set := func(kind kmsg.ConfigResourceType, name string, ops ...op) int16 {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.SetVersion(1)
		req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kind, ResourceName: name, Configs: ops}}
		return do[*kmsg.IncrementalAlterConfigsResponse](c, req).Resources[0].ErrorCode
	}
	text := func(s string) *string { return &s }
	topic, brokers := kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker
	if got := describe(topic, "t", "retention.ms"); *got.Value != "5000" || got.Source != kmsg.ConfigSourceDynamicTopicConfig || len(got.ConfigSynonyms) != 2 || got.ConfigSynonyms[1].Name != "log.retention.ms" || got.Documentation == nil {
		t.Errorf("%+v", got)
	}
	for i, tc := range []struct {
		kind kmsg.ConfigResourceType
		name string
		op   op
		want int16
	}{
		{topic, "t", op{Name: "cleanup.policy", Op: 2, Value: text("compact")}, 0},
		{topic, "t", op{Name: "retention.ms", Op: 2, Value: text("1")}, kerr.InvalidConfig.Code},
		{topic, "t", op{Name: "retention.ms", Op: 1}, 0},
		{topic, "t", op{Name: "retention.ms", Op: 0}, kerr.InvalidRequest.Code},
		{topic, "t", op{Name: "no.such", Op: 0, Value: text("1")}, kerr.InvalidConfig.Code},
		{topic, "t", op{Name: "max.message.bytes", Op: 0, Value: text("x")}, kerr.InvalidConfig.Code},
		{topic, "t", op{Name: "segment.bytes", Op: 9, Value: text("x")}, kerr.InvalidRequest.Code},
		{topic, "nope", op{Name: "retention.ms", Op: 1}, kerr.UnknownTopicOrPartition.Code},
		{topic, offsetsTopic, op{Name: "retention.ms", Op: 1}, kerr.InvalidTopicException.Code},
		{brokers, "", op{Name: "message.max.bytes", Op: 0, Value: text("2000000")}, 0},
		{brokers, "1", op{Name: "num.partitions", Op: 0, Value: text("2")}, kerr.InvalidRequest.Code},
		{brokers, "2", op{Name: "message.max.bytes", Op: 0, Value: text("2")}, kerr.InvalidRequest.Code},
		{brokers, "", op{Name: "sasl.jaas.config", Op: 0, Value: text("x")}, kerr.InvalidConfig.Code},
		{kmsg.ConfigResourceTypeGroupConfig, "g", op{Name: "consumer.session.timeout.ms", Op: 0, Value: text("50000")}, 0},
		{kmsg.ConfigResourceTypeGroupConfig, "g", op{Name: "consumer.heartbeat.interval.ms", Op: 0, Value: text("6000")}, 0},
		{kmsg.ConfigResourceTypeGroupConfig, "g", op{Name: "consumer.session.timeout.ms", Op: 0, Value: text("44999")}, kerr.InvalidConfig.Code},
		{kmsg.ConfigResourceTypeGroupConfig, "g", op{Name: "consumer.session.timeout.ms", Op: 0, Value: text("60001")}, kerr.InvalidConfig.Code},
		{kmsg.ConfigResourceTypeGroupConfig, "g", op{Name: "consumer.heartbeat.interval.ms", Op: 0, Value: text("4999")}, kerr.InvalidConfig.Code},
		{kmsg.ConfigResourceTypeGroupConfig, "g", op{Name: "consumer.assignment.interval.ms", Op: 0, Value: text("0")}, 0},
		{kmsg.ConfigResourceTypeGroupConfig, "g", op{Name: "no.such", Op: 0, Value: text("0")}, kerr.InvalidConfig.Code},
		{kmsg.ConfigResourceTypeBrokerLogger, "1", op{Name: "root", Op: 0, Value: text("INFO")}, kerr.InvalidRequest.Code},
	} {
		if got := set(tc.kind, tc.name, tc.op); got != tc.want {
			t.Errorf("%d: %v, want %v", i, kerr.ErrorForCode(got), kerr.ErrorForCode(tc.want))
		}
	}
	if got := describe(topic, "t", "cleanup.policy"); *got.Value != "delete,compact" {
		t.Errorf("%+v", got)
	}
	if got := describe(topic, "t", "max.message.bytes"); *got.Value != "2000000" || got.Source != kmsg.ConfigSourceDynamicDefaultBrokerConfig {
		t.Errorf("%+v", got)
	}
	if got := describe(kmsg.ConfigResourceTypeGroupConfig, "g", "consumer.heartbeat.interval.ms"); *got.Value != "6000" || got.Source != kmsg.ConfigSourceGroupConfig {
		t.Errorf("%+v", got)
	}
	if got := describe(kmsg.ConfigResourceTypeGroupConfig, "other", "consumer.session.timeout.ms"); *got.Value != "45000" || got.Source != kmsg.ConfigSourceDefaultConfig {
		t.Errorf("%+v", got)
	}
	if got := describe(brokers, "1", "broker.id"); *got.Value != "1" || !got.ReadOnly || got.Source != kmsg.ConfigSourceStaticBrokerConfig {
		t.Errorf("%+v", got)
	}
	alter := kmsg.NewPtrAlterConfigsRequest()
	alter.SetVersion(2)
	alter.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: topic, ResourceName: "t", Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "retention.bytes", Value: text("9")}}}}
	if got := do[*kmsg.AlterConfigsResponse](c, alter).Resources[0].ErrorCode; got != 0 {
		t.Error(got)
	}
	if now, _ := r.view.Topic("t"); len(now.Configs) != 1 || now.Configs["retention.bytes"] != "9" {
		t.Errorf("altering replaces: %+v", now.Configs)
	}
}

func TestCoordinatorsAndProducerIDs(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.SetVersion(4)
	for kind, want := range map[int8]int16{0: 0, 1: kerr.TransactionalIDAuthorizationFailed.Code, 2: kerr.InvalidRequest.Code, 9: kerr.InvalidRequest.Code} {
		find.CoordinatorType, find.CoordinatorKeys = kind, []string{"a", "b"}
		got := do[*kmsg.FindCoordinatorResponse](c, find).Coordinators
		if len(got) != 2 || got[1].ErrorCode != want || got[1].Key != "b" || want == 0 && got[1].NodeID != 1 {
			t.Errorf("type %d: %+v", kind, got)
		}
	}
	ids := map[int64]bool{}
	initial := kmsg.NewPtrInitProducerIDRequest()
	initial.SetVersion(4)
	for range 1500 { // more than a block
		got := do[*kmsg.InitProducerIDResponse](c, initial)
		if got.ErrorCode != 0 || got.ProducerEpoch != 0 || ids[got.ProducerID] {
			t.Fatalf("%+v", got)
		}
		ids[got.ProducerID] = true
	}
	initial.ProducerID, initial.ProducerEpoch = 5, 3 // KIP-360
	if got := do[*kmsg.InitProducerIDResponse](c, initial); got.ErrorCode != 0 || ids[got.ProducerID] {
		t.Errorf("%+v", got)
	}
	initial.ProducerEpoch = -1
	if got := do[*kmsg.InitProducerIDResponse](c, initial); got.ErrorCode != kerr.InvalidRequest.Code || got.ProducerID != -1 {
		t.Errorf("%+v", got)
	}
	id := "tx"
	initial.TransactionalID = &id
	if got := do[*kmsg.InitProducerIDResponse](c, initial); got.ErrorCode != kerr.TransactionalIDAuthorizationFailed.Code {
		t.Errorf("%+v", got)
	}
}

func TestDescribeTopicPartitionsPages(t *testing.T) {
	r := newRig(t)
	r.topic("a")
	r.topic("b")
	c := r.dial()
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "b"}, {Topic: "a"}, {Topic: "zz"}}
	req.ResponsePartitionLimit = 3
	var seen []string
	for range 10 {
		resp := do[*kmsg.DescribeTopicPartitionsResponse](c, req)
		for _, topic := range resp.Topics {
			for _, p := range topic.Partitions {
				seen = append(seen, *topic.Topic+string('0'+rune(p.Partition)))
			}
			if topic.ErrorCode != 0 {
				seen = append(seen, *topic.Topic+"!")
			}
		}
		if resp.NextCursor == nil {
			break
		}
		req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: resp.NextCursor.Topic, Partition: resp.NextCursor.Partition}
	}
	if want := []string{"a0", "a1", "b0", "b1", "zz!"}; !slices.Equal(seen, want) {
		t.Errorf("%v, want %v", seen, want)
	}
}
