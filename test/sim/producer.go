package sim

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/checker"
)

// stream is one producer's writes to one partition: batches that are repeated,
// with the same sequence numbers and in order, until their outcome is known.
type stream struct {
	w         *World
	c         *client
	d         *dice
	name      string
	partition int32
	window    int
	// hasty: the first batch goes to a broker that does not lead while those
	// after it go to the one that does, so that they overtake it.
	hasty bool
	// plain: it has no producer id, and tries each batch once.
	plain bool
	// wanders: repeats and copies are also sent to any broker, deposed ones too.
	wanders bool

	history *checker.Producer
	pid     int64
	seq     int32
	pending []*pendingBatch
	recent  []*pendingBatch // the last that were acknowledged
	lastAck atomic.Int64    // a time of the world
}

// lastAcked is when a batch was last acknowledged.
func (s *stream) lastAcked() time.Duration { return time.Duration(s.lastAck.Load()) }

// pendingBatch is a batch without an outcome.
type pendingBatch struct {
	seq    int32
	sends  []*checker.Send
	bytes  []byte
	offset int64 // once acknowledged
}

// produceTimeout is how long a producer waits for one answer.
const produceTimeout = 5 * time.Second

func (s *stream) run(ctx, writing context.Context) {
	defer s.c.close()
	if !s.register(ctx) {
		return
	}
	for ctx.Err() == nil {
		if writing.Err() == nil {
			s.fill()
		} else if len(s.pending) == 0 {
			return
		}
		if s.round(ctx) {
			s.w.breathe(ctx, s.d.between(s.w.weather.batchPause/4, 2*s.w.weather.batchPause))
		} else {
			rest(ctx, s.d.between(20*time.Millisecond, 250*time.Millisecond))
		}
	}
}

// register gets a producer id.
func (s *stream) register(ctx context.Context) bool {
	if s.plain {
		s.pid, s.seq = -1, -1
		return true
	}
	for ctx.Err() == nil {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version = 4
		resp, err := request[*kmsg.InitProducerIDResponse](ctx, s.c, s.c.seed(), req, 3*time.Second)
		if err == nil && resp.ErrorCode == 0 {
			s.pid = resp.ProducerID
			s.w.note(s.name, "registered", fmt.Sprint("producer id ", s.pid))
			return true
		}
		rest(ctx, 200*time.Millisecond)
	}
	return false
}

// fill makes new batches up to the window.
func (s *stream) fill() {
	for n := 1 + s.d.n(s.window); len(s.pending) < n; {
		b := &pendingBatch{seq: s.seq}
		var values [][]byte
		for range 1 + s.d.n(3) {
			send := s.history.Send(topicName, s.partition)
			b.sends = append(b.sends, send)
			values = append(values, send.Bytes(20+s.d.n(100)))
		}
		b.bytes = encodeBatch(s.pid, b.seq, time.Now().UnixMilli(), values)
		if !s.plain {
			s.seq += int32(len(b.sends))
		}
		s.pending = append(s.pending, b)
	}
}

// round sends all that is pending, in order, and takes the answers. It reports
// whether all of them are known now.
func (s *stream) round(ctx context.Context) bool {
	l := s.c.leader(ctx, s.partition)
	if l.addr == "" {
		return false
	}
	if s.hasty && len(s.pending) > 1 {
		s.hasty = false
		s.misdirect(ctx, s.pending[0], l.addr)
		s.exchange(ctx, l.addr, s.pending[1:])
		return false
	}
	if s.wanders && s.d.chance(0.15) {
		s.wander(ctx)
	}
	return s.exchange(ctx, l.addr, s.pending)
}

// exchange sends batches to one address and settles those that are answered.
func (s *stream) exchange(ctx context.Context, to string, batches []*pendingBatch) bool {
	var calls []*call
	for _, b := range batches {
		k, err := s.c.send(ctx, to, s.request(b))
		if err != nil {
			s.w.note(s.name, "unsent", err.Error())
			s.c.mislaid(s.partition)
			break // what is not sent keeps its place
		}
		calls = append(calls, k)
	}
	sent := slices.Clone(batches[:len(calls)])
	complete := len(calls) == len(batches)
	for i, k := range calls {
		code, offset, err := answerOf(k.wait(ctx, produceTimeout))
		if !s.settle(sent[i], code, offset, err) {
			complete = false
			s.c.mislaid(s.partition)
		}
	}
	return complete
}

func (s *stream) request(b *pendingBatch) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 12, -1, int32(produceTimeout/time.Millisecond)
	t := kmsg.NewProduceRequestTopic()
	t.Topic = s.c.topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = s.partition, b.bytes
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

func answerOf(resp kmsg.Response, err error) (code int16, offset int64, _ error) {
	if err != nil {
		return 0, 0, err
	}
	p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return p.ErrorCode, p.BaseOffset, nil
}

// settle takes in the answer to a batch, and reports whether its outcome is
// known.
func (s *stream) settle(b *pendingBatch, code int16, offset int64, err error) bool {
	switch {
	case err != nil:
		s.w.note(s.name, "unanswered", fmt.Sprintf("seq %d: %v", b.seq, err))
		s.abandon(b, err)
		return false
	case code == 0:
		s.acknowledged(b, offset)
		return true
	}
	name := kerr.ErrorForCode(code)
	s.w.note(s.name, "refused", fmt.Sprintf("seq %d: %v", b.seq, name))
	switch {
	case code == kerr.OutOfOrderSequenceNumber.Code:
		if s.plain || len(s.pending) > 0 && s.pending[0] == b {
			s.w.judge.broken("producer state", "%s: everything before sequence %d is acknowledged, and it is refused as out of order", s.name, b.seq)
		}
	case !kerr.IsRetriable(name):
		s.w.judge.broken("final error", "%s: sequence %d: %v", s.name, b.seq, name)
	}
	s.abandon(b, name)
	return false
}

// abandon gives a batch up, if its producer does not repeat any.
func (s *stream) abandon(b *pendingBatch, err error) {
	if !s.plain {
		return
	}
	for _, send := range b.sends {
		send.Info(err)
	}
	s.forget(b)
}

func (s *stream) forget(b *pendingBatch) {
	s.pending = slices.DeleteFunc(s.pending, func(other *pendingBatch) bool { return other == b })
}

// acknowledged notes that a batch is committed at offset.
func (s *stream) acknowledged(b *pendingBatch, offset int64) {
	s.w.note(s.name, "acked", fmt.Sprintf("seq %d at %d", b.seq, offset))
	s.w.judge.count("acks")
	b.offset = offset
	for i, send := range b.sends {
		send.OK(offset + int64(i))
	}
	s.w.judge.saw(s.partition, offset+int64(len(b.sends))-1)
	s.forget(b)
	s.recent = append(s.recent, b)
	s.recent = s.recent[max(0, len(s.recent)-8):]
	s.lastAck.Store(int64(s.w.now()))
}

// misdirect sends a batch to a broker other than the leader.
func (s *stream) misdirect(ctx context.Context, b *pendingBatch, leads string) {
	for _, to := range s.c.seeds {
		if to == leads {
			continue
		}
		code, offset, err := answerOf(sendAndWait(ctx, s.c, to, s.request(b)))
		s.settle(b, code, offset, err)
		return
	}
}

// wander sends a copy of a batch to any broker, as a request does that was held
// up on its way while its sender turned to another broker. Old ones must be
// known as duplicates, or refused, and appended by nobody.
func (s *stream) wander(ctx context.Context) {
	to := s.c.seeds[s.d.n(len(s.c.seeds))]
	all := append(append([]*pendingBatch(nil), s.recent...), s.pending...)
	if len(all) == 0 {
		return
	}
	i := s.d.n(len(all))
	if i > len(s.recent) {
		i = len(s.recent) // of those pending, the first: the next one that is due
	}
	b := all[i]
	code, offset, err := answerOf(sendAndWait(ctx, s.c, to, s.request(b)))
	s.w.note(s.name, "wandered", fmt.Sprintf("seq %d to %s: code %d, offset %d, %v", b.seq, to, code, offset, err))
	s.w.judge.count("wandered")
	if err == nil && code == kerr.OutOfOrderSequenceNumber.Code && i >= len(s.recent) {
		s.w.judge.broken("producer state", "%s: everything before sequence %d is acknowledged, and %s refuses it as out of order", s.name, b.seq, to)
	}
	if err != nil || code != 0 {
		return
	}
	if i >= len(s.recent) {
		s.acknowledged(b, offset)
		return
	}
	if offset != b.offset {
		s.w.judge.broken("duplicate", "%s: a copy of the batch at offset %d was acknowledged at %d by %s", s.name, b.offset, offset, to)
	}
}

func sendAndWait(ctx context.Context, c *client, to string, req kmsg.Request) (kmsg.Response, error) {
	k, err := c.send(ctx, to, req)
	if err != nil {
		return nil, err
	}
	return k.wait(ctx, produceTimeout)
}
