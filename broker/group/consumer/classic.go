package consumer

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/broker/group"
)

// JoinClassic handles the join of a classic member. It need not wait for the
// others: it is told its epoch as generation, as a follower of a leader that
// does not exist, and comes for its assignment with a sync. The reply may be
// sent once the newest snapshot is durable.
func (g *Group) JoinClassic(now time.Time, img *Image, r group.JoinRequest) (group.JoinReply, Effects) {
	g.begin(now)
	if g.dead {
		return failedJoin(r.MemberID, kerr.CoordinatorNotAvailable), g.take()
	}
	reply, err := g.joinClassic(img, &r)
	if err != nil {
		id := r.MemberID
		if err == kerr.MemberIDRequired {
			id = r.NewMemberID
		}
		return failedJoin(id, err), g.take()
	}
	return reply, g.take()
}

func failedJoin(id string, err *kerr.Error) group.JoinReply {
	return group.JoinReply{Err: err, MemberID: id, Generation: group.NoGeneration}
}

func (g *Group) joinClassic(img *Image, r *group.JoinRequest) (group.JoinReply, *kerr.Error) {
	unknown := r.MemberID == ""
	if !g.supports(r) {
		return group.JoinReply{}, kerr.InconsistentGroupProtocol
	}
	if unknown && r.Instance == nil && r.RequireKnownID {
		if _, err := g.newMember(r.NewMemberID); err != nil {
			return group.JoinReply{}, err
		}
		return group.JoinReply{}, kerr.MemberIDRequired
	}
	sub, err := parseSubscription(r.Protocols, img)
	if err != nil {
		return group.JoinReply{}, err
	}
	old, replaced, err := g.findClassic(r)
	if err != nil {
		return group.JoinReply{}, err
	}
	updated := old.with(func(m *Member) {
		m.Instance, m.Rack, m.ClientID, m.ClientHost = r.Instance, sub.rack, r.ClientID, r.ClientHost
		m.RebalanceTimeout, m.Topics, m.Regex, m.Assignor = r.RebalanceTimeout, sub.topics, "", ""
		m.Classic = &Classic{SessionTimeout: r.SessionTimeout, Protocols: r.Protocols}
	})
	if updated.bytes() > g.cfg.MemberBytesMax {
		return group.JoinReply{}, kerr.MessageTooLarge
	}
	if replaced != nil {
		g.drop(replaced.ID)
	}
	m := g.settle(img, old, updated, step{owned: sub.owned, sent: true, urgent: true})
	g.awakeSession(m)
	l := g.lives[m.ID]
	l.join, l.rebalance, l.sync = never, never, g.deadline(r.RebalanceTimeout)
	kind, name := protocolType, r.Protocols[0].Name
	return group.JoinReply{MemberID: m.ID, Generation: m.Epoch, ProtocolType: &kind, Protocol: &name}, nil
}

// findClassic returns the member that joins, new if it has to be.
func (g *Group) findClassic(r *group.JoinRequest) (m, replaced *Member, err *kerr.Error) {
	id := r.MemberID
	if id == "" {
		id = r.NewMemberID
	}
	if r.Instance == nil {
		if m = g.members[id]; m == nil {
			m, err = g.newMember(id)
		}
		return m, nil, err
	}
	owner, known := g.static[*r.Instance]
	switch {
	case r.MemberID != "" && !known:
		return nil, nil, refuse(kerr.UnknownMemberID, "Instance id %s is unknown.", *r.Instance)
	case r.MemberID != "" && owner != r.MemberID:
		return nil, nil, fencedInstance(r.MemberID, *r.Instance, owner)
	case known && owner == id:
		return g.members[id], nil, nil
	case known:
		return g.members[owner].rejoined(id), g.members[owner], nil
	}
	m, err = g.newMember(id)
	return m, nil, err
}

// classicMember finds a classic member by what its requests name.
func (g *Group) classicMember(id string, instance *string, generation int32) (*Member, *kerr.Error) {
	if instance != nil {
		switch owner, known := g.static[*instance]; {
		case !known:
			return nil, kerr.UnknownMemberID
		case owner != id:
			return nil, kerr.FencedInstanceID
		}
	}
	m := g.members[id]
	if m == nil || m.Classic == nil {
		return nil, kerr.UnknownMemberID
	}
	if m.Epoch != generation {
		return nil, kerr.IllegalGeneration
	}
	return m, nil
}

// rejoins tells a classic member to join again, within its rebalance timeout.
func (g *Group) rejoins(m *Member) *kerr.Error {
	if l := g.lives[m.ID]; l.join.IsZero() {
		l.join = g.deadline(m.RebalanceTimeout)
	}
	return kerr.RebalanceInProgress
}

// SyncClassic gives a classic member its assignment.
func (g *Group) SyncClassic(now time.Time, r group.SyncRequest) (group.SyncReply, Effects) {
	g.begin(now)
	reply, err := g.syncClassic(&r)
	if err != nil {
		reply = group.SyncReply{Err: err}
	}
	return reply, g.take()
}

func (g *Group) syncClassic(r *group.SyncRequest) (group.SyncReply, *kerr.Error) {
	if g.dead {
		return group.SyncReply{}, kerr.CoordinatorNotAvailable
	}
	m, err := g.classicMember(r.MemberID, r.Instance, r.Generation)
	if err != nil {
		return group.SyncReply{}, err
	}
	kind, name := protocolType, m.Classic.Protocols[0].Name
	if r.ProtocolType != nil && *r.ProtocolType != kind || r.Protocol != nil && *r.Protocol != name {
		return group.SyncReply{}, kerr.InconsistentGroupProtocol
	}
	// One that has to give up partitions first has joined for that.
	if g.epoch > m.Epoch && m.State != Unrevoked {
		return group.SyncReply{}, g.rejoins(m)
	}
	g.lives[m.ID].sync = never
	g.awakeSession(m)
	return group.SyncReply{
		ProtocolType: &kind, Protocol: &name,
		Assignment: encodeAssignment(partitionsOf(m.Assigned), g.img, m.Classic.version()),
	}, nil
}

// HeartbeatClassic keeps a classic member's session, and calls it to join again
// when there is something new for it.
func (g *Group) HeartbeatClassic(now time.Time, img *Image, id string, instance *string, generation int32) (*kerr.Error, Effects) {
	g.begin(now)
	err := g.heartbeatClassic(img, id, instance, generation)
	return err, g.take()
}

func (g *Group) heartbeatClassic(img *Image, id string, instance *string, generation int32) *kerr.Error {
	if g.dead {
		return kerr.CoordinatorNotAvailable
	}
	m, err := g.classicMember(id, instance, generation)
	if err != nil {
		return err
	}
	g.awakeSession(m)
	// Nobody else may be there to notice that a topic has changed.
	if img.version > g.digestOf && g.look(img) {
		g.bump()
	}
	if m.Epoch < g.epoch || m.State == Unrevoked || m.State == Unreleased && !g.waits(m) {
		return g.rejoins(m)
	}
	return nil
}

// waits tells whether another member still has something of m's target.
func (g *Group) waits(m *Member) bool {
	for _, tp := range m.Target {
		if owner, taken := g.owners[tp]; taken && owner != m.ID {
			return true
		}
	}
	return false
}

// LeaveClassic removes members and returns an error, or nil, for each. A member
// of the new protocol may only be removed by its instance, by an administrator.
func (g *Group) LeaveClassic(now time.Time, leaving []group.Leaving) ([]*kerr.Error, Effects) {
	g.begin(now)
	errs := make([]*kerr.Error, len(leaving))
	gone := map[string]bool{}
	var ids []string
	for i, l := range leaving {
		id, err := g.leaving(l)
		if err == nil && gone[id] {
			err = kerr.UnknownMemberID
		}
		if errs[i] = err; err == nil {
			gone[id] = true
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		g.fence(ids...)
	}
	return errs, g.take()
}

func (g *Group) leaving(l group.Leaving) (string, *kerr.Error) {
	id := l.MemberID
	if l.Instance != nil {
		owner, known := g.static[*l.Instance]
		switch {
		case !known:
			return "", kerr.UnknownMemberID
		case id != "" && id != owner:
			return "", kerr.FencedInstanceID
		case id == "":
			return owner, nil
		}
	}
	if m := g.members[id]; m == nil || m.Classic == nil {
		return "", kerr.UnknownMemberID
	}
	return id, nil
}
