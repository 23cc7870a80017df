package checker

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Judge takes a history event by event and keeps of it what the verdict needs,
// about 200 bytes a record. It is not for several goroutines.
type Judge struct {
	rules Rules
	v     Verdict

	procs  table[string]
	keys   table[Key]
	last   int64 // T of the last event
	faults faults

	records    records
	order      order
	readers    readers
	scans      scans
	watermarks watermarks
	groups     groups
	txns       txns
}

// table numbers names.
type table[K comparable] struct {
	ids   map[K]int32
	names []K
}

func (t *table[K]) id(k K) int32 {
	if t.ids == nil {
		t.ids = make(map[K]int32)
	}
	id, ok := t.ids[k]
	if !ok {
		id = int32(len(t.names))
		t.ids[k] = id
		t.names = append(t.names, k)
	}
	return id
}

// ref names an event.
type ref struct {
	i, t int64
	proc int32
}

// NewJudge is a judge of an empty history.
func NewJudge(r Rules) *Judge {
	r.ensureDefaults()
	j := &Judge{rules: r, v: Verdict{Broken: make(map[string]int)}}
	j.records.j, j.order.j, j.readers.j, j.scans.j, j.watermarks.j, j.groups.j, j.txns.j = j, j, j, j, j, j, j
	return j
}

// Event takes the next event.
func (j *Judge) Event(e *Event) {
	at := ref{e.I, e.T, j.procs.id(e.Proc)}
	j.last = max(j.last, e.T)
	j.v.Counts.add(e)
	switch e.F {
	case FSend:
		j.records.send(e, at)
	case FPoll, FScan:
		j.records.poll(e, at)
		j.readers.poll(e, at)
		j.watermarks.poll(e, at)
		if e.F == FScan {
			j.scans.poll(e, at)
		}
	case FAssign, FSub, FReset, FClose:
		j.readers.control(e, at)
	case FList:
		j.watermarks.list(e, at)
	case FCommit:
		j.groups.commit(e, at)
	case FFetch:
		j.groups.fetch(e, at)
	case FGroup:
		j.groups.stable(e, at)
		j.readers.control(e, at)
	case FTxn:
		j.txns.end(e, at)
	case FFault, FHeal:
		j.faults.event(e, at)
	}
}

// Verdict judges the history as it stands. Call it once, after the last event.
func (j *Judge) Verdict() *Verdict {
	j.faults.finish(j.last)
	j.txns.finish()
	j.readers.finish()
	j.records.finish()
	j.order.finish()
	j.scans.finish()
	j.watermarks.finish()
	j.liveness()
	j.progress()
	j.audited()
	j.v.Known, j.v.Faults = j.records.known(), len(j.faults.list)
	j.v.Consumers, j.v.LastsFor = len(j.readers.by), time.Duration(j.last)
	number := func(id string) int { n, _ := strconv.Atoi(id[1:]); return n }
	slices.SortStableFunc(j.v.Violations, func(a, b Violation) int { return cmp.Compare(number(a.ID), number(b.ID)) })
	return &j.v
}

func (j *Judge) broken(id, format string, args ...any) {
	j.v.Broken[id]++
	if j.v.Broken[id] <= shownMax {
		j.v.Violations = append(j.v.Violations, Violation{id, fmt.Sprintf(format, args...)})
	}
}

// at tells of an event: who, which, when.
func (j *Judge) at(r ref) string {
	return fmt.Sprintf("%s in event %d at %s", j.procs.names[r.proc], r.i, seconds(r.t))
}

func (j *Judge) key(k int32) Key { return j.keys.names[k] }

func seconds(t int64) string {
	return strconv.FormatFloat(time.Duration(t).Seconds(), 'f', 3, 64) + " s"
}
