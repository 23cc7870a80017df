package checker

import (
	"cmp"
	"slices"
)

// faults are the times in which something was wrong, and for whom.
type faults struct {
	list  []fault
	open  map[int64]int // by the event that began them
	heals []ref
	calm  []span // times without any fault, in order; set by finish
}

type fault struct {
	span
	kind, scope string
	targets     []string
	at          ref
}

// span is a time from its beginning to before its end.
type span struct{ from, to int64 }

func (s span) length() int64 { return s.to - s.from }

func (s span) within(o span) span { return span{max(s.from, o.from), min(s.to, o.to)} }

func (f *faults) event(e *Event, at ref) {
	if f.open == nil {
		f.open = make(map[int64]int)
	}
	switch {
	case e.F == FHeal:
		f.heals = append(f.heals, at)
		for call, n := range f.open {
			f.list[n].to = e.T
			delete(f.open, call)
		}
	case e.Type == Invoke:
		f.open[e.I] = len(f.list)
		f.list = append(f.list, fault{span{e.T, -1}, e.Fault, e.Scope, e.Target, at})
	default:
		if n, ok := f.open[e.Call]; ok {
			f.list[n].to = e.T
			delete(f.open, e.Call)
		}
	}
}

// finish ends what is still going on and finds the calm times.
func (f *faults) finish(last int64) {
	for _, n := range f.open {
		f.list[n].to = last
	}
	sorted := slices.Clone(f.list)
	slices.SortStableFunc(sorted, func(a, b fault) int { return cmp.Compare(a.from, b.from) })
	begin := int64(0)
	for _, one := range sorted {
		if one.from > begin {
			f.calm = append(f.calm, span{begin, one.from})
		}
		begin = max(begin, one.to)
	}
	f.calm = append(f.calm, span{begin, max(begin, last)})
}

// calmest is the longest calm time within s.
func (f *faults) calmest(s span) (longest span) {
	for _, c := range f.calm {
		if in := c.within(s); in.length() > longest.length() {
			longest = in
		}
	}
	return longest
}

// quiet tells whether no fault but the n-th touches s.
func (f *faults) quiet(s span, but int) bool {
	for n := range f.list {
		if n != but && f.list[n].from < s.to && f.list[n].to > s.from {
			return false
		}
	}
	return true
}
