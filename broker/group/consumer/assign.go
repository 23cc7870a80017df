package consumer

import (
	"cmp"
	"slices"
	"time"

	"github.com/tidemark-io/tidemark/broker/group/assignor"
)

// assign computes everybody's target for the group epoch.
func (g *Group) assign() {
	var topics []assignor.Topic
	index := map[string]int{}
	for _, name := range g.subscribed() {
		if t, ok := g.img.Topic(name); ok {
			index[name] = len(topics)
			topics = append(topics, assignor.Topic{ID: t.ID, Partitions: t.Partitions})
		}
	}
	order := g.assigningOrder()
	members := make([]assignor.Member, len(order))
	for i, m := range order {
		members[i] = assignor.Member{Topics: g.topicIndexes(m, index), Assigned: m.Target}
	}
	f, _ := assignor.Named(g.assignor())
	for i, target := range f(topics, members) {
		if m := order[i]; !slices.Equal(m.Target, target) {
			g.members[m.ID] = m.with(func(c *Member) { c.Target = target })
		}
	}
	g.assignmentEpoch, g.assignedAt = g.epoch, g.now
	g.changed = true
}

// assigningOrder sorts by what stays when a member restarts.
func (g *Group) assigningOrder() []*Member {
	order := make([]*Member, 0, len(g.order))
	for _, id := range g.order {
		order = append(order, g.members[id])
	}
	name := func(m *Member) string {
		if m.Instance != nil {
			return *m.Instance
		}
		return m.ID
	}
	slices.SortStableFunc(order, func(a, b *Member) int { return cmp.Compare(name(a), name(b)) })
	return order
}

func (g *Group) topicIndexes(m *Member, index map[string]int) []int {
	var out []int
	for _, names := range [][]string{m.Topics, g.matches[m.Regex].Topics} {
		for _, name := range names {
			if i, ok := index[name]; ok {
				out = append(out, i)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// assignor is what most of those who care ask for, or the default.
func (g *Group) assignor() string {
	votes := map[string]int{}
	for _, m := range g.members {
		if m.Assignor != "" {
			votes[m.Assignor]++
		}
	}
	chosen := g.cfg.Assignors[0]
	for _, name := range g.cfg.Assignors {
		if votes[name] > votes[chosen] {
			chosen = name
		}
	}
	return chosen
}

// resolve takes over what an expression matches and reports whether that changed.
func (g *Group) resolve(m Matches) bool {
	old, known := g.matches[m.Regex]
	if known && old.Version >= m.Version || g.regexes[m.Regex] == 0 {
		return false
	}
	g.matches[m.Regex] = m
	return !known || !slices.Equal(old.Topics, m.Topics)
}

// refreshRegexes asks what the group's expressions match now if topics have
// changed since they were last matched, but not too often.
func (g *Group) refreshRegexes(img *Image) {
	if len(g.regexes) == 0 || g.refreshing || g.now.Before(g.refreshed.Add(g.cfg.RegexRefreshMin)) {
		return
	}
	var stale []string
	for regex := range g.regexes {
		if m, known := g.matches[regex]; !known || m.Version < img.version {
			stale = append(stale, regex)
		}
	}
	if len(stale) > 0 {
		slices.Sort(stale)
		g.out.Resolve, g.refreshing, g.refreshed = stale, true, g.now
	}
}

// Resolved brings what the expressions asked for match in img.
func (g *Group) Resolved(now time.Time, img *Image, all []Matches) Effects {
	g.begin(now)
	g.refreshing = false
	changed := false
	for _, m := range all {
		changed = g.resolve(m) || changed
	}
	if changed && !g.dead {
		g.look(img)
		g.bump()
	}
	return g.take()
}
