package broker

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/tiering/batch"
)

// player sends a sequence of requests over two connections and remembers what
// the answers say, so that later requests can be about what earlier ones made.
type player struct {
	dial  func() net.Conn
	conns [2]*line

	mu         sync.Mutex // guards what the answers said
	member     string
	generation int32
	producerID int64
	epoch      int16
	session    int32
	turn       int32 // of the fetch session
}

// line is one connection of a player.
type line struct {
	nc net.Conn

	mu      sync.Mutex
	asked   map[int32]kmsg.Request // by correlation id; nil for what does not decode
	changed chan struct{}          // has a token when an answer came, or the end
	ended   bool
}

func newPlayer(dial func() net.Conn) *player { return &player{dial: dial, producerID: -1, epoch: -1} }

func (p *player) line(n int) *line {
	if p.conns[n] == nil {
		l := &line{nc: p.dial(), asked: make(map[int32]kmsg.Request), changed: make(chan struct{}, 1)}
		p.conns[n] = l
		go p.listen(l)
	}
	return p.conns[n]
}

// How one request of a sequence is sent, by its bits of the script.
const (
	onSecond   = 1 << iota // over the second connection
	awaited                // and its answer awaited
	bound                  // with the names and numbers that earlier answers gave
	resummed               // with checksums that are right
	pause1                 // after a pause of one or
	pause2                 // ten seconds, or both
	scriptBits = 6
)

// play sends one request: a header and a body without the length before it.
func (p *player) play(correlation int32, request []byte, how uint64) {
	if len(request) < 8 {
		return
	}
	request = append([]byte(nil), request...)
	binary.BigEndian.PutUint32(request[4:], uint32(correlation))
	if how&pause1 != 0 {
		time.Sleep(time.Second)
	}
	if how&pause2 != 0 {
		time.Sleep(10 * time.Second)
	}
	request, req := p.adapt(request, how)
	l := p.line(int(how & onSecond))
	l.mu.Lock()
	l.asked[correlation] = req
	l.mu.Unlock()
	frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(request))), request...)
	_ = l.nc.SetWriteDeadline(time.Now().Add(10 * time.Second)) // a server with enough to do stops reading
	if _, err := l.nc.Write(frame); err != nil {
		l.end()
	}
	if how&awaited != 0 {
		l.await(correlation)
	}
}

// adapt decodes a request that can be decoded and puts into it what the script
// asks for.
func (p *player) adapt(request []byte, how uint64) ([]byte, kmsg.Request) {
	h, err := parseHeader(request)
	if err != nil || h.body == nil {
		return request, nil
	}
	req, err := decode(&h, 1<<20)
	if err != nil {
		return request, nil
	}
	if how&(bound|resummed) == 0 {
		return request, req
	}
	p.mu.Lock()
	if how&bound != 0 {
		p.bind(req)
	}
	p.mu.Unlock()
	if produce, ok := req.(*kmsg.ProduceRequest); ok {
		p.batches(produce, how)
	}
	return append(request[:len(request)-len(h.body):len(request)-len(h.body)], req.AppendTo(nil)...), req
}

func (p *player) bind(req kmsg.Request) {
	switch q := req.(type) {
	case *kmsg.JoinGroupRequest:
		q.MemberID = p.member
	case *kmsg.SyncGroupRequest:
		q.MemberID, q.Generation = p.member, p.generation
		if len(q.GroupAssignment) > 0 {
			q.GroupAssignment[0].MemberID = p.member
		}
	case *kmsg.HeartbeatRequest:
		q.MemberID, q.Generation = p.member, p.generation
	case *kmsg.OffsetCommitRequest:
		q.MemberID, q.Generation = p.member, p.generation
	case *kmsg.LeaveGroupRequest:
		if q.MemberID = p.member; len(q.Members) > 0 {
			q.Members[0].MemberID = p.member
		}
	case *kmsg.InitProducerIDRequest:
		q.ProducerID, q.ProducerEpoch = p.producerID, p.epoch
	case *kmsg.FetchRequest:
		q.SessionID, q.SessionEpoch = p.session, p.turn
	}
}

// batches puts a producer's id and right checksums into record batches.
func (p *player) batches(q *kmsg.ProduceRequest, how uint64) {
	for i := range q.Topics {
		for j := range q.Topics[i].Partitions {
			b := q.Topics[i].Partitions[j].Records
			if len(b) < 61 {
				continue
			}
			if h, err := batch.Parse(b); how&bound != 0 && err == nil && h.ProducerID >= 0 {
				binary.BigEndian.PutUint64(b[43:], uint64(p.producerID))
				binary.BigEndian.PutUint16(b[51:], uint16(p.epoch))
			}
			resum(b)
		}
	}
}

// listen takes answers until the connection ends.
func (p *player) listen(l *line) {
	defer l.end()
	for {
		var prefix [4]byte
		if _, err := io.ReadFull(l.nc, prefix[:]); err != nil {
			return
		}
		answer := make([]byte, binary.BigEndian.Uint32(prefix[:]))
		if _, err := io.ReadFull(l.nc, answer); err != nil || len(answer) < 4 {
			return
		}
		correlation := int32(binary.BigEndian.Uint32(answer))
		l.mu.Lock()
		req, ok := l.asked[correlation]
		delete(l.asked, correlation)
		l.mu.Unlock()
		if ok && req != nil {
			p.learn(req, answer[4:])
		}
		l.token()
	}
}

func (l *line) token() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *line) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	_ = l.nc.Close()
	l.token()
}

// await waits for an answer, as long as a broker may take for any.
func (l *line) await(correlation int32) bool {
	limit := time.After(answerMax)
	for {
		l.mu.Lock()
		_, open := l.asked[correlation]
		done := !open || l.ended
		l.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-l.changed:
		case <-limit:
			return false
		}
	}
}

// answerMax is beyond the longest that a request may ask to be kept waiting: a
// join, for its rebalance timeout.
const answerMax = 30 * time.Minute

func (p *player) learn(req kmsg.Request, answer []byte) {
	resp := req.ResponseKind()
	if resp.IsFlexible() && req.Key() != int16(kmsg.ApiVersions) && len(answer) > 0 {
		answer = answer[1:] // no tagged fields in the header
	}
	if resp.ReadFrom(answer) != nil {
		return // what was asked in an unknown version is answered in another
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r := resp.(type) {
	case *kmsg.JoinGroupResponse:
		p.member, p.generation = r.MemberID, r.Generation
	case *kmsg.InitProducerIDResponse:
		p.producerID, p.epoch = r.ProducerID, r.ProducerEpoch
	case *kmsg.FetchResponse:
		if p.turn++; r.SessionID != p.session {
			p.session, p.turn = r.SessionID, 1
		}
	}
}

func (p *player) close() {
	for _, l := range p.conns {
		if l != nil {
			_ = l.nc.Close()
		}
	}
}

// pipes is a listener whose connections are pipes: they work on fake time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return pipeAddr{} }

func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
	case <-p.done:
		there.Close()
	}
	return here
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

var errUnanswered = errors.New("no answer")

// ask sends a request on a connection of its own and waits for the answer.
func (p *pipes) ask(req kmsg.Request) (kmsg.Response, error) {
	nc := p.dial()
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("probe")).AppendRequest(nil, req, 1)
	if _, err := nc.Write(frame); err != nil {
		return nil, errors.Join(errUnanswered, err)
	}
	var prefix [4]byte
	if _, err := io.ReadFull(nc, prefix[:]); err != nil {
		return nil, errors.Join(errUnanswered, err)
	}
	answer := make([]byte, binary.BigEndian.Uint32(prefix[:]))
	if _, err := io.ReadFull(nc, answer); err != nil {
		return nil, errors.Join(errUnanswered, err)
	}
	answer = answer[4:]
	resp := req.ResponseKind()
	if resp.IsFlexible() && req.Key() != int16(kmsg.ApiVersions) {
		answer = answer[1:]
	}
	return resp, resp.ReadFrom(answer)
}

// sequenceLen is how many requests a sequence has.
const sequenceLen = 6

// probe does what any client does, after whatever others did: it writes a record
// and reads it back.
func probe(t *testing.T, p *pipes, topic string) {
	t.Helper()
	produce := kmsg.NewPtrProduceRequest()
	produce.SetVersion(9)
	fillRequest(produce, [16]byte{})
	produce.Topics[0].Topic = topic
	resp, err := p.ask(produce)
	if err != nil {
		t.Fatalf("a produce after the sequence: %v", err)
	}
	at := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	if at.ErrorCode != 0 || at.BaseOffset < 0 {
		t.Fatalf("a produce after the sequence: error %d, offset %d", at.ErrorCode, at.BaseOffset)
	}
	fetch := kmsg.NewPtrFetchRequest()
	fetch.SetVersion(11)
	fillRequest(fetch, [16]byte{})
	fetch.SessionEpoch, fetch.MaxWaitMillis = -1, 1000
	fetch.Topics[0].Topic, fetch.Topics[0].Partitions[0].FetchOffset = topic, at.BaseOffset
	if resp, err = p.ask(fetch); err != nil {
		t.Fatalf("a fetch after the sequence: %v", err)
	}
	got := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if h, err := batch.Parse(got.RecordBatches); err != nil || got.ErrorCode != 0 || h.BaseOffset != at.BaseOffset {
		t.Fatalf("a fetch after the sequence: error %d, %d bytes, %v", got.ErrorCode, len(got.RecordBatches), err)
	}
}
