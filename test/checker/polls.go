package checker

import "sync"

// Consumer tells what one consumer reads. Its methods may be called from one
// goroutine at a time.
type Consumer struct {
	h    *History
	proc string
	mode Mode
	isol string
	scan bool
	node string
}

// Consumer is a consumer that reads on and on. The modes are Assigned or
// Subscribed, and Epochs if its client sends leader epochs; isol is
// ReadUncommitted or ReadCommitted.
func (h *History) Consumer(proc, isol string, modes ...Mode) *Consumer {
	return &Consumer{h: h, proc: proc, isol: isol, mode: join(modes)}
}

// Scanner is a fresh consumer that reads the whole log once every fault is over,
// by way of one broker. A run ends with two of them at every broker.
func (h *History) Scanner(proc, node, isol string) *Consumer {
	return &Consumer{h: h, proc: proc, node: node, isol: isol, mode: Assigned, scan: true}
}

func join(modes []Mode) Mode {
	var m Mode
	for _, one := range modes {
		if m != "" {
			m += ","
		}
		m += one
	}
	return m
}

// Assign tells that the consumer's application chose its partitions, and where
// to begin: a position, or -1 for wherever the client begins. It replaces the
// assignment before.
func (c *Consumer) Assign(positions map[Key]int64) {
	e := c.event(FAssign)
	for k, offset := range positions {
		e.Ops = append(e.Ops, Op{Kind: 'a', Key: k, Offset: offset})
	}
	sortOps(e.Ops)
	c.h.Add(e)
}

// Subscribe tells that the consumer joins a group, which will assign partitions.
func (c *Consumer) Subscribe(group string) {
	e := c.event(FSub)
	e.Group = group
	c.h.Add(e)
}

// Reset tells that the consumer's position moved without its application asking
// for it, as clients do after OFFSET_OUT_OF_RANGE.
func (c *Consumer) Reset(topic string, partition int32, from, to int64) {
	e := c.event(FReset)
	e.Ops = []Op{{Kind: 'r', Key: Key{topic, partition}, Offset: from, To: to}}
	c.h.Add(e)
}

// Close tells that the consumer reads no more. A consumer that is not closed is
// expected to go on reading.
func (c *Consumer) Close() { c.h.Add(c.event(FClose)) }

func (c *Consumer) event(f F) Event {
	return Event{Proc: c.proc, Node: c.node, Type: OK, F: f, Mode: c.mode, Isol: c.isol}
}

// Poll is one call of a consumer, from its beginning to what it returned.
type Poll struct {
	c            *Consumer
	begun, after int64
	txn          string

	mu   sync.Mutex // guards ops and at
	ops  []Op
	at   map[Key]int // where the records of a partition are in ops
	done bool
}

// Poll begins a call. Call it before the client does its work, so that what it
// returns can be compared with what was known before.
func (c *Consumer) Poll() *Poll {
	p := &Poll{c: c, at: make(map[Key]int)}
	p.after, p.begun = c.h.now()
	return p
}

// In tells that the call is part of a transaction.
func (p *Poll) In(t *Txn) *Poll { p.txn = t.id; return p }

// Record adds a record the call returned, in the order it was returned. The
// payload is checked.
func (p *Poll) Record(topic string, partition int32, offset int64, payload []byte) {
	r := Record{Offset: offset}
	var err error
	if r.Value, err = ValueOf(payload); err != nil {
		r.Bad = err.Error()
	}
	p.Add(Key{topic, partition}, r)
}

// Add adds a record that was checked before.
func (p *Poll) Add(k Key, records ...Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.at[k]
	if !ok {
		i = len(p.ops)
		p.at[k] = i
		p.ops = append(p.ops, Op{Kind: 'p', Key: k})
	}
	p.ops[i].Records = append(p.ops[i].Records, records...)
}

// Marks adds the watermarks that came along; -1 for what did not.
func (p *Poll) Marks(topic string, partition int32, m Marks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ops = append(p.ops, Op{Kind: 'w', Key: Key{topic, partition}, Marks: m})
}

// Done ends the call. One that returned nothing at all leaves no trace.
func (p *Poll) Done(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		panic("a poll was completed twice")
	}
	p.done = true
	if len(p.ops) == 0 && err == nil {
		return
	}
	e := p.c.event(FPoll)
	if p.c.scan {
		e.F = FScan
	}
	if e.Ops = p.ops; err != nil {
		e.Type, e.Err = Info, err.Error()
	}
	e.Begun, e.After, e.TxID = p.begun, p.after, p.txn
	p.c.h.Add(e)
}
