package consumer

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// leave ends a membership, or, of a static member with epoch -2, interrupts it:
// its partitions wait for it until its session ends.
func (g *Group) leave(img *Image, r Request) (Reply, *kerr.Error) {
	g.look(img)
	m := g.members[r.MemberID]
	if r.Instance != nil {
		id, known := g.static[*r.Instance]
		switch {
		case !known:
			return Reply{}, refuse(kerr.UnknownMemberID, "Instance id %s is unknown.", *r.Instance)
		case id != r.MemberID:
			return Reply{}, fencedInstance(r.MemberID, *r.Instance, id)
		}
		m = g.members[id]
	}
	if m == nil {
		return Reply{}, refuse(kerr.UnknownMemberID, "Member %s is not a member of group %s.", r.MemberID, g.id)
	}
	if r.Epoch == leaveStaticEpoch && m.Classic == nil {
		g.put(m.with(func(c *Member) { c.Epoch, c.Revoking = leaveStaticEpoch, nil }))
		g.lives[m.ID].rebalance = never
	} else {
		g.fence(m.ID)
	}
	return Reply{MemberID: r.MemberID, Epoch: r.Epoch}, nil
}

// fence removes members; those who remain get a new target.
func (g *Group) fence(ids ...string) {
	for _, id := range ids {
		g.drop(id)
	}
	if g.img != nil {
		g.refreshDigest()
	}
	g.bump()
	if n := len(g.members); n > 0 && n == g.classic && n <= g.cfg.ClassicMembersMax && g.cfg.Migration.Downgrades() {
		g.out.Downgrade = true
	}
}

// deadline is d from now.
func (g *Group) deadline(d time.Duration) time.Time {
	t := g.now.Add(d)
	if g.wake.IsZero() || t.Before(g.wake) {
		g.wake = t
	}
	return t
}

// Deadline is when Tick has to be called at the latest; false when the group
// waits for nothing. It may be early: heartbeats do not move it.
func (g *Group) Deadline() (time.Time, bool) { return g.wake, !g.wake.IsZero() }

// Tick removes the members of which a deadline has come.
func (g *Group) Tick(now time.Time) Effects {
	g.begin(now)
	var late []string
	for _, id := range g.order {
		if due := g.lives[id].next(); !due.IsZero() && !due.After(now) {
			late = append(late, id)
		}
	}
	if len(late) > 0 {
		g.fence(late...)
	}
	g.wake = never
	for _, l := range g.lives {
		if t := l.next(); g.wake.IsZero() || !t.IsZero() && t.Before(g.wake) {
			g.wake = t
		}
	}
	return g.take()
}

// next is the first of the deadlines.
func (l *life) next() time.Time {
	first := never
	for _, t := range []time.Time{l.session, l.rebalance, l.join, l.sync} {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// Unload ends the group here, because it goes elsewhere. Nothing is parked.
func (g *Group) Unload() { g.dead = true }
