package checker

import "sync/atomic"

// Producer tells what one producer sends. Producers of one history have
// different names; one that was closed and opened again is a new one.
type Producer struct {
	h       *History
	proc    string
	mode    Mode
	retries bool
	txns    atomic.Int64
}

// Producer is an idempotent producer whose client makes one attempt at each
// send, or tells of earlier ones with Ambiguous.
func (h *History) Producer(proc string) *Producer { return &Producer{h: h, proc: proc} }

// RetryingProducer is an idempotent producer whose client tries again by itself.
// An error it ends with says only of its last attempt that it failed.
func (h *History) RetryingProducer(proc string) *Producer {
	return &Producer{h: h, proc: proc, retries: true}
}

// PlainProducer has no producer id. If its client retries, records may be
// doubled and overtake each other, which is allowed.
func (h *History) PlainProducer(proc string) *Producer {
	return &Producer{h: h, proc: proc, mode: Plain, retries: true}
}

// Send is one record on its way.
type Send struct {
	// Value is what the record is told by, unique in the history.
	Value uint64

	p         *Producer
	txn       string // it is part of
	of        *Op    // what it is a copy of
	key       Key
	call      int64
	begun     int64
	node      atomic.Value // string
	ambiguous atomic.Bool
	done      atomic.Bool
}

// Send begins to send a record. The order of these calls is the order in which
// the producer's records must lie.
func (p *Producer) Send(topic string, partition int32) *Send {
	return p.send(topic, partition, "", nil)
}

func (p *Producer) send(topic string, partition int32, txn string, of *Op) *Send {
	s := &Send{Value: p.h.values.Add(1), p: p, key: Key{topic, partition}, txn: txn, of: of}
	s.call, s.begun = p.h.Add(s.event(Invoke, -1, nil))
	return s
}

// Bytes are what to send: size bytes, or 12 if that is more.
func (s *Send) Bytes(size int) []byte { return Bytes(s.Value, size) }

// At notes which broker was asked last.
func (s *Send) At(node string) { s.node.Store(node) }

// Ambiguous notes that an attempt ended without an answer, or with one that says
// nothing of its outcome. Whatever error comes after it, the send may have
// happened.
func (s *Send) Ambiguous() { s.ambiguous.Store(true) }

// Done completes the send: at offset if err is nil, not at all if err is
// definite, and otherwise nobody knows.
func (s *Send) Done(offset int64, err error) {
	switch outcome(err, s.p.retries || s.ambiguous.Load()) {
	case OK:
		s.OK(offset)
	case Fail:
		s.Fail(err)
	default:
		s.Info(err)
	}
}

// OK completes the send: the broker acknowledged it at offset. What a broker
// acknowledged without an offset is told as -1, which is a violation.
func (s *Send) OK(offset int64) { s.complete(OK, offset, nil) }

// Fail completes the send: it did not happen.
func (s *Send) Fail(err error) { s.complete(Fail, -1, err) }

// Info completes the send: it may have happened, or may yet.
func (s *Send) Info(err error) { s.complete(Info, -1, err) }

func (s *Send) complete(t Type, offset int64, err error) {
	if s.done.Swap(true) {
		panic("a send was completed twice")
	}
	e := s.event(t, offset, err)
	e.Call, e.Begun = s.call, s.begun
	s.p.h.Add(e)
}

func (s *Send) event(t Type, offset int64, err error) Event {
	node, _ := s.node.Load().(string)
	e := Event{Proc: s.p.proc, Node: node, Type: t, F: FSend, Mode: s.p.mode, TxID: s.txn, Err: text(err),
		Ops: []Op{{Kind: 's', Key: s.key, Value: s.Value, Offset: offset}}}
	if s.of != nil && t == Invoke {
		e.Ops = append(e.Ops, *s.of)
	}
	return e
}
