package checker

// records are what was sent and where it was seen: C0, C1, C3, C4 and C5.
type records struct {
	j     *Judge
	sends []send
	byID  map[uint64]int32 // of sends, by value
	logs  []keyLog         // by key
}

// send is one record's way.
type send struct {
	value   uint64
	invoked ref
	ended   ref // i is 0 while not completed
	acked   int64
	seen    int64 // the first offset it was seen at, -1
	key     int32
	state   Type
	plain   bool
	twice   bool  // told as a duplicate already
	stable  bool  // read at read_committed
	txn     int32 // it is part of, -1
}

// sight is what is known of an offset.
type sight struct {
	value uint64
	first ref
	seen  bool // else the rest means nothing
	read  bool // by a poll, not only acknowledged
}

// keyLog is what is known of a partition. Offsets are dense, but for what broken
// histories say.
type keyLog struct {
	dense  []sight
	sparse map[int64]*sight
	read   int64 // the highest offset read, -1
	start  int64 // the highest log start that anyone was told
	// stable is up to where somebody read all that is committed.
	stable int64
}

// denseMax is how far beyond its end the dense part grows at once.
const denseMax = 1 << 16

func (l *keyLog) at(offset int64) *sight {
	if offset < 0 || offset >= int64(len(l.dense))+denseMax {
		if l.sparse == nil {
			l.sparse = make(map[int64]*sight)
		}
		s := l.sparse[offset]
		if s == nil {
			s = new(sight)
			l.sparse[offset] = s
		}
		return s
	}
	for offset >= int64(len(l.dense)) {
		l.dense = append(l.dense, sight{})
	}
	if s := l.sparse[offset]; s != nil { // from before the dense part reached it
		delete(l.sparse, offset)
		l.dense[offset] = *s
	}
	return &l.dense[offset]
}

// between is a known offset in (from, to), the lowest found, of those that count.
func (l *keyLog) between(from, to int64, counts func(*sight) bool) (int64, bool) {
	for o := max(from+1, 0); o < min(to, int64(len(l.dense))); o++ {
		if l.dense[o].seen && counts(&l.dense[o]) {
			return o, true
		}
	}
	for o, s := range l.sparse {
		if s.seen && o > from && o < to && counts(s) {
			return o, true
		}
	}
	return 0, false
}

// each calls f with every known offset, the dense ones in order.
func (l *keyLog) each(f func(offset int64, s *sight)) {
	for o := range l.dense {
		if l.dense[o].seen {
			f(int64(o), &l.dense[o])
		}
	}
	for o, s := range l.sparse {
		if s.seen {
			f(o, s)
		}
	}
}

func (r *records) log(k int32) *keyLog {
	for int(k) >= len(r.logs) {
		r.logs = append(r.logs, keyLog{read: -1, stable: -1})
	}
	return &r.logs[k]
}

func (r *records) send(e *Event, at ref) {
	j := r.j
	for i := range e.Ops {
		op := &e.Ops[i]
		if op.Kind != 's' {
			continue
		}
		k := j.keys.id(op.Key)
		if e.Type == Invoke {
			if r.byID == nil {
				r.byID = make(map[uint64]int32)
			}
			if _, again := r.byID[op.Value]; again {
				j.broken("C0", "value %d is sent again by %s: the history is no good", op.Value, j.at(at))
				continue
			}
			n := int32(len(r.sends))
			r.byID[op.Value] = n
			r.sends = append(r.sends, send{value: op.Value, invoked: at, acked: -1, seen: -1, key: k, state: Invoke, plain: has(e.Mode, Plain), txn: -1})
			j.txns.send(e, n, at)
			j.order.add(at.proc, k, n)
			continue
		}
		n, ok := r.byID[op.Value]
		if !ok {
			j.broken("C0", "value %d completed and never sent by %s: the history is no good", op.Value, j.at(at))
			continue
		}
		s := &r.sends[n]
		s.ended, s.state = at, e.Type
		if e.Type == OK {
			if s.acked = op.Offset; op.Offset < 0 {
				j.broken("C3", "%s was acknowledged at offset %d to %s", r.name(n), op.Offset, j.at(at))
				continue
			}
			r.see(k, op.Offset, n, at, false)
			j.watermarks.acked(k, op.Offset, at)
		}
	}
}

func (r *records) poll(e *Event, at ref) {
	for i := range e.Ops {
		op := &e.Ops[i]
		if op.Kind != 'p' {
			continue
		}
		k := r.j.keys.id(op.Key)
		for _, rec := range op.Records {
			r.readOne(k, rec, e, at)
		}
	}
}

func (r *records) readOne(k int32, rec Record, e *Event, at ref) {
	j := r.j
	l := r.log(k)
	l.read = max(l.read, rec.Offset)
	if rec.Bad != "" {
		j.broken("C0", "%s offset %d, read by %s: %s", j.key(k), rec.Offset, j.at(at), rec.Bad)
		return
	}
	n, ok := r.byID[rec.Value]
	switch {
	case !ok:
		j.broken("C0", "%s offset %d, read by %s, holds value %d that nobody sent", j.key(k), rec.Offset, j.at(at), rec.Value)
		return
	case r.sends[n].key != k:
		j.broken("C0", "%s offset %d, read by %s, holds %s, of another partition", j.key(k), rec.Offset, j.at(at), r.name(n))
		return
	}
	r.see(k, rec.Offset, n, at, true)
	j.txns.read(e, n, at)
	if e.Isol == ReadCommitted {
		l.stable = max(l.stable, rec.Offset)
	}
}

// see notes that send n lies at an offset.
func (r *records) see(k int32, offset int64, n int32, at ref, read bool) {
	j, s := r.j, &r.sends[n]
	p := r.log(k).at(offset)
	switch {
	case !p.seen:
		*p = sight{value: s.value, first: at, seen: true}
	case p.value != s.value:
		j.broken("C3", "%s offset %d was %s to %s and is %s to %s", j.key(k), offset,
			r.name(r.byID[p.value]), j.at(p.first), r.name(n), j.at(at))
	}
	p.read = p.read || read
	switch {
	case s.seen < 0:
		s.seen = offset
	case s.seen != offset && !s.plain && !s.twice:
		s.twice = true
		first := r.log(k).at(s.seen).first
		j.broken("C4", "%s is at offset %d to %s and at offset %d to %s", r.name(n), s.seen, j.at(first), offset, j.at(at))
	}
}

// name tells of a send: which, to where, by whom.
func (r *records) name(n int32) string {
	s := &r.sends[n]
	return "value " + uitoa(s.value) + " (sent to " + r.j.key(s.key).String() + " by " + r.j.at(s.invoked) + ")"
}

func (r *records) known() int {
	n := 0
	for k := range r.logs {
		r.logs[k].each(func(int64, *sight) { n++ })
	}
	return n
}

// finish judges what only the whole history shows.
func (r *records) finish() {
	j := r.j
	for n := range r.sends {
		s := &r.sends[n]
		l := r.log(s.key)
		switch {
		case s.state == Fail && s.seen >= 0:
			p := l.at(s.seen)
			j.broken("C5", "%s was refused for good to %s, and is at offset %d to %s", r.name(int32(n)), j.at(s.ended), s.seen, j.at(p.first))
		case s.state == OK && s.acked >= l.start && s.acked <= l.read && !l.at(s.acked).read && j.txns.stands(int32(n), never):
			j.broken("C1", "%s was acknowledged at offset %d to %s; offsets up to %d were read, this one by nobody",
				r.name(int32(n)), s.acked, j.at(s.ended), l.read)
		}
	}
}
