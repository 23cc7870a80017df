package checker

import (
	"cmp"
	"slices"
)

// finish judges what only the whole history shows of transactions.
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
