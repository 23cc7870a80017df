package consumer

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/broker/group"
)

// FromClassic returns the consumer group that a classic group of consumers
// becomes when the first member of the new protocol joins it. Its members keep
// what they were assigned, and their generation becomes the epoch.
func FromClassic(id string, cfg *Config, timing Timing, img *Image, s *group.Snapshot, now time.Time) (*Group, *kerr.Error) {
	switch {
	case !cfg.Migration.Upgrades():
		return nil, refuse(kerr.GroupIDNotFound, "Group %s is not a consumer group, and online upgrades are disabled.", id)
	case s.ProtocolType != protocolType:
		return nil, refuse(kerr.GroupIDNotFound, "Group %s is not a group of consumers.", id)
	case len(s.Members) > cfg.MembersMax:
		return nil, refuse(kerr.GroupIDNotFound, "Group %s has more members than a consumer group may have.", id)
	}
	g := New(id, cfg, now)
	g.timing, g.img = timing, img
	g.begin(now)
	g.epoch, g.assignmentEpoch = s.Generation, s.Generation
	for i := range s.Members {
		m, err := g.adopt(&s.Members[i], img)
		if err != nil {
			return nil, refuse(kerr.GroupIDNotFound, "Group %s cannot become a consumer group: %s", id, err.Description)
		}
		g.put(m)
		g.awakeSession(m)
	}
	g.refreshDigest()
	return g, nil
}

// adopt makes a member of a classic one. What two members were assigned is only
// the first one's.
func (g *Group) adopt(s *group.SnapshotMember, img *Image) (*Member, *kerr.Error) {
	sub, err := parseSubscription(s.Protocols, img)
	if err != nil {
		return nil, err
	}
	set, err := parseAssignment(s.Assignment, img)
	if err != nil {
		return nil, err
	}
	m := &Member{
		ID: s.ID, Instance: s.Instance, Rack: sub.rack, ClientID: s.ClientID, ClientHost: s.ClientHost,
		RebalanceTimeout: s.RebalanceTimeout, Topics: sub.topics,
		Epoch: g.epoch, Previous: g.epoch,
		Classic: &Classic{SessionTimeout: s.SessionTimeout, Protocols: s.Protocols},
	}
	for _, tp := range set {
		if _, taken := g.owners[tp]; !taken {
			m.Assigned = append(m.Assigned, Held{tp, g.epoch})
			m.Target = append(m.Target, tp)
		}
	}
	return m, nil
}

// ToClassic describes the classic group that this group becomes when only
// classic members are left. It is to rebalance at once.
func (g *Group) ToClassic() *group.Snapshot {
	s := &group.Snapshot{Generation: g.epoch, ProtocolType: protocolType, Since: g.now}
	for _, id := range g.order {
		m := g.members[id]
		s.Members = append(s.Members, group.SnapshotMember{
			ID: m.ID, Instance: m.Instance, ClientID: m.ClientID, ClientHost: m.ClientHost,
			SessionTimeout: m.Classic.SessionTimeout, RebalanceTimeout: m.RebalanceTimeout,
			Protocols: m.Classic.Protocols, Assignment: encodeAssignment(m.Target, g.img, m.Classic.version()),
		})
	}
	return s
}

// DowngradesFor tells whether a classic join of a static member replaces the
// last member of the new protocol, so that the group should become a classic
// one first, without that member.
func (g *Group) DowngradesFor(r *group.JoinRequest) bool {
	if r.Instance == nil || r.MemberID != "" {
		return false
	}
	m := g.members[g.static[*r.Instance]]
	return m != nil && m.Classic == nil && g.classic == len(g.members)-1 && g.classic > 0 &&
		g.cfg.Migration.Downgrades() && len(g.members) <= g.cfg.ClassicMembersMax && g.supports(r)
}

// Replace removes the member that a joining static member replaces.
func (g *Group) Replace(now time.Time, instance string) Effects {
	g.begin(now)
	g.fence(g.static[instance])
	return g.take()
}
