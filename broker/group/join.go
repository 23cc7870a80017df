package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// JoinRequest is a member's wish to be in the next generation.
type JoinRequest struct {
	Ticket Ticket
	// MemberID is empty for a member without an id; NewMemberID is then the id
	// to give it.
	MemberID    string
	NewMemberID string
	Instance    *string

	ClientID         string
	ClientHost       string
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	ProtocolType     string
	Protocols        []Protocol

	// RequireKnownID makes a dynamic member ask again with its id before it
	// counts (KIP-394, v4), SkipAssignment tells that a returning static
	// leader understands that there is nothing to assign (KIP-814, v9).
	RequireKnownID bool
	SkipAssignment bool
}

// replacing is a static member's replacement whose persistence is awaited.
type replacing struct {
	seq       uint64
	ticket    Ticket
	newID     string
	old       member
	oldLeader string
	skip      bool
}

// Join handles a join. The answer may come with a later event.
func (g *Group) Join(now time.Time, r JoinRequest) Effects {
	g.begin(now)
	switch {
	case protocolBytes(r.Protocols) > g.cfg.MemberBytesMax:
		g.failJoin(r.Ticket, r.MemberID, kerr.MessageTooLarge)
	case !g.acceptsJoin(r):
		g.remove(r.MemberID)
		g.failJoin(r.Ticket, "", kerr.GroupMaxSizeReached)
	case g.state == Dead:
		// The group is being deleted: the client finds its coordinator again.
		g.failJoin(r.Ticket, r.MemberID, kerr.CoordinatorNotAvailable)
	case !g.supportsProtocols(r.ProtocolType, r.Protocols):
		g.failJoin(r.Ticket, r.MemberID, kerr.InconsistentGroupProtocol)
	case r.MemberID == "":
		g.joinNew(r)
	default:
		g.joinKnown(r)
	}
	return g.take()
}

// acceptsJoin applies the size limits. While a rebalance gathers, those who wait
// are counted instead of the members, so that when the limit was lowered the
// last to rejoin are the ones turned away.
func (g *Group) acceptsJoin(r JoinRequest) bool {
	m := g.members[r.MemberID]
	known := m != nil && r.MemberID != ""
	if !known && (len(g.pending) >= g.cfg.MembersMax && r.MemberID == "" || g.bytes+protocolBytes(r.Protocols) > g.cfg.GroupBytesMax) {
		return false
	}
	switch g.state {
	case PreparingRebalance:
		return known && m.join != 0 || g.awaiting < g.cfg.MembersMax
	case CompletingRebalance, Stable:
		return known || len(g.members) < g.cfg.MembersMax
	default:
		return true
	}
}

func (g *Group) joinNew(r JoinRequest) {
	if r.Instance != nil {
		if old, ok := g.static[*r.Instance]; ok {
			g.replaceStatic(r, old)
			return
		}
		g.addAndRebalance(r, r.NewMemberID)
		return
	}
	if !r.RequireKnownID {
		g.addAndRebalance(r, r.NewMemberID)
		return
	}
	g.pending[r.NewMemberID] = g.now.Add(r.SessionTimeout)
	g.wakeBy(g.pending[r.NewMemberID])
	g.failJoin(r.Ticket, r.NewMemberID, kerr.MemberIDRequired)
}

func (g *Group) joinKnown(r JoinRequest) {
	if _, ok := g.pending[r.MemberID]; ok && r.Instance == nil {
		g.addAndRebalance(r, r.MemberID)
		return
	}
	if err := g.validateMember(r.MemberID, r.Instance); err != nil {
		g.failJoin(r.Ticket, r.MemberID, err)
		return
	}
	m := g.members[r.MemberID]
	switch g.state {
	case PreparingRebalance:
		g.updateAndRebalance(m, r)
	case CompletingRebalance:
		if m.matches(r.Protocols) {
			// Most likely the first answer was lost.
			g.replyJoin(r.Ticket, g.currentGeneration(m))
			return
		}
		g.updateAndRebalance(m, r)
	case Stable:
		// A leader that joins again wants a rebalance for a reason its
		// metadata does not show, such as new partitions.
		if m.id == g.leader || !m.matches(r.Protocols) {
			g.updateAndRebalance(m, r)
			return
		}
		g.replyJoin(r.Ticket, g.currentGeneration(m))
	default:
		g.failJoin(r.Ticket, r.MemberID, kerr.UnknownMemberID)
	}
}

func (g *Group) addAndRebalance(r JoinRequest, id string) {
	m := &member{
		id: id, instance: r.Instance, clientID: r.ClientID, clientHost: r.ClientHost,
		sessionTimeout: r.SessionTimeout, rebalanceTimeout: r.RebalanceTimeout,
		protocols: r.Protocols, join: r.Ticket, isNew: true,
	}
	if len(g.members) == 0 {
		g.protocolType = r.ProtocolType
	}
	if g.state == PreparingRebalance && g.previous == Empty {
		g.newMemberAdded = true
	}
	g.add(m)
	g.expectHeartbeat(m, g.cfg.NewMemberJoinTimeout)
	g.rebalanceOrComplete()
}

func (g *Group) updateAndRebalance(m *member, r JoinRequest) {
	g.update(m, r)
	g.rebalanceOrComplete()
}

// update takes over what a member joins with and parks its request.
func (g *Group) update(m *member, r JoinRequest) {
	g.count(m, -1)
	m.protocols = r.Protocols
	g.count(m, 1)
	m.rebalanceTimeout, m.sessionTimeout = r.RebalanceTimeout, r.SessionTimeout
	g.setJoin(m, r.Ticket)
}

// replaceStatic lets a restarted static member take the place of its former
// self (KIP-345). In a stable group whose protocol stays the same that needs no
// rebalance: the new id is persisted and inherits the assignment.
func (g *Group) replaceStatic(r JoinRequest, oldID string) {
	oldLeader := g.leader
	m := g.rename(oldID, r.NewMemberID)
	g.expectHeartbeat(m, m.sessionTimeout)
	old := *m
	old.id = oldID
	g.update(m, r)

	switch g.state {
	case Stable:
		if !sameProtocol(g.protocol, g.selectProtocol()) {
			g.rebalanceOrComplete()
			return
		}
		g.replacing = append(g.replacing, replacing{
			seq: g.snapshot(nil), ticket: r.Ticket, newID: m.id,
			old: old, oldLeader: oldLeader, skip: r.SkipAssignment,
		})
	case CompletingRebalance:
		// The leader may be assigning to the old id at this moment.
		g.prepareRebalance()
	default:
		g.maybeCompleteJoin()
	}
}

// rename gives a static member a new id; whoever still waits under the old one
// is fenced.
func (g *Group) rename(oldID, newID string) *member {
	m := g.members[oldID]
	g.endJoin(m, JoinReply{Err: kerr.FencedInstanceID, MemberID: oldID, Generation: NoGeneration})
	g.endSync(m, SyncReply{Err: kerr.FencedInstanceID})
	delete(g.members, oldID)
	m.id = newID
	m.isNew = false
	g.members[newID] = m
	g.static[*m.instance] = newID
	if g.leader == oldID {
		g.leader = newID
	}
	if _, ok := g.unsynced[oldID]; ok {
		delete(g.unsynced, oldID)
		g.unsynced[newID] = struct{}{}
	}
	return m
}

// replaced ends a static replacement whose snapshot was written, or not.
func (g *Group) replaced(p replacing, err *kerr.Error) {
	m := g.members[p.newID]
	if m == nil || m.join != p.ticket {
		return // a rebalance, a leave or the next replacement answered it
	}
	if err != nil {
		g.undoReplace(m, p, err)
		return
	}
	if g.state == PreparingRebalance {
		return // it counts as rejoined, and is answered with the next generation
	}
	r := JoinReply{
		MemberID: m.id, Generation: g.generation,
		ProtocolType: g.protocolTypeOrNil(), Protocol: g.protocol, Leader: p.oldLeader,
	}
	if p.skip {
		// Without KIP-814 a leader is told of its former id as leader, so
		// that it does not assign anew to a group that did not rebalance.
		r.Leader = g.leader
		if m.id == g.leader {
			r.Members, r.SkipAssignment = g.currentMembers(), true
		}
	}
	g.endJoin(m, r)
	g.expectHeartbeat(m, m.sessionTimeout)
}

func (g *Group) undoReplace(m *member, p replacing, err *kerr.Error) {
	g.endJoin(m, JoinReply{
		Err: err, Generation: g.generation,
		ProtocolType: g.protocolTypeOrNil(), Protocol: g.protocol, Leader: p.oldLeader,
	})
	g.count(m, -1)
	m.protocols = p.old.protocols
	m.sessionTimeout, m.rebalanceTimeout = p.old.sessionTimeout, p.old.rebalanceTimeout
	g.count(m, 1)
	g.rename(m.id, p.old.id)
	g.expectHeartbeat(m, m.sessionTimeout)
}
