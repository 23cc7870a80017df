package raw

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// frameMax bounds a request that the sink reads.
const frameMax = 64 << 20

// Sink is a broker that keeps nothing, inside this process: producers that dial
// it spend on records, batches and requests what they spend on a real one. It
// takes no more than window bytes that nobody has put into a store yet.
type Sink struct {
	topics     []string
	partitions int
	window     int64
	running    sync.WaitGroup

	mu       sync.Mutex // guards what follows
	change   *sync.Cond
	received int64 // bytes of produce requests
	taken    int64 // of those, what a PUT took
	finished int64 // of those, what its PUT has stored
	draining bool
	conns    map[net.Conn]bool
	closed   bool
}

// NewSink is a sink with topics of so many partitions each.
func NewSink(topics []string, partitions int, window int64) *Sink {
	s := &Sink{topics: topics, partitions: partitions, window: window, conns: make(map[net.Conn]bool)}
	s.change = sync.NewCond(&s.mu)
	return s
}

// Dial is a connection to the sink, for a client's dialer.
func (s *Sink) Dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	s.conns[server] = true
	s.running.Go(func() {
		_ = s.serve(server) // the client closes
		_ = server.Close()
	})
	return client, nil
}

// Close ends all connections.
func (s *Sink) Close() {
	s.mu.Lock()
	s.closed, s.draining = true, true
	for c := range s.conns {
		_ = c.Close()
	}
	s.change.Broadcast()
	s.mu.Unlock()
	s.running.Wait()
}

// Drain lets everything in from now on, and take returns false.
func (s *Sink) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.change.Broadcast()
}

// take waits for n bytes; false means that there will be no more.
func (s *Sink) take(ctx context.Context, n int64) bool {
	stop := context.AfterFunc(ctx, s.Drain)
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.received < s.taken+n && !s.draining {
		s.change.Wait()
	}
	if s.draining {
		return false
	}
	s.taken += n
	return true
}

func (s *Sink) done(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished += n
	s.change.Broadcast()
}

// admit counts n bytes in once there is room for them.
func (s *Sink) admit(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.received-s.finished >= s.window && !s.draining {
		s.change.Wait()
	}
	s.received += n
	s.change.Broadcast()
}

func (s *Sink) serve(c net.Conn) error {
	var size [4]byte
	var frame []byte
	for {
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint32(size[:]))
		if n < 8 || n > frameMax {
			return fmt.Errorf("request of %d bytes", n)
		}
		if cap(frame) < n {
			frame = make([]byte, n)
		}
		frame = frame[:n]
		if _, err := io.ReadFull(c, frame); err != nil {
			return err
		}
		answer, err := s.answer(frame)
		if err != nil {
			return err
		}
		if answer == nil {
			continue
		}
		if _, err := c.Write(answer); err != nil {
			return err
		}
	}
}

var errRequest = errors.New("request the sink does not answer")

// sinkVersions are the newest versions whose requests name topics by name.
var sinkVersions = map[int16]int16{
	int16(kmsg.Produce): 9, int16(kmsg.Metadata): 9, int16(kmsg.ApiVersions): 3, int16(kmsg.InitProducerID): 4,
}

func (s *Sink) answer(frame []byte) ([]byte, error) {
	key, version := int16(binary.BigEndian.Uint16(frame)), int16(binary.BigEndian.Uint16(frame[2:]))
	correlation := frame[4:8]
	newest, ok := sinkVersions[key]
	if !ok || version > newest && key != int16(kmsg.ApiVersions) {
		return nil, fmt.Errorf("%w: key %d, version %d", errRequest, key, version)
	}
	request := kmsg.RequestForKey(key)
	request.SetVersion(min(version, newest))
	body, err := afterHeader(frame[8:], request.IsFlexible())
	if err != nil {
		return nil, err
	}
	if key != int16(kmsg.ApiVersions) {
		if err := request.ReadFrom(body); err != nil {
			return nil, err
		}
	}
	response := s.respond(request, int64(len(frame)))
	if response == nil {
		return nil, nil
	}
	out := append(make([]byte, 4), correlation...)
	if response.IsFlexible() && key != int16(kmsg.ApiVersions) {
		out = append(out, 0) // no tags
	}
	out = response.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out, nil
}

// afterHeader skips the client id and, of a flexible request, the tags.
func afterHeader(b []byte, flexible bool) ([]byte, error) {
	if len(b) < 2 {
		return nil, io.ErrUnexpectedEOF
	}
	n := max(0, int(int16(binary.BigEndian.Uint16(b))))
	b = b[2:]
	if len(b) < n {
		return nil, io.ErrUnexpectedEOF
	}
	b = b[n:]
	if !flexible {
		return b, nil
	}
	if len(b) == 0 || b[0] != 0 {
		return nil, fmt.Errorf("%w: header tags", errRequest)
	}
	return b[1:], nil
}

func (s *Sink) respond(request kmsg.Request, frame int64) kmsg.Response {
	response := request.ResponseKind()
	response.SetVersion(request.GetVersion())
	switch r := response.(type) {
	case *kmsg.ApiVersionsResponse:
		for key, newest := range sinkVersions {
			k := kmsg.NewApiVersionsResponseApiKey()
			k.ApiKey, k.MaxVersion = key, newest
			r.ApiKeys = append(r.ApiKeys, k)
		}
	case *kmsg.MetadataResponse:
		s.metadata(r)
	case *kmsg.InitProducerIDResponse:
		r.ProducerID = 1
	case *kmsg.ProduceResponse:
		s.admit(frame)
		produced(request.(*kmsg.ProduceRequest), r)
		if request.(*kmsg.ProduceRequest).Acks == 0 {
			return nil
		}
	}
	return response
}

func (s *Sink) metadata(r *kmsg.MetadataResponse) {
	b := kmsg.NewMetadataResponseBroker()
	b.NodeID, b.Host, b.Port = 1, "sink", 9092
	r.Brokers, r.ControllerID = append(r.Brokers, b), 1
	for _, name := range s.topics {
		t := kmsg.NewMetadataResponseTopic()
		t.Topic = kmsg.StringPtr(name)
		for p := range s.partitions {
			part := kmsg.NewMetadataResponseTopicPartition()
			part.Partition, part.Leader, part.Replicas, part.ISR = int32(p), 1, []int32{1}, []int32{1}
			t.Partitions = append(t.Partitions, part)
		}
		r.Topics = append(r.Topics, t)
	}
}

func produced(q *kmsg.ProduceRequest, r *kmsg.ProduceResponse) {
	for _, qt := range q.Topics {
		t := kmsg.NewProduceResponseTopic()
		t.Topic = qt.Topic
		for _, qp := range qt.Partitions {
			p := kmsg.NewProduceResponseTopicPartition()
			p.Partition, p.BaseOffset = qp.Partition, 0
			t.Partitions = append(t.Partitions, p)
		}
		r.Topics = append(r.Topics, t)
	}
}
