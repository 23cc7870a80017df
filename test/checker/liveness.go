package checker

import (
	"sort"
	"strings"
)

// liveness is C17, but for the last stable offset.
func (j *Judge) liveness() {
	demand := j.demand()
	for _, heal := range j.faults.heals {
		window := span{heal.t, heal.t + int64(j.rules.FirstAck)}
		if window.to > j.last || !j.faults.quiet(window, -1) {
			continue // it ended, or something else began, too soon to tell
		}
		for key, sends := range demand {
			if asked, acked := j.answered(sends, window); asked >= 0 && !acked {
				j.broken("C17", "nothing was acknowledged by %s within %s of the heal told by %s, %s for one",
					j.key(key), seconds(window.length()), j.at(heal), j.records.name(asked))
			}
		}
	}
	j.stuckSends()
	j.stuckReaders()
	j.txns.stuck()
}

// demand is the sends to each partition, but those that were refused for good.
func (j *Judge) demand() map[int32][]int32 {
	by := make(map[int32][]int32)
	for n := range j.records.sends {
		if s := &j.records.sends[n]; s.state != Fail {
			by[s.key] = append(by[s.key], int32(n))
		}
	}
	return by
}

// answered tells of a window whether something waited to be acknowledged through
// most of it (a send, or -1), and whether anything was.
func (j *Judge) answered(sends []int32, window span) (asked int32, acked bool) {
	asked = -1
	latest := window.from + window.length()/3
	// They are in the order of their beginnings. One that waits for longer than
	// this when the window begins is stuck, and told as that.
	first := sort.Search(len(sends), func(i int) bool {
		return j.records.sends[sends[i]].invoked.t >= window.from-2*int64(j.rules.Stuck)
	})
	for _, n := range sends[first:] {
		s := &j.records.sends[n]
		if s.invoked.t > window.to {
			break
		}
		if s.state == OK && s.ended.t >= window.from && s.ended.t <= window.to {
			return asked, true
		}
		if s.invoked.t <= latest && (s.state == Invoke || s.ended.t > window.from) {
			asked = n
		}
	}
	return asked, false
}

// stuckSends are those that nobody answered for too long without a fault.
func (j *Judge) stuckSends() {
	for n := range j.records.sends {
		s := &j.records.sends[n]
		life := span{s.invoked.t, j.last}
		if s.state != Invoke {
			life.to = s.ended.t
		}
		if life.length() < int64(j.rules.Stuck) {
			continue
		}
		if calm := j.faults.calmest(life); calm.length() >= int64(j.rules.Stuck) {
			j.broken("C17", "%s was not decided between %s and %s, without a fault", j.records.name(int32(n)), seconds(calm.from), seconds(calm.to))
		}
	}
}

// stuckReaders had something to read and no fault, and did not read it.
func (j *Judge) stuckReaders() {
	for _, s := range j.readers.stops {
		since, what := j.unread(s)
		calm := j.faults.calmest(span{max(s.from, since), s.to})
		if since < never && calm.length() >= int64(j.rules.Stuck) {
			j.broken("C17", "%s read nothing of %s between %s and %s, without a fault; offset %d was there for %s",
				j.procs.names[s.proc], j.key(s.key), seconds(calm.from), seconds(calm.to), what, j.at(j.records.log(s.key).at(what).first))
		}
	}
}

// unread is since when a record was known that a stopped consumer had before
// it, and which. One that did not know its position waits for new ones.
func (j *Judge) unread(s stop) (since, offset int64) {
	since = never
	counts := j.txns.counts(s.stable, never)
	j.records.log(s.key).each(func(o int64, p *sight) {
		if !counts(p) {
			return
		}
		first := p.first.t
		if s.stable {
			first = max(first, j.txns.known(p))
		}
		if first < since && (s.next >= 0 && o >= s.next || s.next < 0 && first > s.from) {
			since, offset = first, o
		}
	})
	return since, offset
}

// progress is C18: a cluster goes on without a minority. Windows in which
// another fault is going on, or began shortly before, say nothing.
func (j *Judge) progress() {
	var demand map[int32][]int32
	failover, width := int64(j.rules.Failover), int64(j.rules.FirstAck)
	for n := range j.faults.list {
		f := &j.faults.list[n]
		if f.scope != Minority || f.length() < failover+width || !j.faults.quiet(f.span, n) {
			continue
		}
		if demand == nil {
			demand = j.demand()
		}
		for w := (span{f.from + failover, f.from + failover + width}); w.to <= f.to; w = (span{w.to, w.to + width}) {
			for key, sends := range demand {
				if asked, acked := j.answered(sends, w); asked >= 0 && !acked {
					j.broken("C18", "nothing was acknowledged by %s between %s and %s, %s for one, while only %s suffered %s since %s",
						j.key(key), seconds(w.from), seconds(w.to), j.records.name(asked), strings.Join(f.targets, ", "), f.kind, seconds(f.from))
				}
			}
		}
	}
}

// audited is C16.
func (j *Judge) audited() {
	a := j.rules.Audit
	if a == nil {
		return
	}
	for _, p := range a.Problems {
		j.broken("C16", "%s of %s: %s", p.Kind, p.Where, p.What)
	}
	if !a.Clean && len(a.Problems) == 0 {
		j.broken("C16", "the audit is not clean and names no problem")
	}
	if a.Topic != "" {
		return // it looked at one topic only
	}
	stored := make(map[string]int64)
	for _, t := range a.Topics {
		stored[t.Name] = t.Records
	}
	known := make(map[string]int64)
	for k := range j.records.logs {
		l := &j.records.logs[k]
		l.each(func(offset int64, _ *sight) {
			if offset >= l.start { // what lies below need not be there any more
				known[j.key(int32(k)).Topic]++
			}
		})
	}
	for topic, n := range known {
		if stored[topic] < n && !j.rules.Holes(topic) {
			j.broken("C16", "the audit finds %d records of %s; %d are known", stored[topic], topic, n)
		}
	}
}
