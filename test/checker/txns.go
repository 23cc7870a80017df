package checker

import (
	"cmp"
	"slices"
)

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

func (x *txns) finish() {
	for n := range x.list {
		t := &x.list[n]
		if len(t.sends) == 0 {
			continue
		}
		x.j.v.Transactions++
		if t.aborted() {
			x.j.v.Aborts++
			x.refused(int32(n))
		} else if _, ok := t.committed(); ok {
			x.j.v.Commits++
			x.whole(int32(n))
		}
		if !t.aborted() && t.early.i > 0 {
			x.j.broken("C6", "%s reads %s before the commit of transaction %s was asked for", x.j.at(t.early), x.j.records.name(t.read), x.ids.names[n])
		}
	}
	x.cycles()
	for _, c := range x.j.rules.Copies {
		x.copied(c)
	}
}

// refused is C5: nothing of a transaction that was aborted is read at
// read_committed.
func (x *txns) refused(txn int32) {
	for _, n := range x.list[txn].sends {
		if s := &x.j.records.sends[n]; s.stable {
			x.j.broken("C5", "%s is of transaction %s, which was aborted, and was read at read_committed first by %s",
				x.j.records.name(n), x.ids.names[txn], x.j.at(x.list[txn].seen))
		}
	}
}

// whole is C11, or C1 when nothing of it is left: all of a transaction that was
// committed is read, where somebody read as far.
func (x *txns) whole(txn int32) {
	j, t := x.j, &x.list[txn]
	for _, n := range t.sends {
		s := &j.records.sends[n]
		l := j.records.log(s.key)
		switch {
		case s.state != OK || s.stable || s.acked < l.start || s.acked > l.stable:
		case t.seen.i > 0:
			j.broken("C11", "%s, acknowledged at offset %d, was read by nobody at read_committed, who read up to %d; of the same transaction %s, %s was read by %s",
				j.records.name(n), s.acked, l.stable, x.ids.names[txn], j.records.name(t.read), j.at(t.seen))
		default:
			j.broken("C1", "%s, acknowledged at offset %d, was read by nobody at read_committed, who read up to %d, though transaction %s was committed to %s",
				j.records.name(n), s.acked, l.stable, x.ids.names[txn], j.at(t.ended))
		}
	}
}

// cycles is C7: no transaction reads what depends on it. Transactions that
// nobody in the rest depends on are taken away until none is left, or each is in
// a cycle or behind one.
func (x *txns) cycles() {
	in := make(map[int32]int)
	for _, to := range x.wr {
		for n := range to {
			in[n]++
		}
	}
	var free []int32
	for n := range x.wr {
		if in[n] == 0 {
			free = append(free, n)
		}
	}
	for len(free) > 0 {
		n := free[len(free)-1]
		free = free[:len(free)-1]
		for to := range x.wr[n] {
			if in[to]--; in[to] == 0 {
				delete(in, to)
				free = append(free, to)
			}
		}
	}
	var left []int32
	for n := range in {
		left = append(left, n)
	}
	if len(left) == 0 {
		return
	}
	slices.Sort(left)
	for _, n := range left {
		for to, at := range x.wr[n] {
			if in[to] > 0 {
				x.j.broken("C7", "%d transactions read from each other, or from such: %s reads in %s what %s wrote", len(left), x.j.at(at), x.ids.names[to], x.ids.names[n])
				return
			}
		}
	}
}

// copied is C15: each record of a topic has one copy in the other, and between
// two partitions the copies lie in the order of the records.
func (x *txns) copied(c Copy) {
	j := x.j
	copies := make(map[uint64]int)
	between := make(map[[2]int32][]int32)
	for n, o := range x.of {
		s := &j.records.sends[n]
		if !s.stable || j.key(s.key).Topic != c.To || j.key(o.key).Topic != c.From {
			continue
		}
		copies[o.value]++
		between[[2]int32{o.key, s.key}] = append(between[[2]int32{o.key, s.key}], n)
	}
	for n := range j.records.sends {
		s := &j.records.sends[n]
		if j.key(s.key).Topic != c.From || s.state != OK && s.seen < 0 || !x.stands(int32(n), never) {
			continue
		}
		j.v.Copied++
		if found := copies[s.value]; found != 1 {
			j.broken("C15", "%s has %d copies in %s", j.records.name(int32(n)), found, c.To)
		}
		delete(copies, s.value)
	}
	for value := range copies {
		j.broken("C15", "%s holds a copy of value %d, which %s does not hold", c.To, value, c.From)
	}
	for _, list := range between {
		x.ordered(list)
	}
}

func (x *txns) ordered(list []int32) {
	j := x.j
	slices.SortFunc(list, func(a, b int32) int { return cmp.Compare(j.records.sends[a].seen, j.records.sends[b].seen) })
	for i := 1; i < len(list); i++ {
		before, n := x.of[list[i-1]], x.of[list[i]]
		if n.offset < before.offset {
			j.broken("C15", "%s is a copy of offset %d of %s and lies behind that of offset %d", j.records.name(list[i]), n.offset, j.key(n.key), before.offset)
		}
	}
}
