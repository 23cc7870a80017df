package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Where the fields of a record batch lie.
const (
	atBaseOffset  = 0
	atLength      = 8
	atMagic       = 16
	atCRC         = 17
	atAttributes  = 21
	atLastDelta   = 23
	atBaseTime    = 27
	atMaxTime     = 35
	atProducerID  = 43
	atEpoch       = 51
	atSequence    = 53
	atCount       = 57
	batchHeader   = 61
	batchOverhead = 12
)

// badRecords is bytes to produce and the error codes of which one must come.
type badRecords struct {
	name    string
	records []byte
	want    []*kerr.Error
}

func badRecordCases() []badCase {
	var cases []badCase
	for _, c := range slices.Concat(badHeaders(), badBodies()) {
		cases = append(cases, badCase{c.name, func(t *testing.T, r *badRig) {
			for _, topic := range []string{badTopic, badCompacted} {
				for _, version := range []int16{3, 9, 12} {
					r.refusedRecords(t, topic, version, c.records, c.want...)
				}
			}
		}})
	}
	return append(cases,
		badCase{"batch cut at each byte", batchCut},
		badCase{"each byte of a batch changed", batchChanged},
		badCase{"no batch", noBatch},
		badCase{"zstd before version 7", oldZstd},
		badCase{"topics, partitions and acks that do not exist", produceNowhere},
		badCase{"without acknowledgement", produceUnacknowledged},
	)
}

// refusedRecords produces and wants one of the error codes, and no offset.
func (r *badRig) refusedRecords(t *testing.T, topic string, version int16, records []byte, want ...*kerr.Error) {
	t.Helper()
	resp := r.conn.ask(t, badProduce(topic, bytes.Clone(records)), version).(*kmsg.ProduceResponse)
	got := resp.Topics[0].Partitions[0]
	if !slices.ContainsFunc(want, func(e *kerr.Error) bool { return e.Code == got.ErrorCode }) || got.BaseOffset != -1 {
		t.Errorf("%s version %d: %v at offset %d, want %v", topic, version, kerr.ErrorForCode(got.ErrorCode), got.BaseOffset, want)
	}
}

// keyed is a good batch of n records with keys.
func keyed(n int) []byte {
	var records []byte
	for i := range n {
		records = append(records, badRecord(int64(i), 0, []byte("key"), []byte("value"))...)
	}
	return wrap(records, n, 0)
}

// badRecord is a record as it lies in a batch.
func badRecord(offset, timestamp int64, key, value []byte) []byte {
	body := binary.AppendVarint([]byte{0}, timestamp)
	body = binary.AppendVarint(body, offset)
	body = append(binary.AppendVarint(body, int64(len(key))), key...)
	body = append(binary.AppendVarint(body, int64(len(value))), value...)
	return sized(append(body, 0))
}

// sized puts a record's length before it.
func sized(body []byte) []byte { return append(binary.AppendVarint(nil, int64(len(body))), body...) }

// wrap makes a batch of records, compressed or not.
func wrap(records []byte, n int, attributes uint16) []byte {
	b := make([]byte, batchHeader, batchHeader+len(records))
	b = append(b, records...)
	binary.BigEndian.PutUint32(b[atLength:], uint32(len(b)-batchOverhead))
	b[atMagic] = 2
	binary.BigEndian.PutUint16(b[atAttributes:], attributes)
	binary.BigEndian.PutUint32(b[atLastDelta:], uint32(n-1))
	now := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint64(b[atBaseTime:], now)
	binary.BigEndian.PutUint64(b[atMaxTime:], now)
	binary.BigEndian.PutUint64(b[atProducerID:], math.MaxUint64)
	binary.BigEndian.PutUint16(b[atEpoch:], math.MaxUint16)
	binary.BigEndian.PutUint32(b[atSequence:], math.MaxUint32)
	binary.BigEndian.PutUint32(b[atCount:], uint32(n))
	return summed(b)
}

// summed renews a batch's checksum.
func summed(b []byte) []byte {
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// edit is a good batch of three records with a field changed, and a checksum
// that vouches for it.
func edit(position, width int, value int64) []byte { return edited(keyed(3), position, width, value) }

// transactional makes b the first batch of a producer's transaction.
func transactional(b []byte, producer int64) []byte {
	return edited(edited(edited(edited(b, atAttributes, 2, 0x10), atProducerID, 8, producer), atEpoch, 2, 0), atSequence, 4, 0)
}

func edited(b []byte, position, width int, value int64) []byte {
	var v [8]byte
	binary.BigEndian.PutUint64(v[:], uint64(value))
	copy(b[position:position+width], v[8-width:])
	return summed(b)
}

// badHeaders are batches whose header is at fault.
func badHeaders() []badRecords {
	invalid := []*kerr.Error{kerr.InvalidRecord}
	length := []*kerr.Error{kerr.InvalidRecord, kerr.CorruptMessage} // a lie shows in one way or the other
	codec := []*kerr.Error{kerr.UnsupportedCompressionType}
	timestamp := []*kerr.Error{kerr.InvalidTimestamp}
	hour := time.Hour.Milliseconds()
	now := time.Now().UnixMilli()
	size := int64(len(keyed(3)) - batchOverhead)
	wrong := keyed(3)
	wrong[atCRC]++
	twisted := keyed(3)
	twisted[len(twisted)-2]++
	return []badRecords{
		{"magic 0", edit(atMagic, 1, 0), invalid},
		{"magic 1", edit(atMagic, 1, 1), invalid},
		{"magic 3", edit(atMagic, 1, 3), invalid},
		{"magic -1", edit(atMagic, 1, -1), invalid},
		{"wrong checksum", wrong, []*kerr.Error{kerr.CorruptMessage}},
		{"checksum of other records", twisted, []*kerr.Error{kerr.CorruptMessage}},
		{"length a byte too long", edit(atLength, 4, size+1), length},
		{"length a byte too short", edit(atLength, 4, size-1), length},
		{"length of a header alone", edit(atLength, 4, batchHeader-batchOverhead), length},
		{"length less than a header", edit(atLength, 4, batchHeader-batchOverhead-1), length},
		{"length 0", edit(atLength, 4, 0), length},
		{"length -1", edit(atLength, 4, -1), length},
		{"length the greatest integer", edit(atLength, 4, math.MaxInt32), length},
		{"length the least integer", edit(atLength, 4, math.MinInt32), length},
		{"base offset 1", edit(atBaseOffset, 8, 1), invalid},
		{"base offset the greatest integer", edit(atBaseOffset, 8, math.MaxInt64), invalid},
		{"two batches", append(keyed(1), keyed(1)...), invalid},
		{"a batch and a byte", append(keyed(1), 0), invalid},
		{"last offset delta one too high", edit(atLastDelta, 4, 3), invalid},
		{"last offset delta one too low", edit(atLastDelta, 4, 1), invalid},
		{"last offset delta -1", edit(atLastDelta, 4, -1), invalid},
		{"last offset delta the greatest integer", edit(atLastDelta, 4, math.MaxInt32), invalid},
		{"count one too high", edit(atCount, 4, 4), invalid},
		{"count and delta one too high", edited(edit(atCount, 4, 4), atLastDelta, 4, 3), invalid},
		{"count and delta one too low", edited(edit(atCount, 4, 2), atLastDelta, 4, 1), invalid},
		{"count 0", edited(edit(atCount, 4, 0), atLastDelta, 4, -1), invalid},
		{"count -1", edited(edit(atCount, 4, -1), atLastDelta, 4, -2), invalid},
		{"count the greatest integer", edited(edit(atCount, 4, math.MaxInt32), atLastDelta, 4, math.MaxInt32-1), invalid},
		{"count the least integer", edited(edit(atCount, 4, math.MinInt32), atLastDelta, 4, math.MaxInt32), invalid},
		{"control batch", edit(atAttributes, 2, 0x20), invalid},
		{"control batch of a transaction", edited(edit(atAttributes, 2, 0x30), atProducerID, 8, 1), invalid},
		{"transactional without a producer", edit(atAttributes, 2, 0x10), invalid},
		{"transactional without a transactional id",
			transactional(keyed(3), 1),
			[]*kerr.Error{kerr.InvalidRecord, kerr.TransactionalIDAuthorizationFailed}},
		{"log append time set by the producer", edit(atAttributes, 2, 0x08), timestamp},
		{"codec 5", edit(atAttributes, 2, 5), codec},
		{"codec 6", edit(atAttributes, 2, 6), codec},
		{"codec 7", edit(atAttributes, 2, 7), codec},
		{"two hours into the future", edited(edit(atMaxTime, 8, now+2*hour), atBaseTime, 8, now+2*hour), timestamp},
		{"the greatest timestamp", edited(edit(atMaxTime, 8, math.MaxInt64), atBaseTime, 8, math.MaxInt64), timestamp},
		{"timestamp -2", edit(atBaseTime, 8, -2), timestamp},
		{"the least timestamp", edited(edit(atMaxTime, 8, math.MinInt64), atBaseTime, 8, math.MinInt64), timestamp},
		{"producer id -2", edit(atProducerID, 8, -2), invalid},
		{"producer id the least integer", edit(atProducerID, 8, math.MinInt64), invalid},
		{"producer id without an epoch", edited(edit(atProducerID, 8, 1), atSequence, 4, 0), invalid},
		{"producer id without a sequence", edited(edit(atProducerID, 8, 1), atEpoch, 2, 0), invalid},
		{"sequence the least integer", edited(edited(edit(atProducerID, 8, 1), atEpoch, 2, 0), atSequence, 4, math.MinInt32), invalid},
		{"larger than max.message.bytes", wrap(badRecord(0, 0, []byte("key"), make([]byte, 2<<20)), 1, 0), []*kerr.Error{kerr.MessageTooLarge}},
	}
}

// badBodies are batches whose records are at fault.
func badBodies() []badRecords {
	invalid := []*kerr.Error{kerr.InvalidRecord}
	one := func(body ...byte) []byte { return wrap(sized(body), 1, 0) }
	long := bytes.Repeat([]byte{0xff}, 11)
	great := binary.AppendVarint(nil, math.MaxInt32) // 5 bytes
	cases := []badRecords{
		{"record offsets from 1", wrap(badRecord(1, 0, []byte("k"), nil), 1, 0), invalid},
		{"record offset -1", wrap(badRecord(-1, 0, []byte("k"), nil), 1, 0), invalid},
		{"record offset beyond 32 bits", wrap(badRecord(1<<32, 0, []byte("k"), nil), 1, 0), invalid},
		{"record offsets backwards", wrap(append(badRecord(1, 0, []byte("k"), nil), badRecord(0, 0, []byte("k"), nil)...), 2, 0), invalid},
		{"record offset twice", wrap(append(badRecord(0, 0, []byte("k"), nil), badRecord(0, 0, []byte("k"), nil)...), 2, 0), invalid},
		{"record timestamp before 1970", wrap(badRecord(0, -time.Now().UnixMilli()-10, []byte("k"), nil), 1, 0), []*kerr.Error{kerr.InvalidTimestamp}},
		{"record timestamp that overflows", wrap(badRecord(0, math.MaxInt64, []byte("k"), nil), 1, 0), []*kerr.Error{kerr.InvalidTimestamp}},
		{"record length -1", wrap([]byte{1, 0, 0, 0}, 1, 0), invalid},
		{"record length 0", wrap([]byte{0}, 1, 0), invalid},
		{"record longer than the batch", wrap(slices.Concat(great, []byte{0, 0, 0}), 1, 0), invalid},
		{"record length of eleven bytes", wrap(slices.Concat(long, []byte{1}, make([]byte, 20)), 1, 0), invalid},
		{"no records", wrap(nil, 1, 0), invalid},
		{"key of 2^31-1 bytes", one(slices.Concat([]byte{0, 0, 0}, great, []byte{1, 0})...), invalid},
		{"key of -2 bytes", one(0, 0, 0, 3, 1, 0), invalid},
		{"value of 2^31-1 bytes", one(slices.Concat([]byte{0, 0, 0, 2, 'k'}, great, []byte{0})...), invalid},
		{"2^31-1 headers", one(slices.Concat([]byte{0, 0, 0, 2, 'k', 1}, great)...), invalid},
		{"-1 headers", one(0, 0, 0, 2, 'k', 1, 1), invalid},
		{"header without a key", one(0, 0, 0, 2, 'k', 1, 2, 1, 1), invalid},
		{"byte after the last field", one(0, 0, 0, 2, 'k', 1, 0, 0), invalid},
	}
	for codec, name := range []string{"", "gzip", "snappy", "lz4", "zstd"} {
		if name != "" { // not looked into where keys do not matter; see the compression cases
			b := wrap([]byte("not compressed"), 1, uint16(codec))
			cases = append(cases, badRecords{name + " from the future", edited(b, atMaxTime, 8, time.Now().Add(2*time.Hour).UnixMilli()),
				[]*kerr.Error{kerr.InvalidTimestamp, kerr.UnsupportedCompressionType}})
		}
	}
	return cases
}

func batchCut(t *testing.T, r *badRig) {
	whole := keyed(1)
	for n := range whole {
		r.refusedRecords(t, badTopic, 9, whole[:n], kerr.InvalidRecord, kerr.CorruptMessage)
	}
}

func batchChanged(t *testing.T, r *badRig) {
	whole := keyed(1)
	for i := range whole {
		if i >= batchOverhead && i < atMagic {
			continue // the leader epoch, which the broker sets
		}
		b := bytes.Clone(whole)
		b[i] ^= 0x40
		r.refusedRecords(t, badTopic, 9, b, kerr.InvalidRecord, kerr.CorruptMessage)
	}
}

func noBatch(t *testing.T, r *badRig) {
	for _, records := range [][]byte{nil, {}} {
		r.refusedRecords(t, badTopic, 9, records, kerr.InvalidRecord)
	}
}

func oldZstd(t *testing.T, r *badRig) {
	b := wrap(bombs(t)["zstd"].sound, 1, 4)
	for version := int16(3); version < 7; version++ {
		r.refusedRecords(t, badTopic, version, b, kerr.UnsupportedCompressionType)
	}
}

func produceNowhere(t *testing.T, r *badRig) {
	for _, c := range []struct {
		name    string
		version int16
		change  func(*kmsg.ProduceRequest)
		want    *kerr.Error
	}{
		{"unknown topic", 9, func(p *kmsg.ProduceRequest) { p.Topics[0].Topic = "nowhere" }, kerr.UnknownTopicOrPartition},
		{"empty topic", 9, func(p *kmsg.ProduceRequest) { p.Topics[0].Topic = "" }, kerr.UnknownTopicOrPartition},
		{"topic with a path", 9, func(p *kmsg.ProduceRequest) { p.Topics[0].Topic = "../" + badTopic }, kerr.UnknownTopicOrPartition},
		{"partition 1 of 1", 9, func(p *kmsg.ProduceRequest) { p.Topics[0].Partitions[0].Partition = 1 }, kerr.UnknownTopicOrPartition},
		{"partition -1", 9, func(p *kmsg.ProduceRequest) { p.Topics[0].Partitions[0].Partition = -1 }, kerr.UnknownTopicOrPartition},
		{"partition 2^31-1", 9, func(p *kmsg.ProduceRequest) { p.Topics[0].Partitions[0].Partition = math.MaxInt32 }, kerr.UnknownTopicOrPartition},
		{"null topic id", 13, func(*kmsg.ProduceRequest) {}, kerr.UnknownTopicID},
		{"unknown topic id", 13, func(p *kmsg.ProduceRequest) { p.Topics[0].TopicID = [16]byte{1} }, kerr.UnknownTopicID},
		{"internal topic", 9, func(p *kmsg.ProduceRequest) { p.Topics[0].Topic = "__consumer_offsets" }, kerr.InvalidTopicException},
		{"acks 2", 9, func(p *kmsg.ProduceRequest) { p.Acks = 2 }, kerr.InvalidRequiredAcks},
		{"acks -2", 9, func(p *kmsg.ProduceRequest) { p.Acks = -2 }, kerr.InvalidRequiredAcks},
		{"transaction of nobody", 9, func(p *kmsg.ProduceRequest) {
			p.TransactionID = kmsg.StringPtr("t")
			p.Topics[0].Partitions[0].Records = transactional(keyed(1), 1<<40)
		}, kerr.InvalidProducerIDMapping},
	} {
		req := badProduce(badTopic, keyed(1))
		c.change(req)
		got := r.conn.ask(t, req, c.version).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if got.ErrorCode != c.want.Code || got.BaseOffset != -1 {
			t.Errorf("%s: %v at offset %d, want %v", c.name, kerr.ErrorForCode(got.ErrorCode), got.BaseOffset, c.want)
		}
	}
}

// produceUnacknowledged: a client that wants no answers learns of an error by
// the close of its connection.
func produceUnacknowledged(t *testing.T, r *badRig) {
	for name, b := range map[string][]byte{"bad magic": edit(atMagic, 1, 1), "control": edit(atAttributes, 2, 0x20)} {
		req := badProduce(badTopic, b)
		req.Acks = 0
		req.SetVersion(9)
		c := r.dial(t)
		c.send(badRequest(req, 1))
		c.wantClosed(t, name)
	}
}

// absurdProducers has ids nobody was given, which Kafka takes as well, and a
// client that loses count.
func absurdProducers(t *testing.T, r *badRig) {
	from := func(id int64, epoch int16, sequence int32) []byte {
		return edited(edited(edit(atProducerID, 8, id), atEpoch, 2, int64(epoch)), atSequence, 4, int64(sequence))
	}
	// Of each run, every run with ids of its own.
	id := math.MaxInt64 - time.Now().UnixNano()
	for _, c := range []struct {
		name  string
		batch []byte
		want  *kerr.Error // nil: taken
	}{
		{"an id nobody was given", from(id, math.MaxInt16, 0), nil},
		{"the same again", from(id, math.MaxInt16, 0), nil},
		{"a gap", from(id, math.MaxInt16, 4), kerr.OutOfOrderSequenceNumber},
		{"a long gap", from(id, math.MaxInt16, math.MaxInt32), kerr.OutOfOrderSequenceNumber},
		{"an older epoch", from(id, math.MaxInt16-1, 3), kerr.InvalidProducerEpoch},
		{"the next", from(id, math.MaxInt16, 3), nil},
		{"an unknown producer's second batch", from(id-1, 0, 3), kerr.OutOfOrderSequenceNumber},
		{"an unknown producer's last batch", from(id-1, 0, math.MaxInt32), kerr.OutOfOrderSequenceNumber},
	} {
		resp := r.conn.ask(t, badProduce(badAccepted, c.batch), 9).(*kmsg.ProduceResponse)
		got := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
		if (c.want == nil) != (got == nil) || c.want != nil && got != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, fmt.Sprint(c.want))
		}
	}
}
