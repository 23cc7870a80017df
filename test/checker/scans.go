package checker

import (
	"fmt"
	"slices"
	"strings"
)

// scans are C2: the last reads of the whole log.
type scans struct {
	j  *Judge
	by map[stream]*scan
}

// scan is one fresh consumer's read of one partition.
type scan struct {
	node   string
	after  int64 // the last event before it began
	first  ref
	read   []int64
	start  int64
	hw     int64 // -1 until told; the last stable offset of one that reads what is committed
	stable bool
	err    string
}

func (s *scans) poll(e *Event, at ref) {
	if s.by == nil {
		s.by = make(map[stream]*scan)
	}
	for _, op := range e.Ops {
		k := s.j.keys.id(op.Key)
		sc := s.by[stream{at.proc, k}]
		if sc == nil {
			sc = &scan{node: e.Node, after: e.After, first: at, hw: -1, stable: e.Isol == ReadCommitted}
			s.by[stream{at.proc, k}] = sc
		}
		for _, rec := range op.Records {
			sc.read = append(sc.read, rec.Offset)
		}
		if op.Kind == 'w' {
			end := op.Marks.HW
			if sc.stable {
				end = op.Marks.LSO
				l := s.j.records.log(k)
				l.stable = max(l.stable, end-1)
			}
			sc.hw, sc.start = max(sc.hw, end), max(sc.start, op.Marks.Start)
		}
	}
	if e.Type != OK {
		for id, sc := range s.by {
			if id.proc == at.proc {
				sc.err = e.Err
			}
		}
	}
}

func (s *scans) finish() {
	full := make(map[string]map[int32]int) // scans by node and key
	for id, sc := range s.by {
		s.judge(id, sc)
		s.j.v.Scans++
		if sc.stable {
			continue // beside the two that see everything
		}
		if full[sc.node] == nil {
			full[sc.node] = make(map[int32]int)
		}
		full[sc.node][id.key]++
	}
	for _, node := range s.j.rules.Nodes {
		var few []string
		for k := range s.j.records.logs {
			if _, any := s.j.records.logs[k].between(-1, 1<<62, s.j.txns.counts(false, never)); any && full[node][int32(k)] < 2 {
				few = append(few, fmt.Sprintf("%s by %d", s.j.key(int32(k)), full[node][int32(k)]))
			}
		}
		if slices.Sort(few); len(few) > 0 {
			s.j.broken("C2", "two fresh consumers at %s shall read the whole log; it was read: %s", node, strings.Join(few, ", "))
		}
	}
}

func (s *scans) judge(id stream, sc *scan) {
	j := s.j
	who := func() string {
		return fmt.Sprintf("the scan of %s at %s by %s", j.key(id.key), sc.node, j.at(sc.first))
	}
	if sc.err != "" {
		j.broken("C2", "%s failed: %s", who(), sc.err)
	}
	if sc.hw < 0 {
		j.broken("C2", "%s knows no high watermark, so nobody knows whether it is complete", who())
		return
	}
	slices.Sort(sc.read)
	if !sc.stable {
		s.holes(id, sc, who)
	}
	counts := j.txns.counts(sc.stable, sc.after)
	// What was acknowledged or read before the scan began is in it.
	j.records.log(id.key).each(func(offset int64, p *sight) {
		if p.first.i > sc.after || offset < sc.start || !counts(p) {
			return
		}
		if offset >= sc.hw {
			j.broken("C2", "%s ends at %d; %s at offset %d is known to %s", who(), sc.hw,
				j.records.name(j.records.byID[p.value]), offset, j.at(p.first))
		} else if _, ok := slices.BinarySearch(sc.read, offset); !ok {
			j.broken("C2", "%s misses %s at offset %d, known to %s", who(), j.records.name(j.records.byID[p.value]), offset, j.at(p.first))
		}
	})
}

// holes: below the high watermark every offset is a record.
func (s *scans) holes(id stream, sc *scan, who func() string) {
	if s.j.txns.keys[id.key] || s.j.rules.Holes(s.j.key(id.key).Topic) {
		return
	}
	next := sc.start
	for _, o := range sc.read {
		if o > next && o <= sc.hw {
			s.j.broken("C2", "%s finds nothing at offsets %d to %d", who(), next, o-1)
		}
		next = max(next, o+1)
	}
	if next < sc.hw {
		s.j.broken("C2", "%s finds nothing at offsets %d to %d, below high watermark %d", who(), next, sc.hw-1, sc.hw)
	}
}
