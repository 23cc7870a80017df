package tcpproxy

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// broker answers every produce request with success, at offsets that count up.
type broker struct {
	addr string
	mu   sync.Mutex
	got  []int32 // correlation ids, in the order of arrival
}

func startBroker(t *testing.T) *broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{addr: l.Addr().String()}
	var running sync.WaitGroup
	t.Cleanup(func() { l.Close(); running.Wait() })
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { defer c.Close(); b.serve(c) })
		}
	})
	return b
}

func (b *broker) serve(c net.Conn) {
	for {
		raw, err := readFrame(c)
		if err != nil {
			return
		}
		correlation := int32(binary.BigEndian.Uint32(raw[8:]))
		b.mu.Lock()
		b.got = append(b.got, correlation)
		b.mu.Unlock()
		req, err := decodeRequest(raw)
		if err != nil {
			return
		}
		if p, ok := req.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
			continue
		}
		resp := req.ResponseKind()
		resp.SetVersion(req.GetVersion())
		if p, ok := resp.(*kmsg.ProduceResponse); ok {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic = "t"
			topic.Partitions = append(topic.Partitions, kmsg.NewProduceResponseTopicPartition())
			p.Topics = append(p.Topics, topic)
		}
		out := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(correlation))
		if resp.IsFlexible() {
			out = append(out, 0)
		}
		out = resp.AppendTo(out)
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

func (b *broker) heard() []int32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]int32(nil), b.got...)
}

func readFrame(c net.Conn) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head))
	_, err := io.ReadFull(c, b)
	return append(head, b...), err
}

func produce(partition, correlation int32, acks int16, version int16) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(version)
	req.Acks = acks
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "t"
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition = partition
	topic.Partitions = append(topic.Partitions, part)
	req.Topics = append(req.Topics, topic)
	return kmsg.NewRequestFormatter().AppendRequest(nil, req, correlation)
}

func startKafka(t *testing.T, target string) *Proxy {
	t.Helper()
	p, err := NewKafka("127.0.0.1:0", target, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// answer reads a produce reply.
func answer(t *testing.T, c net.Conn, version int16) (correlation int32, code int16) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b, err := readFrame(c)
	if err != nil {
		t.Fatal(err)
	}
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(version)
	body := b[8:]
	if resp.IsFlexible() {
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	return int32(binary.BigEndian.Uint32(b[4:])), resp.Topics[0].Partitions[0].ErrorCode
}

func toPartition(want int32) func(kmsg.Request) bool {
	return func(r kmsg.Request) bool {
		return r.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Partition == want
	}
}

func TestKafkaPassesWithoutRules(t *testing.T) {
	for _, version := range []int16{3, 8, 9, 11} {
		b := startBroker(t)
		c := dial(t, startKafka(t, b.addr))
		_, _ = c.Write(append(produce(0, 1, -1, version), produce(0, 2, 1, version)...))
		for want := int32(1); want <= 2; want++ {
			if got, code := answer(t, c, version); got != want || code != 0 {
				t.Errorf("version %d: reply %d with code %d, want %d", version, got, code, want)
			}
		}
	}
}

func TestHoldAndDropDeliversAfterTheClientMoved(t *testing.T) {
	b := startBroker(t)
	p := startKafka(t, b.addr)
	rule := p.Add(Rule{Key: produceKey, Match: toPartition(7), Action: HoldAndDrop, Delay: 200 * time.Millisecond})
	first := dial(t, p)
	_, _ = first.Write(produce(7, 1, -1, 9))
	if got, err := receive(first, 1, 5*time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q, %v, want a reset", got, err)
	}
	second := dial(t, p)
	_, _ = second.Write(produce(3, 2, -1, 9))
	if got, code := answer(t, second, 9); got != 2 || code != 0 {
		t.Errorf("reply %d with code %d", got, code)
	}
	eventually(t, "the held request arrives", func() bool { return len(b.heard()) == 2 })
	if got := b.heard(); got[0] != 2 || got[1] != 1 {
		t.Errorf("arrived in the order %v", got)
	}
	if n := rule.Counts(); n.Seen != 1 || n.Hit != 1 || n.Done != 1 {
		t.Errorf("%+v", n)
	}
}

func TestCutBeforeReply(t *testing.T) {
	b := startBroker(t)
	p := startKafka(t, b.addr)
	rule := p.Add(Rule{Key: produceKey, Action: CutBeforeReply, Count: 1})
	c := dial(t, p)
	_, _ = c.Write(produce(0, 1, -1, 9))
	if got, err := receive(c, 1, 5*time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q, %v, want a reset", got, err)
	}
	if n := rule.Counts(); n.Applied != 1 || n.Done != 1 {
		t.Errorf("%+v", n)
	}
	c = dial(t, p)
	_, _ = c.Write(produce(0, 2, -1, 9))
	answer(t, c, 9)
	if got := b.heard(); len(got) != 2 {
		t.Errorf("the broker heard %v", got)
	}
}

func TestRefuseProduceKeepsTheOrderOfReplies(t *testing.T) {
	b := startBroker(t)
	p := startKafka(t, b.addr)
	code := kerr.NotLeaderForPartition.Code
	rule := p.Add(Rule{Key: produceKey, Match: toPartition(5), Action: RefuseProduce, Code: code})
	c := dial(t, p)
	var all []byte
	for i := range int32(6) {
		all = append(all, produce(5*(i%2), i, -1, 9)...)
	}
	all = append(all, produce(5, 6, 0, 9)...) // not answered, and so not refused
	_, _ = c.Write(all)
	for i := range int32(6) {
		want := code * int16(i%2)
		if got, code := answer(t, c, 9); got != i || code != want {
			t.Errorf("reply %d with code %d, want %d with %d", got, code, i, want)
		}
	}
	eventually(t, "all but the refused arrive", func() bool { return len(b.heard()) == 4 })
	if n := rule.Counts(); n.Done != 3 {
		t.Errorf("%+v", n)
	}
	rule.Remove()
	_, _ = c.Write(produce(5, 9, -1, 9))
	if got, code := answer(t, c, 9); got != 9 || code != 0 {
		t.Errorf("reply %d with code %d after the rule was removed", got, code)
	}
}

func TestCutBeforeRequest(t *testing.T) {
	b := startBroker(t)
	p := startKafka(t, b.addr)
	p.Add(Rule{Key: produceKey, Action: CutBeforeRequest})
	c := dial(t, p)
	_, _ = c.Write(produce(0, 1, -1, 9))
	if got, err := receive(c, 1, 5*time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q, %v, want a reset", got, err)
	}
	if got := b.heard(); len(got) != 0 {
		t.Errorf("the broker heard %v", got)
	}
}
