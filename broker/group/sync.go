package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// SyncRequest asks for the member's assignment; the leader's brings everybody's.
type SyncRequest struct {
	Ticket       Ticket
	MemberID     string
	Instance     *string
	Generation   int32
	ProtocolType *string
	Protocol     *string
	Assignments  []Assignment
}

// Assignment is what a leader assigns to a member.
type Assignment struct {
	MemberID string
	Data     []byte
}

// assigning is a generation's assignment whose persistence is awaited.
type assigning struct {
	seq         uint64
	assignments map[string][]byte
}

// Sync handles a sync. The answer may come with a later event.
func (g *Group) Sync(now time.Time, r SyncRequest) Effects {
	g.begin(now)
	if err := g.validateSync(r); err != nil {
		g.failSync(r.Ticket, err)
		return g.take()
	}
	m := g.members[r.MemberID]
	switch g.state {
	case PreparingRebalance:
		g.failSync(r.Ticket, kerr.RebalanceInProgress)
	case CompletingRebalance:
		g.setSync(m, r.Ticket)
		g.synced(m)
		// A leader that repeats itself waits for its first assignment.
		if m.id == g.leader && g.assigning == nil {
			g.assign(m, r.Assignments)
		}
	case Stable:
		g.synced(m)
		g.replySync(r.Ticket, g.assigned(m))
	}
	return g.take()
}

func (g *Group) validateSync(r SyncRequest) *kerr.Error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	if err := g.validateMember(r.MemberID, r.Instance); err != nil {
		return err
	}
	if r.Generation != g.generation {
		return kerr.IllegalGeneration
	}
	if r.ProtocolType != nil && *r.ProtocolType != g.protocolType ||
		r.Protocol != nil && (g.protocol == nil || *r.Protocol != *g.protocol) {
		return kerr.InconsistentGroupProtocol
	}
	return nil
}

func (g *Group) synced(m *member) {
	delete(g.unsynced, m.id)
	if len(g.unsynced) == 0 {
		g.syncDeadline = never
	}
}

func (g *Group) assigned(m *member) SyncReply {
	return SyncReply{ProtocolType: g.protocolTypeOrNil(), Protocol: g.protocol, Assignment: m.assignment}
}

// assign sends the leader's assignment to storage; members it leaves out get an
// empty one.
func (g *Group) assign(leader *member, list []Assignment) {
	assignments := make(map[string][]byte, len(g.members))
	for _, a := range list {
		if g.members[a.MemberID] != nil {
			assignments[a.MemberID] = a.Data
		}
	}
	total := g.bytes
	for id, data := range assignments {
		total += len(data) - len(g.members[id].assignment)
		if len(data) > g.cfg.MemberBytesMax {
			g.endSync(leader, SyncReply{Err: kerr.MessageTooLarge})
			return
		}
	}
	if total > g.cfg.GroupBytesMax {
		g.endSync(leader, SyncReply{Err: kerr.MessageTooLarge})
		return
	}
	g.assigning = &assigning{seq: g.snapshot(assignments), assignments: assignments}
}

// Persisted tells that every snapshot up to seq is durable, or that none after
// the last reported one is, with the reason that members are to be given.
func (g *Group) Persisted(now time.Time, seq uint64, err *kerr.Error) Effects {
	g.begin(now)
	if a := g.assigning; a != nil && a.seq <= seq {
		g.assigning = nil
		g.stabilize(a.assignments, err)
	}
	done := 0
	for done < len(g.replacing) && g.replacing[done].seq <= seq {
		done++
	}
	// Newest first: a later replacement of the same member is undone before
	// the one it built upon.
	for i := done - 1; i >= 0; i-- {
		g.replaced(g.replacing[i], err)
	}
	g.replacing = g.replacing[done:]
	if len(g.replacing) == 0 {
		g.replacing = nil
	}
	return g.take()
}

func (g *Group) stabilize(assignments map[string][]byte, err *kerr.Error) {
	if err != nil {
		g.dropAssignments(err)
		g.prepareRebalance()
		return
	}
	for _, m := range g.order {
		g.setAssignment(m, assignments[m.id])
		if g.endSync(m, g.assigned(m)) {
			g.expectHeartbeat(m, m.sessionTimeout)
		}
	}
	g.transition(Stable)
	g.out.Completed++
}
