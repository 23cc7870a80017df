package checker

// readers are C8 and C9, and what C17 needs of consumers.
type readers struct {
	j     *Judge
	by    map[int32]*reader
	holes []hole
	stops []stop
}

// reader is one consumer.
type reader struct {
	assigned bool // chooses its partitions itself
	stable   bool // reads what is committed
	// moved is when its assignment changed last; polled, when its last poll ended.
	moved, polled int64
	closed        bool
	at            map[int32]*position
}

// position is where a consumer is in a partition.
type position struct {
	next   int64 // -1 while unknown
	by     ref
	owned  bool  // it is expected to read on
	kept   bool  // it was assigned when the consumer's partitions were last told
	moving int64 // T of the last progress, or of the assignment
}

// hole is a range of offsets that a consumer left out. Whether it should have
// seen any of them is known at the end.
type hole struct {
	id       string
	key      int32
	from, to int64 // the last before and the first behind
	before   ref
	at       ref
	stable   bool // it reads what is committed
}

// stop is a time in which a consumer did not get on.
type stop struct {
	proc, key int32
	next      int64
	from, to  int64
	stable    bool
}

func (r *readers) reader(proc int32) *reader {
	if r.by == nil {
		r.by = make(map[int32]*reader)
	}
	c := r.by[proc]
	if c == nil {
		c = &reader{at: make(map[int32]*position)}
		r.by[proc] = c
	}
	return c
}

func (c *reader) position(key int32) *position {
	p := c.at[key]
	if p == nil {
		p = &position{next: -1}
		c.at[key] = p
	}
	return p
}

func (r *readers) poll(e *Event, at ref) {
	c := r.reader(at.proc)
	c.assigned, c.stable = has(e.Mode, Assigned), e.Isol == ReadCommitted
	// Reassigned since the poll before: what this one returned may begin anew.
	moved := !c.assigned && c.moved > 0 && c.moved >= c.polled
	for i := range e.Ops {
		if op := &e.Ops[i]; op.Kind == 'p' && len(op.Records) > 0 {
			r.read(c, r.j.keys.id(op.Key), op.Records, at, moved)
		}
	}
	c.polled = at.t
}

// read follows a consumer through the records of one partition.
func (r *readers) read(c *reader, key int32, recs []Record, at ref, moved bool) {
	j, p := r.j, c.position(key)
	r.stopped(at.proc, key, p, at.t, c.stable)
	for i, rec := range recs {
		id, compare := "C8", i > 0 && !moved
		if i == 0 {
			id, compare = "C9", c.assigned
		}
		if compare && p.next >= 0 {
			switch {
			case rec.Offset < p.next:
				j.broken(id, "%s reads %s offset %d after it was at %d since %s", j.at(at), j.key(key), rec.Offset, p.next, j.at(p.by))
			case rec.Offset > p.next:
				r.holes = append(r.holes, hole{id, key, p.next - 1, rec.Offset, p.by, at, c.stable})
			}
		}
		p.next, p.by = rec.Offset+1, at
	}
}

// stopped closes the time since the last progress, and begins the next.
func (r *readers) stopped(proc, key int32, p *position, now int64, stable bool) {
	if p.owned && now-p.moving >= int64(r.j.rules.Stuck) {
		r.stops = append(r.stops, stop{proc, key, p.next, p.moving, now, stable})
	}
	p.moving = now
}

func (r *readers) control(e *Event, at ref) {
	c := r.reader(at.proc)
	c.stable = c.stable || e.Isol == ReadCommitted
	switch e.F {
	case FReset:
		r.reset(c, e, at)
	case FSub:
		c.moved = at.t
	case FClose:
		r.disown(c, at)
		c.closed = true
	case FAssign, FGroup:
		r.assign(c, e, at)
	}
}

// assign takes what a consumer had and gives it what it has now. A partition
// that is new to it is read from wherever its group, or its application, says.
func (r *readers) assign(c *reader, e *Event, at ref) {
	before := c.at
	r.disown(c, at)
	c.moved, c.at = at.t, make(map[int32]*position)
	for _, op := range e.Ops {
		key := r.j.keys.id(op.Key)
		p := &position{next: op.Offset, by: at}
		if kept := before[key]; kept != nil && kept.kept && e.F == FGroup {
			p = kept
		}
		p.owned, p.kept, p.moving = true, true, at.t
		c.at[key] = p
	}
}

// reset is what a client did on its own. Back, but not behind anything that it
// delivered, repeats nothing: clients that read committed records and have passed
// aborted ones ask for the end of the epoch of the last that they delivered
// (KIP-320), which ended before those they passed. What they leave out afterwards
// is still told by where they were.
func (r *readers) reset(c *reader, e *Event, at ref) {
	for _, op := range e.Ops {
		k := r.j.keys.id(op.Key)
		if next := c.position(k).next; c.stable && next >= 0 && next <= op.To && op.To <= op.Offset {
			continue
		}
		if !r.j.rules.Resets {
			r.j.broken("C9", "the position of %s in %s was reset from %d to %d", r.j.at(at), op.Key, op.Offset, op.To)
		}
		c.position(k).next, c.position(k).by = op.To, at
	}
}

// disown ends what is expected of a consumer's partitions.
func (r *readers) disown(c *reader, at ref) {
	for key, p := range c.at {
		r.stopped(at.proc, key, p, at.t, c.stable)
		p.owned = false
	}
}

// finish decides which holes are violations: those with a known record in them.
func (r *readers) finish() {
	j := r.j
	for proc, c := range r.by {
		if !c.closed {
			r.disown(c, ref{t: j.last, proc: proc})
		}
	}
	for _, h := range r.holes {
		l := j.records.log(h.key)
		if missed, ok := l.between(max(h.from, l.start-1), h.to, j.txns.counts(h.stable, never)); ok {
			j.broken(h.id, "%s reads %s offset %d after %d (%s) and leaves out offset %d, known to %s", j.at(h.at), j.key(h.key),
				h.to, h.from, j.at(h.before), missed, j.at(l.at(missed).first))
		}
	}
}
