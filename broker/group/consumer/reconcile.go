package consumer

import (
	"slices"

	"github.com/tidemark-io/tidemark/metadata"
)

// reconcile moves m towards its target as far as it can go now. changed tells
// that its subscription is another one than before: then it gives up what it is
// no longer subscribed to without waiting for a target that says so.
func (g *Group) reconcile(m *Member, s step, changed bool) *Member {
	if m.reconciled(g.assignmentEpoch) && !changed {
		return m
	}
	next := m
	if m.State == Unrevoked && (!s.sent || owns(s.owned, m.Revoking)) {
		if changed {
			next = g.strip(m)
		}
	} else {
		next = g.next(m, s)
	}
	if next == m {
		return m
	}
	g.put(next)
	if next.Classic == nil {
		l := g.lives[m.ID]
		l.rebalance = never
		if next.State == Unrevoked {
			l.rebalance = g.deadline(next.RebalanceTimeout)
		}
	}
	if next.reconciled(g.epoch) && g.stable() {
		g.out.Completed++
	}
	return next
}

// strip has a member that is giving up partitions give up those of topics it is
// no longer subscribed to as well.
func (g *Group) strip(m *Member) *Member {
	keep, revoke := split(m.Assigned, func(h Held) bool { return g.subscribedTo(m, h.TopicPartition) })
	if len(revoke) == 0 {
		return m
	}
	return m.with(func(c *Member) { c.Assigned, c.Revoking = keep, merged(m.Revoking, revoke) })
}

// next is the member's next state towards the target.
func (g *Group) next(m *Member, s step) *Member {
	target := slices.DeleteFunc(slices.Clone(m.Target), func(tp metadata.TopicPartition) bool { return !g.subscribedTo(m, tp) })
	keep, revoke := split(m.Assigned, func(h Held) bool { return contains(target, h.TopicPartition) })
	if len(revoke) > 0 && (!s.sent || owns(s.owned, revoke)) {
		// It stays in its epoch until it has given these up.
		return m.with(func(c *Member) { c.State, c.Assigned, c.Revoking = Unrevoked, keep, revoke })
	}
	assigned, state := keep, Stable
	for _, tp := range target {
		if _, has := find(keep, tp); has {
			continue
		}
		if owner, taken := g.owners[tp]; taken && owner != m.ID {
			state = Unreleased
			continue
		}
		assigned = append(assigned, Held{tp, g.assignmentEpoch})
	}
	slices.SortFunc(assigned, compareHeld)
	if m.Epoch == g.assignmentEpoch && m.State == state && len(m.Revoking) == 0 && slices.Equal(assigned, m.Assigned) {
		return m
	}
	return m.advanced(g.assignmentEpoch, func(c *Member) { c.State, c.Assigned, c.Revoking = state, assigned, nil })
}

// split divides a set in two new ones.
func split(held []Held, keeps func(Held) bool) (keep, rest []Held) {
	for _, h := range held {
		if keeps(h) {
			keep = append(keep, h)
		} else {
			rest = append(rest, h)
		}
	}
	return keep, rest
}

// subscribedTo tells whether m wants the partition's topic, if that exists.
func (g *Group) subscribedTo(m *Member, tp metadata.TopicPartition) bool {
	t, ok := g.img.TopicByID(tp.Topic)
	return ok && g.wants(m, t.Name)
}

// stable tells whether every member has reached the target of the group epoch.
func (g *Group) stable() bool {
	if g.epoch != g.assignmentEpoch {
		return false
	}
	for _, m := range g.members {
		if !m.reconciled(g.epoch) {
			return false
		}
	}
	return true
}
