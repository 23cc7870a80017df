package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/tiering"
)

func TestClientRoundTrip(t *testing.T) {
	r := newRig(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.addr), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("events"), kgo.ConsumeTopics("events"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	const n = 500
	for i := range n {
		cl.Produce(ctx, kgo.StringRecord(fmt.Sprintf("value %d", i)), func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < n; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err0(); err != nil {
			t.Fatal(err)
		}
		fs.EachError(func(_ string, _ int32, err error) { t.Fatal(err) })
		fs.EachRecord(func(rec *kgo.Record) {
			if want := fmt.Sprintf("value %d", got); string(rec.Value) != want {
				t.Fatalf("got %q, want %q", rec.Value, want)
			}
			got++
		})
	}
}

// TestEveryAPIAtEveryVersion sends each API at each version that is served and
// decodes the answer.
func TestEveryAPIAtEveryVersion(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Txns = new(fakeVerifier) })
	topic, _ := r.topic("t")
	for key, a := range r.s.apis {
		for v := a.min; v <= a.max; v++ {
			req := kmsg.RequestForKey(key)
			req.SetVersion(v)
			fillRequest(req, topic.ID)
			c := r.dial()
			if _, err := c.receive(req, c.send(req)); err != nil {
				t.Errorf("%s v%d: %v", kmsg.NameForKey(key), v, err)
			}
			c.nc.Close()
		}
	}
	if len(r.s.apis) != 32 {
		t.Errorf("%d APIs", len(r.s.apis))
	}
}

// fillRequest sets what a request needs not to be refused as a whole.
func fillRequest(req kmsg.Request, id [16]byte) {
	name := "t"
	switch q := req.(type) {
	case *kmsg.ProduceRequest:
		q.Acks, q.TimeoutMillis = -1, 1000
		q.Topics = []kmsg.ProduceRequestTopic{{Topic: name, TopicID: id, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: someBatch(1)}}}}
	case *kmsg.FetchRequest:
		p := kmsg.NewFetchRequestTopicPartition()
		p.PartitionMaxBytes = 1 << 20
		q.ReplicaID, q.MaxBytes = -1, 1<<20
		q.Topics = []kmsg.FetchRequestTopic{{Topic: name, TopicID: id, Partitions: []kmsg.FetchRequestTopicPartition{p}}}
	case *kmsg.ListOffsetsRequest:
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Timestamp = -1
		q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: name, Partitions: []kmsg.ListOffsetsRequestTopicPartition{p}}}
	case *kmsg.OffsetForLeaderEpochRequest:
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		p.LeaderEpoch = 3
		q.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: name, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{p}}}
	case *kmsg.MetadataRequest:
		q.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
	case *kmsg.ApiVersionsRequest:
		q.ClientSoftwareName, q.ClientSoftwareVersion, q.NodeID = "tester", "1.0", -1
	case *kmsg.DescribeConfigsRequest:
		q.IncludeSynonyms, q.IncludeDocumentation = true, true
		q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: name}, {ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "1"}}
	case *kmsg.DescribeTopicPartitionsRequest:
		q.ResponsePartitionLimit = 10
	}
}

func TestAnswersComeInOrder(t *testing.T) {
	r := newRig(t)
	topic, p := r.topic("t")
	p.hold = true
	c := r.dial()
	produce := kmsg.NewPtrProduceRequest()
	produce.SetVersion(9)
	fillRequest(produce, topic.ID)
	produce.TimeoutMillis = 10_000
	first := c.send(produce)
	second := c.send(produce)
	meta := kmsg.NewPtrMetadataRequest()
	meta.SetVersion(9)
	third := c.send(meta)
	waitFor(t, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.held) == 2 }) // both are appended, neither answered
	_ = c.nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.nc.Read(make([]byte, 1)); err == nil {
		t.Fatal("an answer came before the commit")
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	p.release(nil)
	for i, correlation := range []int32{first, second} {
		resp, err := c.receive(produce, correlation)
		if err != nil {
			t.Fatal(err)
		}
		part := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if part.ErrorCode != 0 || part.BaseOffset != int64(i) {
			t.Errorf("%+v", part)
		}
	}
	if _, err := c.receive(meta, third); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestInFlightIsBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.InFlightMax = 4 })
	topic, p := r.topic("t")
	p.hold = true
	c := r.dial()
	produce := kmsg.NewPtrProduceRequest()
	produce.SetVersion(9)
	fillRequest(produce, topic.ID)
	produce.TimeoutMillis = 10_000
	for range 50 {
		c.send(produce)
	}
	waitFor(t, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.held) >= 4 })
	time.Sleep(20 * time.Millisecond)
	p.mu.Lock()
	held := len(p.held)
	p.hold = false
	p.mu.Unlock()
	if held > 5 { // four queued, one in the writer's hands
		t.Errorf("%d requests at work", held)
	}
	p.release(nil)
	for i := range 50 {
		if _, err := c.receive(produce, int32(i+1)); err != nil {
			t.Fatal(err)
		}
	}
}

// closedBy reports whether the server closes the connection after the bytes.
func closedBy(t *testing.T, r *rig, b []byte) {
	t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := nc.Write(b); err != nil {
		return
	}
	if n, err := io.Copy(io.Discard, nc); n != 0 || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("%d bytes and %v in answer to %q", n, err, b[:min(len(b), 20)])
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func frame(body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestHostileFrames(t *testing.T) {
	r := newRig(t)
	r.topic("t")
	for name, b := range map[string][]byte{
		"length 0":           {0, 0, 0, 0},
		"negative length":    {0xff, 0xff, 0xff, 0xff},
		"largest length":     {0x7f, 0xff, 0xff, 0xff},
		"101 MiB":            binary.BigEndian.AppendUint32(nil, 101<<20),
		"TLS hello":          {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc},
		"HTTP":               []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"unknown key":        frame(0x03, 0xe7, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"negative key":       frame(0xff, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"internal API":       frame(0, 6, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"unknown version":    frame(0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff),
		"negative version":   frame(0, 3, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff),
		"old version":        frame(0, 1, 0, 3, 0, 0, 0, 1, 0xff, 0xff),
		"client id too long": frame(0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff),
		"header tags bomb":   frame(0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"array count":        frame(0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3, 4),
	} {
		t.Run(name, func(t *testing.T) { closedBy(t, r, b) })
	}
	whole := kmsg.NewRequestFormatter(kmsg.FormatterClientID("x")).AppendRequest(nil, kmsg.NewPtrMetadataRequest(), 1)
	for cut := range len(whole) {
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = nc.Write(whole[:cut])
		nc.Close()
	}
	// The server is alive.
	do[*kmsg.ApiVersionsResponse](r.dial(), kmsg.NewPtrApiVersionsRequest())
}

func TestApiVersionsOfTheFuture(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	if _, err := c.nc.Write(frame(0, 18, 0, 99, 0, 0, 0, 9, 0xff, 0xff, 0, 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	resp, err := c.receive(kmsg.NewPtrApiVersionsRequest(), 9)
	if err != nil {
		t.Fatal(err)
	}
	got := resp.(*kmsg.ApiVersionsResponse)
	if got.ErrorCode != kerr.UnsupportedVersion.Code || len(got.ApiKeys) != 31 || got.ApiKeys[0].MaxVersion != 13 || got.ApiKeys[0].MinVersion != 0 {
		t.Errorf("%+v", got)
	}
	again := kmsg.NewPtrApiVersionsRequest() // the connection lives
	again.ClientSoftwareName, again.ClientSoftwareVersion = "x y", "1"
	again.SetVersion(3)
	if got := do[*kmsg.ApiVersionsResponse](&client{t: t, nc: c.nc, next: 20}, again); got.ErrorCode != kerr.InvalidRequest.Code {
		t.Errorf("%+v", got)
	}
}

func TestFeatures(t *testing.T) {
	r := newRig(t)
	for version, supported := range map[int16]int{3: 0, 4: 1} {
		req := kmsg.NewPtrApiVersionsRequest()
		req.SetVersion(version)
		req.ClientSoftwareName, req.ClientSoftwareVersion = "x", "1"
		got := do[*kmsg.ApiVersionsResponse](r.dial(), req)
		if len(got.SupportedFeatures) != supported || len(got.FinalizedFeatures) != 1 || got.FinalizedFeaturesEpoch < 0 ||
			got.FinalizedFeatures[0].Name != "group.version" || got.FinalizedFeatures[0].MaxVersionLevel != 1 {
			t.Errorf("v%d: %+v", version, got)
		}
	}
}

func TestMemoryFollowsBytesReceived(t *testing.T) {
	r := newRig(t)
	for range 20 { // 20 claims of 100 MiB, 1 KiB of each sent
		c := r.dial()
		if _, err := c.nc.Write(append(binary.BigEndian.AppendUint32(nil, 100<<20), make([]byte, 1024)...)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond)
	if !r.s.requestBytes.TryAcquire(r.s.cfg.RequestBytesMax - 20*frameStep) {
		t.Error("claimed lengths were reserved")
	}
}

func TestPanicEndsItsConnectionAlone(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	hb := kmsg.NewPtrHeartbeatRequest()
	hb.Group = "panic"
	id := c.send(hb)
	if _, err := c.receive(hb, id); err == nil {
		t.Fatal("a panic was answered")
	}
	do[*kmsg.HeartbeatResponse](r.dial(), kmsg.NewPtrHeartbeatRequest())
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	r := newRig(t, func(c *Config) { c.IdleMax = 50 * time.Millisecond })
	closedBy(t, r, nil)
	closedBy(t, r, []byte{0, 0, 1, 0, 0, 3}) // half a frame
}

func TestConnectionLimit(t *testing.T) {
	r := newRig(t, func(c *Config) { c.ConnectionsMax = 1 })
	a := r.dial()
	do[*kmsg.ApiVersionsResponse](a, kmsg.NewPtrApiVersionsRequest())
	closedBy(t, r, []byte{0})
	do[*kmsg.ApiVersionsResponse](a, kmsg.NewPtrApiVersionsRequest())
}

func TestReaderThatNeverReads(t *testing.T) {
	r := newRig(t, func(c *Config) { c.WriteTimeout = 100 * time.Millisecond })
	topic, p := r.topic("t")
	big := bigBatch(1 << 20)
	for range 8 {
		p.batches = append(p.batches, big)
	}
	p.end = 1
	c := r.dial()
	_ = c.nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(11)
	fillRequest(req, topic.ID)
	req.MaxBytes = 50 << 20
	req.Topics[0].Partitions[0].PartitionMaxBytes = 50 << 20
	for range 10 {
		c.send(req)
	}
	waitFor(t, func() bool { r.s.mu.Lock(); defer r.s.mu.Unlock(); return len(r.s.conns) == 0 })
	if !r.s.fetchBytes.TryAcquire(r.s.cfg.FetchBytesTotalMax) {
		t.Error("memory of abandoned responses is not given back")
	}
}

func TestDrainFinishesWhatIsAtWork(t *testing.T) {
	r := newRig(t)
	topic, p := r.topic("t")
	p.hold = true
	producer, consumer, member := r.dial(), r.dial(), r.dial()
	produce := kmsg.NewPtrProduceRequest()
	produce.SetVersion(9)
	fillRequest(produce, topic.ID)
	produce.TimeoutMillis = 10_000
	sent := producer.send(produce)
	fetch := kmsg.NewPtrFetchRequest()
	fetch.SetVersion(11)
	fillRequest(fetch, topic.ID)
	fetch.MaxWaitMillis, fetch.MinBytes = 60_000, 1
	polled := consumer.send(fetch)
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group = "wait"
	joined := member.send(join)
	waitFor(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.held) == 1 && len(p.subs) == 1
	})
	drained := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		drained <- r.s.Drain(ctx)
	}()
	if _, err := consumer.receive(fetch, polled); err != nil { // the long poll ends at once
		t.Error(err)
	}
	if _, err := member.receive(join, joined); err != nil {
		t.Error(err)
	}
	p.release(nil)
	if resp, err := producer.receive(produce, sent); err != nil || resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode != 0 {
		t.Errorf("%v %v", resp, err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("the listener is open")
	}
}

func TestChangesRunInOrderAndOutliveTheirClient(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group = "wait"
	c.send(join)
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.SetVersion(2)
	commit.Group = "after"
	c.send(commit)
	c.nc.Close() // the join ends with its client, the commit that came with it counts
	waitFor(t, func() bool { r.groups.mu.Lock(); defer r.groups.mu.Unlock(); return len(r.groups.seen) == 2 })
	if r.groups.seen[0] != "join wait" || r.groups.seen[1] != "commit after" {
		t.Error(r.groups.seen)
	}
}

func TestFetchMemoryIsGivenBack(t *testing.T) {
	r := newRig(t)
	topic, _ := r.topic("t")
	c := r.dial()
	for range 20 {
		produce := kmsg.NewPtrProduceRequest()
		produce.SetVersion(9)
		fillRequest(produce, topic.ID)
		do[*kmsg.ProduceResponse](c, produce)
		fetch := kmsg.NewPtrFetchRequest()
		fetch.SetVersion(11)
		fillRequest(fetch, topic.ID)
		if resp := do[*kmsg.FetchResponse](c, fetch); len(resp.Topics[0].Partitions[0].RecordBatches) == 0 {
			t.Fatal("nothing fetched")
		}
	}
	waitFor(t, func() bool {
		if !r.s.fetchBytes.TryAcquire(r.s.cfg.FetchBytesTotalMax) {
			return false
		}
		r.s.fetchBytes.Release(r.s.cfg.FetchBytesTotalMax)
		return true
	})
	if !r.s.requestBytes.TryAcquire(r.s.cfg.RequestBytesMax) {
		t.Error("request memory is not given back")
	}
}

func TestKafkaCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want *kerr.Error
	}{
		{fmt.Errorf("read: %w", tiering.ErrFenced), kerr.NotLeaderForPartition},
		{fmt.Errorf("read: %w", tiering.ErrStoreUnavailable), kerr.KafkaStorageError},
		{tiering.ErrDataLoss, kerr.KafkaStorageError},
		{context.DeadlineExceeded, kerr.RequestTimedOut},
		{errNoTransactions, kerr.TransactionalIDAuthorizationFailed},
		{kerr.NotCoordinator, kerr.NotCoordinator},
		{errors.New("what is this"), kerr.UnknownServerError},
	} {
		if got := kafkaCode(c.err); got != c.want.Code {
			t.Errorf("%v: %d, want %v", c.err, got, c.want)
		}
	}
	if kafkaCode(nil) != 0 {
		t.Error("nil is an error")
	}
	if text := errorText(errors.New("secret")); bytes.Contains([]byte(*text), []byte("secret")) {
		t.Error("an internal text reaches the client")
	}
}
