package checker

// txns are C6, C7, C11 and C15, and what C1, C2, C5, C8, C9 and C17 need to know
// of transactions.
type txns struct {
	j    *Judge
	ids  table[string]
	list []txnState
	keys map[int32]bool          // partitions that were written to in transactions
	of   map[int32]origin        // sends that are copies
	when int64                   // T of the last event of a transaction
	wr   map[int32]map[int32]ref // a transaction, those that read what it wrote, and where
}

// txnState is one transaction.
type txnState struct {
	commit bool // asked for
	asked  ref  // when its end was asked for first; i is 0 for never
	ended  ref
	state  Type // of the end; Invoke while nobody was told
	sends  []int32
	// seen is when somebody first read of it at read_committed, early when that
	// was before its commit was asked for.
	seen, early ref
	read        int32 // what was read then
}

// origin is the record that a send is a copy of.
type origin struct {
	key    int32
	value  uint64
	offset int64
}

func (x *txns) txn(id string, at ref) *txnState {
	n := x.ids.id(id)
	if int(n) == len(x.list) {
		x.list = append(x.list, txnState{state: Invoke, read: -1})
	}
	x.when = at.t
	return &x.list[n]
}

// send notes that send n belongs to a transaction, and what it is a copy of.
func (x *txns) send(e *Event, n int32, at ref) {
	if e.TxID == "" {
		return
	}
	if x.keys == nil {
		x.keys, x.of = make(map[int32]bool), make(map[int32]origin)
	}
	s := &x.j.records.sends[n]
	t := x.txn(e.TxID, at)
	t.sends = append(t.sends, n)
	s.txn = x.ids.id(e.TxID)
	x.keys[s.key] = true
	for _, op := range e.Ops {
		if op.Kind == 'f' {
			x.of[n] = origin{x.j.keys.id(op.Key), op.Value, op.Offset}
		}
	}
}

func (x *txns) end(e *Event, at ref) {
	t := x.txn(e.TxID, at)
	if e.Type == Invoke {
		if t.asked.i == 0 {
			t.asked = at
		}
		t.commit = t.commit || has(e.Mode, Commits)
		return
	}
	t.ended, t.state = at, e.Type
}

// read is told of a record that was polled.
func (x *txns) read(e *Event, n int32, at ref) {
	s := &x.j.records.sends[n]
	if e.TxID != "" {
		x.txn(e.TxID, at)
	}
	if e.Isol != ReadCommitted {
		return
	}
	s.stable = true
	if s.txn < 0 {
		return
	}
	t, reader := &x.list[s.txn], int32(-1)
	if e.TxID != "" {
		reader = x.ids.id(e.TxID)
	}
	if reader == s.txn && t.ended.i == 0 {
		x.j.broken("C6", "%s reads %s in the very transaction that sent it", x.j.at(at), x.j.records.name(n))
		return
	}
	if reader >= 0 && reader != s.txn {
		x.edge(s.txn, reader, at)
	}
	if t.seen.i == 0 {
		t.seen, t.read = at, n
	}
	if t.early.i == 0 && (t.asked.i == 0 || !t.commit) {
		t.early, t.read = at, n
	}
}

func (x *txns) edge(from, to int32, at ref) {
	if x.wr == nil {
		x.wr = make(map[int32]map[int32]ref)
	}
	if x.wr[from] == nil {
		x.wr[from] = make(map[int32]ref)
	}
	if _, known := x.wr[from][to]; !known {
		x.wr[from][to] = at
	}
}

// aborted tells of a transaction that it was not committed and never will be.
func (t *txnState) aborted() bool { return !t.commit || t.state == Fail }

// committed is when it was first known to be committed; false if it is not.
func (t *txnState) committed() (ref, bool) {
	switch {
	case t.aborted():
		return ref{}, false
	case t.state == OK && (t.seen.i == 0 || t.ended.i < t.seen.i):
		return t.ended, true
	}
	return t.seen, t.seen.i > 0
}

// counts tells of sights whether they were to be read: always, but for those who
// read what is committed only what was known to be that by an event.
func (x *txns) counts(stable bool, by int64) func(*sight) bool {
	return func(p *sight) bool {
		if !stable {
			return true
		}
		n, sent := x.j.records.byID[p.value]
		return sent && x.stands(n, by)
	}
}

// stands tells whether a send is of no transaction, or of one that was known to
// be committed by an event.
func (x *txns) stands(n int32, by int64) bool {
	s := &x.j.records.sends[n]
	if s.txn < 0 {
		return true
	}
	at, ok := x.list[s.txn].committed()
	return ok && at.i <= by
}

// known is since when a record that counts was to be read.
func (x *txns) known(p *sight) int64 {
	s := &x.j.records.sends[x.j.records.byID[p.value]]
	if s.txn < 0 {
		return p.first.t
	}
	at, _ := x.list[s.txn].committed()
	return at.t
}

// last is when something last happened that may hold a last stable offset back.
func (x *txns) last() int64 {
	last := x.when
	for _, heal := range x.j.faults.heals {
		last = max(last, heal.t)
	}
	return last
}

// over is when nothing holds a last stable offset back any more.
func (x *txns) over() int64 { return x.last() + int64(x.j.rules.TxnTimeout) + txnGrace }

// txnGrace is how long after its time a transaction may still be open.
const txnGrace = 10e9

// stuck is C17: an end that was asked for and never answered.
func (x *txns) stuck() {
	for n := range x.list {
		t := &x.list[n]
		if t.asked.i == 0 {
			continue
		}
		life := span{t.asked.t, x.j.last}
		if t.state != Invoke {
			life.to = t.ended.t
		}
		if calm := x.j.faults.calmest(life); calm.length() >= int64(x.j.rules.Stuck) {
			x.j.broken("C17", "transaction %s, whose end was asked for by %s, did not end between %s and %s, without a fault",
				x.ids.names[n], x.j.at(t.asked), seconds(calm.from), seconds(calm.to))
		}
	}
}
