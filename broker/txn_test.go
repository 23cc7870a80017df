package broker

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fakeVerifier answers as it is told; by default, yes.
type fakeVerifier struct {
	mu    sync.Mutex
	asked []TxnPartitions
	codes []int16 // answered in turn, each to all partitions of a question
	err   error
	// during is called while a question is on its way.
	during func()
}

func (v *fakeVerifier) Verify(_ context.Context, t TxnPartitions) ([]int16, error) {
	v.mu.Lock()
	v.asked = append(v.asked, t)
	during, err := v.during, v.err
	codes := make([]int16, len(t.Partitions))
	if len(v.codes) > 0 {
		for i := range codes {
			codes[i] = v.codes[0]
		}
		v.codes = v.codes[1:]
	}
	v.mu.Unlock()
	if during != nil {
		during()
	}
	return codes, err
}

// txnRig is a stack that has transactions, with a topic of two partitions.
type txnRig struct {
	*rig
	stack *stack
	v     *fakeVerifier
	addr  string
	topic string
}

func newTxnRig(t *testing.T) *txnRig {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &txnRig{v: new(fakeVerifier), addr: ln.Addr().String(), topic: "payments"}
	x.rig = &rig{t: t, addr: x.addr}
	x.stack = startStack(t, ln, "127.0.0.1", int32(ln.Addr().(*net.TCPAddr).Port), func(c *Config) { c.Txns = x.v })
	t.Cleanup(x.stack.stop)
	cl := x.client()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 2, 1, nil, x.topic); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *txnRig) client(opts ...kgo.Opt) *kgo.Client {
	x.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(x.addr))...)
	if err != nil {
		x.t.Fatal(err)
	}
	return cl
}

// records makes a transactional batch.
func txnRecords(pid int64, epoch int16, seq int32, values ...string) []byte {
	var records []byte
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Value: []byte(v)}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		records = r.AppendTo(records)
	}
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		Magic: 2, Attributes: 0x10, LastOffsetDelta: int32(len(values) - 1), FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: pid, ProducerEpoch: epoch, FirstSequence: seq, NumRecords: int32(len(values)), Records: records,
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// produce sends one batch and returns the error code and the offset.
func (x *txnRig) produce(c *client, version int16, partition int32, records []byte) (int16, int64) {
	x.t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, -1, 5000
	req.TransactionID = kmsg.StringPtr("tx")
	t := kmsg.NewProduceRequestTopic()
	t.Topic = x.topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, records
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	out := do[*kmsg.ProduceResponse](c, req).Topics[0].Partitions[0]
	return out.ErrorCode, out.BaseOffset
}

func (x *txnRig) want(code int16, err *kerr.Error) {
	x.t.Helper()
	want := int16(0)
	if err != nil {
		want = err.Code
	}
	if code != want {
		x.t.Fatalf("%v, want %v", kerr.ErrorForCode(code), err)
	}
}

// end writes a marker to partitions and returns the codes.
func (x *txnRig) end(c *client, m kmsg.WriteTxnMarkersRequestMarker, partitions ...int32) []int16 {
	x.t.Helper()
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	req.Version = 2
	t := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
	t.Topic, t.Partitions = x.topic, partitions
	m.Topics = append(m.Topics, t)
	req.Markers = append(req.Markers, m)
	resp := do[*kmsg.WriteTxnMarkersResponse](c, req)
	if len(resp.Markers) != 1 || resp.Markers[0].ProducerID != m.ProducerID || resp.Markers[0].Topics[0].Topic != x.topic {
		x.t.Fatalf("%+v", resp)
	}
	var codes []int16
	for _, p := range resp.Markers[0].Topics[0].Partitions {
		codes = append(codes, p.ErrorCode)
	}
	return codes
}

func markerOf(pid int64, epoch int16, commit bool) kmsg.WriteTxnMarkersRequestMarker {
	m := kmsg.NewWriteTxnMarkersRequestMarker()
	m.ProducerID, m.ProducerEpoch, m.Committed, m.TransactionVersion = pid, epoch, commit, 2
	return m
}

func (x *txnRig) ended(codes []int16, want ...*kerr.Error) {
	x.t.Helper()
	if len(codes) != len(want) {
		x.t.Fatalf("%d codes, want %d", len(codes), len(want))
	}
	for i := range codes {
		x.want(codes[i], want[i])
	}
}

// TestReadCommitted has franz-go's consumer of committed records sort out what was
// aborted, and wait for what is open.
func TestReadCommitted(t *testing.T) {
	x := newTxnRig(t)
	c := x.dial()
	var want []string
	for i := range 30 {
		for pid := int64(1); pid <= 3; pid++ {
			commit := (i+int(pid))%3 != 0
			for p := range int32(2) {
				values := []string{fmt.Sprintf("%d/%d/%d/a", i, pid, p), fmt.Sprintf("%d/%d/%d/b", i, pid, p)}
				code, _ := x.produce(c, 12, p, txnRecords(pid, int16(i), 0, values...))
				x.want(code, nil)
				code, _ = x.produce(c, 12, p, txnRecords(pid, int16(i), 2, values[1]+"c"))
				x.want(code, nil)
				if commit {
					want = append(want, append(values, values[1]+"c")...)
				}
			}
		}
		for pid := int64(1); pid <= 3; pid++ { // they overlap
			x.ended(x.end(c, markerOf(pid, int16(i)+1, (i+int(pid))%3 != 0), 0, 1), nil, nil)
		}
	}
	code, first := x.produce(c, 12, 0, txnRecords(9, 0, 0, "open"))
	x.want(code, nil)
	cl := x.client(kgo.ConsumeTopics(x.topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(500*time.Millisecond))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var got []string
	poll := func(n int) {
		t.Helper()
		for len(got) < n {
			fs := cl.PollFetches(ctx)
			if err := fs.Err(); err != nil {
				t.Fatalf("%v with %d of %d records", err, len(got), n)
			}
			fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
		}
	}
	poll(len(want))
	if code, _ := x.produce(c, 12, 1, txnRecords(10, 0, 0, "visible")); code != 0 {
		t.Fatal(code)
	}
	x.ended(x.end(c, markerOf(10, 1, true), 1), nil)
	want = append(want, "visible")
	poll(len(want))

	// Bounds: the end for readers of committed records is where the open one begins.
	adm := kadm.NewClient(cl)
	listed, err := adm.ListCommittedOffsets(ctx, x.topic)
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := listed.Lookup(x.topic, 0); o.Offset != first {
		t.Errorf("last stable offset %d, want %d", o.Offset, first)
	}
	// It ends while a consumer waits.
	var ending sync.WaitGroup
	ending.Go(func() {
		time.Sleep(50 * time.Millisecond)
		x.end(c, markerOf(9, 1, true), 0)
	})
	want = append(want, "open")
	poll(len(want))
	ending.Wait()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d records read, %d committed", len(got), len(want))
	}
	if listed, err = adm.ListCommittedOffsets(ctx, x.topic); err != nil {
		t.Fatal(err)
	}
	ends, err := adm.ListEndOffsets(ctx, x.topic)
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(2) {
		stable, _ := listed.Lookup(x.topic, p)
		end, _ := ends.Lookup(x.topic, p)
		if stable.Offset != end.Offset {
			t.Errorf("partition %d: last stable offset %d, high watermark %d", p, stable.Offset, end.Offset)
		}
	}
}

// TestHangingTransaction ends one with what DescribeProducers tells, as Kafka's
// tool does.
func TestHangingTransaction(t *testing.T) {
	x := newTxnRig(t)
	c := x.dial()
	code, _ := x.produce(c, 11, 1, txnRecords(5, 3, 0, "a", "b"))
	x.want(code, nil)
	code, _ = x.produce(c, 11, 1, txnRecords(5, 3, 2, "c"))
	x.want(code, nil)
	describe := func() kmsg.DescribeProducersResponseTopicPartitionActiveProducer {
		t.Helper()
		req := kmsg.NewPtrDescribeProducersRequest()
		rt := kmsg.NewDescribeProducersRequestTopic()
		rt.Topic, rt.Partitions = x.topic, []int32{1, 7}
		req.Topics = append(req.Topics, rt)
		parts := do[*kmsg.DescribeProducersResponse](c, req).Topics[0].Partitions
		if len(parts) != 2 || parts[0].ErrorCode != 0 || len(parts[0].ActiveProducers) != 1 || parts[1].ErrorCode != kerr.UnknownTopicOrPartition.Code {
			t.Fatalf("%+v", parts)
		}
		return parts[0].ActiveProducers[0]
	}
	p := describe()
	if p.ProducerID != 5 || p.ProducerEpoch != 3 || p.LastSequence != 2 || p.CurrentTxnStartOffset != 0 || p.CoordinatorEpoch != -1 ||
		time.Since(time.UnixMilli(p.LastTimestamp)).Abs() > time.Minute {
		t.Fatalf("%+v", p)
	}
	m := markerOf(p.ProducerID, int16(p.ProducerEpoch), false)
	m.TransactionVersion = 0
	x.ended(x.end(c, m, 1, 9), nil, kerr.UnknownTopicOrPartition)
	if p = describe(); p.CurrentTxnStartOffset != -1 || p.CoordinatorEpoch != 0 || p.LastSequence != 2 {
		t.Fatalf("after the end %+v", p)
	}
	// Who comes late, of an older coordinator or an older producer, is refused.
	m.CoordinatorEpoch = 4
	x.ended(x.end(c, m, 1), nil)
	m.CoordinatorEpoch = 3
	x.ended(x.end(c, m, 1), kerr.TransactionCoordinatorFenced)
	m.ProducerEpoch, m.CoordinatorEpoch = 2, 5
	x.ended(x.end(c, m, 1), kerr.InvalidProducerEpoch)
	m.ProducerEpoch = -1
	x.ended(x.end(c, m, 1), kerr.InvalidRequest)
}

// TestVerification: what is asked, and what becomes of the answers.
func TestVerification(t *testing.T) {
	x := newTxnRig(t)
	c := x.dial()
	asked := func(n int) TxnPartitions {
		t.Helper()
		x.v.mu.Lock()
		defer x.v.mu.Unlock()
		if len(x.v.asked) != n {
			t.Fatalf("asked %d times, want %d: %+v", len(x.v.asked), n, x.v.asked)
		}
		q := x.v.asked[n-1]
		return q
	}
	code, _ := x.produce(c, 11, 0, txnRecords(1, 0, 0, "a"))
	x.want(code, nil)
	if q := asked(1); q.TransactionalID != "tx" || q.ProducerID != 1 || q.ProducerEpoch != 0 || q.Add || !slices.Equal(q.Partitions, []TxnPartition{{x.topic, 0}}) {
		t.Fatalf("asked %+v", q)
	}
	code, _ = x.produce(c, 11, 0, txnRecords(1, 0, 1, "b"))
	x.want(code, nil)
	asked(1) // it is known to be open
	x.ended(x.end(c, markerOf(1, 1, true), 0), nil)
	code, _ = x.produce(c, 12, 0, txnRecords(1, 1, 0, "c"))
	x.want(code, nil)
	if !asked(2).Add {
		t.Fatal("version 12 adds")
	}
	x.ended(x.end(c, markerOf(1, 2, true), 0), nil)

	for _, k := range []struct {
		version int16
		answer  *kerr.Error
		want    *kerr.Error
	}{
		{11, kerr.InvalidTxnState, kerr.InvalidTxnState},
		{11, kerr.ConcurrentTransactions, kerr.NotEnoughReplicas},
		{11, kerr.CoordinatorLoadInProgress, kerr.NotEnoughReplicas},
		{12, kerr.NotCoordinator, kerr.NotEnoughReplicas},
		{12, kerr.CoordinatorNotAvailable, kerr.NotEnoughReplicas},
		{12, kerr.ProducerFenced, kerr.InvalidProducerEpoch},
		{12, kerr.InvalidProducerEpoch, kerr.InvalidProducerEpoch},
		{12, kerr.InvalidProducerIDMapping, kerr.InvalidProducerIDMapping},
		{11, kerr.TransactionAbortable, kerr.TransactionAbortable},
		{10, kerr.TransactionAbortable, kerr.InvalidTxnState},
		{12, kerr.TransactionalIDAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed},
	} {
		x.v.codes = []int16{k.answer.Code}
		code, _ := x.produce(c, k.version, 0, txnRecords(1, 2, 0, "refused"))
		if code != k.want.Code {
			t.Errorf("version %d, answer %v: %v, want %v", k.version, k.answer, kerr.ErrorForCode(code), k.want)
		}
	}
	// The end of the transaction before is waited for, but not for ever.
	concurrent := kerr.ConcurrentTransactions.Code
	x.v.codes = slices.Repeat([]int16{concurrent}, 10)
	code, _ = x.produce(c, 12, 0, txnRecords(1, 2, 0, "refused"))
	x.want(code, kerr.ConcurrentTransactions)
	x.v.codes = []int16{concurrent, concurrent}
	code, _ = x.produce(c, 12, 0, txnRecords(1, 2, 0, "waited"))
	x.want(code, nil)
	x.ended(x.end(c, markerOf(1, 3, true), 0), nil)

	x.v.err = kerr.NetworkException
	code, _ = x.produce(c, 12, 0, txnRecords(1, 3, 0, "nobody answers"))
	x.want(code, kerr.NotEnoughReplicas)
	x.v.err = nil

	// A marker that comes while the coordinator is asked voids its answer.
	other := x.dial()
	m := markerOf(1, 3, false)
	m.TransactionVersion = 1
	x.v.during = func() { x.ended(x.end(other, m, 0), nil) }
	code, _ = x.produce(c, 12, 0, txnRecords(1, 3, 0, "too late"))
	x.want(code, kerr.InvalidTxnState)
	x.v.during = nil
	code, _ = x.produce(c, 12, 0, txnRecords(1, 3, 0, "again"))
	x.want(code, nil)
	// Since version 2 the next transaction may be asked for while markers of this
	// one are on their way.
	x.v.codes = []int16{concurrent}
	x.v.during = sync.OnceFunc(func() { x.ended(x.end(other, markerOf(1, 4, true), 0), nil) })
	code, _ = x.produce(c, 12, 0, txnRecords(1, 4, 0, "next"))
	x.want(code, nil)
	x.v.during = nil

	// Without a transactional id there is no transaction.
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 12, -1, 5000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = x.topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = txnRecords(1, 4, 1, "v")
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	x.want(do[*kmsg.ProduceResponse](c, req).Topics[0].Partitions[0].ErrorCode, kerr.TransactionalIDAuthorizationFailed)
	// And a request speaks of one producer.
	req.TransactionID = kmsg.StringPtr("tx")
	rp.Partition, rp.Records = 1, txnRecords(2, 0, 0, "v")
	req.Topics[0].Partitions = append(req.Topics[0].Partitions, rp)
	parts := do[*kmsg.ProduceResponse](c, req).Topics[0].Partitions
	x.want(parts[0].ErrorCode, nil)
	x.want(parts[1].ErrorCode, kerr.InvalidProducerIDMapping)
}

// TestSharedVerification: two requests of one producer that wait for the same
// answer ask once.
func TestSharedVerification(t *testing.T) {
	x := newTxnRig(t)
	a, b := x.dial(), x.dial()
	var once sync.Once
	reached, proceed := make(chan struct{}), make(chan struct{})
	x.v.during = func() {
		once.Do(func() { close(reached) })
		<-proceed
	}
	results := make(chan int16, 2)
	go func() { code, _ := x.produce(a, 12, 0, txnRecords(1, 0, 0, "one")); results <- code }()
	<-reached
	go func() { code, _ := x.produce(b, 12, 0, txnRecords(1, 0, 0, "one")); results <- code }()
	time.Sleep(100 * time.Millisecond) // for the second to arrive; it asks nobody, whenever it does
	close(proceed)
	for range 2 {
		x.want(<-results, nil)
	}
	x.v.mu.Lock()
	defer x.v.mu.Unlock()
	if len(x.v.asked) != 1 {
		t.Fatalf("asked %d times", len(x.v.asked))
	}
}
