package checker

import (
	"math"
	"sort"
)

// groups are C13 and C14.
type groups struct {
	j       *Judge
	offsets map[groupKey]*committed
	by      map[string]*generations
}

type groupKey struct {
	group string
	key   int32
}

// committed is what is known of one group's offset of one partition.
type committed struct {
	commits []commit
	byValue map[int64][]int // commits, by offset
	byCall  map[int64]int   // commits, by the event that invoked them
	// over are the invocations of commits that are known to have happened, by
	// when that was known.
	over moments
}

type commit struct {
	offset         int64
	invoked, ended int64 // events; ended is never while nobody knows that it happened
	refused        bool
	at             ref
}

const never = math.MaxInt64

// moments are kept so that the greatest value up to an event is found: events
// rise, and of the values only those that exceed all before them are kept.
type moments []moment

type moment struct {
	i, value int64
	commit   int
}

func (m *moments) add(i, value int64, commit int) {
	if n := len(*m); n > 0 && (*m)[n-1].value >= value {
		return
	}
	*m = append(*m, moment{i, value, commit})
}

func (m moments) at(i int64) (moment, bool) {
	n := sort.Search(len(m), func(n int) bool { return m[n].i > i })
	if n == 0 {
		return moment{}, false
	}
	return m[n-1], true
}

func (g *groups) of(group string, key int32) *committed {
	if g.offsets == nil {
		g.offsets = make(map[groupKey]*committed)
	}
	c := g.offsets[groupKey{group, key}]
	if c == nil {
		c = &committed{byValue: make(map[int64][]int), byCall: make(map[int64]int)}
		g.offsets[groupKey{group, key}] = c
	}
	return c
}

func (g *groups) commit(e *Event, at ref) {
	if e.Type == OK {
		g.j.v.Committed++
		g.late(e, at)
	}
	for _, op := range e.Ops {
		c := g.of(e.Group, g.j.keys.id(op.Key))
		if e.Type == Invoke {
			n := len(c.commits)
			c.commits = append(c.commits, commit{offset: op.Offset, invoked: e.I, ended: never, at: at})
			c.byValue[op.Offset] = append(c.byValue[op.Offset], n)
			c.byCall[e.I] = n
			continue
		}
		n, ok := c.byCall[e.Call]
		if !ok {
			continue
		}
		delete(c.byCall, e.Call)
		switch e.Type {
		case Fail:
			c.commits[n].refused = true
		case OK:
			c.happened(n, e.I)
		}
	}
}

// happened notes that commit n was made before an event.
func (c *committed) happened(n int, by int64) {
	if m := &c.commits[n]; by < m.ended {
		m.ended = by
		c.over.add(by, m.invoked, n)
	}
}

// fetch judges an OffsetFetch: it sees the newest commit that was made before it
// began, or one that no other certainly came after.
func (g *groups) fetch(e *Event, at ref) {
	if e.Type != OK {
		return
	}
	j := g.j
	for _, op := range e.Ops {
		j.v.Fetched++
		key := j.keys.id(op.Key)
		c := g.of(e.Group, key)
		last, any := c.over.at(e.Call)
		if op.Offset < 0 {
			if any {
				m := &c.commits[last.commit]
				j.broken("C13", "%s is told that %s has no offset of %s; %d was committed by %s", j.at(at), e.Group, op.Key, m.offset, j.at(m.at))
			}
			continue
		}
		var can []int
		refused := false
		for _, n := range c.byValue[op.Offset] {
			m := &c.commits[n]
			if refused = refused || m.refused; !m.refused && (!any || m.ended > last.value) {
				can = append(can, n)
			}
		}
		switch {
		case len(can) == 1:
			c.happened(can[0], e.I) // now it is known
		case len(can) > 1:
		case any:
			m := &c.commits[last.commit]
			j.broken("C13", "%s is told that %s is at %d in %s; %d was committed by %s, and nothing can have put that back", j.at(at), e.Group, op.Offset, op.Key, m.offset, j.at(m.at))
		case refused:
			j.broken("C13", "%s is told that %s is at %d in %s, which was refused", j.at(at), e.Group, op.Offset, op.Key)
		default:
			j.broken("C13", "%s is told that %s is at %d in %s, which nobody committed", j.at(at), e.Group, op.Offset, op.Key)
		}
	}
}

// generations are what members of one group were told.
type generations struct {
	stable []moment // when a generation was first known to be stable; both rise
	who    map[int32]ref
	owners map[owned]owner
}

type owned struct {
	generation int32
	key        int32
}

type owner struct {
	member string
	at     ref
}

func (g *groups) stable(e *Event, at ref) {
	if g.by == nil {
		g.by = make(map[string]*generations)
	}
	gs := g.by[e.Group]
	if gs == nil {
		gs = &generations{who: make(map[int32]ref), owners: make(map[owned]owner)}
		g.by[e.Group] = gs
	}
	if n := len(gs.stable); n == 0 || gs.stable[n-1].value < int64(e.Gen) {
		gs.stable = append(gs.stable, moment{i: e.I, value: int64(e.Gen)})
		gs.who[e.Gen] = at
	}
	for _, op := range e.Ops {
		o := owned{e.Gen, g.j.keys.id(op.Key)}
		if before, ok := gs.owners[o]; ok && before.member != e.Member {
			g.j.broken("C14", "in generation %d of %s, %s belongs to %s for %s and to %s for %s", e.Gen, e.Group, op.Key,
				before.member, g.j.at(before.at), e.Member, g.j.at(at))
		}
		gs.owners[o] = owner{e.Member, at}
	}
}

// late judges a commit that was accepted: when it began, no later generation was
// stable. Commits of no member have no generation.
func (g *groups) late(e *Event, at ref) {
	gs := g.by[e.Group]
	if gs == nil || e.Gen < 0 {
		return
	}
	if newest, ok := moments(gs.stable).at(e.Call); ok && newest.value > int64(e.Gen) {
		g.j.broken("C14", "%s commits in generation %d of %s, when generation %d was stable for %s", g.j.at(at), e.Gen, e.Group,
			newest.value, g.j.at(gs.who[int32(newest.value)]))
	}
}
