package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// never is the deadline that does not come.
var never time.Time

// Heartbeat keeps a member's session alive.
func (g *Group) Heartbeat(now time.Time, id string, instance *string, generation int32) *kerr.Error {
	g.begin(now)
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	if err := g.validateMember(id, instance); err != nil {
		return err
	}
	if generation != g.generation {
		return kerr.IllegalGeneration
	}
	g.expectHeartbeat(g.members[id], g.members[id].sessionTimeout)
	if g.state == PreparingRebalance {
		return kerr.RebalanceInProgress
	}
	return nil
}

// Leaving names a member that leaves: by id, or by instance alone when an
// administrator removes a static member.
type Leaving struct {
	MemberID string
	Instance *string
}

// Leave removes members and returns an error, or nil, for each.
func (g *Group) Leave(now time.Time, leaving []Leaving) ([]*kerr.Error, Effects) {
	g.begin(now)
	errs := make([]*kerr.Error, len(leaving))
	left := false
	for i, l := range leaving {
		errs[i] = g.leave(l)
		left = left || errs[i] == nil
	}
	if left {
		switch g.state {
		case Stable, CompletingRebalance:
			g.prepareRebalance()
		case PreparingRebalance:
			g.maybeCompleteJoin()
		}
	}
	return errs, g.take()
}

func (g *Group) leave(l Leaving) *kerr.Error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	id := l.MemberID
	if id == "" {
		if l.Instance == nil || g.static[*l.Instance] == "" {
			return kerr.UnknownMemberID
		}
		id = g.static[*l.Instance]
	} else if _, ok := g.pending[id]; !ok {
		if err := g.validateMember(id, l.Instance); err != nil {
			return err
		}
	}
	g.remove(id)
	return nil
}

// expectHeartbeat begins m's session anew.
func (g *Group) expectHeartbeat(m *member, timeout time.Duration) {
	m.deadline = g.now.Add(timeout)
	g.wakeBy(m.deadline)
}

// wakeBy makes sure that Deadline is no later than t.
func (g *Group) wakeBy(t time.Time) {
	if g.wake.IsZero() || t.Before(g.wake) {
		g.wake = t
	}
}

// Deadline is when Tick has to be called at the latest; false when the group
// waits for nothing. It may be early: heartbeats do not move it.
func (g *Group) Deadline() (time.Time, bool) { return g.wake, !g.wake.IsZero() }

// Tick handles every deadline that has come.
func (g *Group) Tick(now time.Time) Effects {
	g.begin(now)
	if due(g.joinDeadline, now) && g.state == PreparingRebalance {
		g.joinExpired()
	}
	if due(g.syncDeadline, now) {
		g.syncExpired()
	}
	g.expireSessions()
	g.wake = g.earliest()
	return g.take()
}

func due(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

// syncExpired removes who joined the generation and then fell silent.
func (g *Group) syncExpired() {
	g.syncDeadline = never
	if len(g.unsynced) == 0 || (g.state != CompletingRebalance && g.state != Stable) {
		return
	}
	var silent []string
	for _, m := range g.order {
		if _, ok := g.unsynced[m.id]; ok {
			silent = append(silent, m.id)
		}
	}
	for _, id := range silent {
		g.remove(id)
	}
	g.prepareRebalance()
}

func (g *Group) expireSessions() {
	var expired []string
	for _, m := range g.order {
		if !due(m.deadline, g.now) {
			continue
		}
		// The session of one who waits begins again with the answer.
		m.deadline = never
		if m.expectsHeartbeat() {
			expired = append(expired, m.id)
		}
	}
	for id, deadline := range g.pending {
		if due(deadline, g.now) {
			expired = append(expired, id)
		}
	}
	for _, id := range expired {
		if _, ok := g.pending[id]; ok {
			delete(g.pending, id)
			g.completeWithoutPending()
		} else if g.members[id] != nil {
			g.removeAndRebalance(id)
		}
	}
}

func (g *Group) completeWithoutPending() {
	if g.state == PreparingRebalance && g.allJoined() {
		g.completeJoin()
	}
}

// earliest finds the next deadline.
func (g *Group) earliest() time.Time {
	g.wake = never
	for _, t := range []time.Time{g.joinDeadline, g.syncDeadline} {
		if !t.IsZero() {
			g.wakeBy(t)
		}
	}
	for _, m := range g.order {
		if !m.deadline.IsZero() {
			g.wakeBy(m.deadline)
		}
	}
	for _, t := range g.pending {
		g.wakeBy(t)
	}
	return g.wake
}

// Unload answers everything that is parked, because the group goes elsewhere.
func (g *Group) Unload(err *kerr.Error) Effects {
	for _, m := range g.order {
		g.endJoin(m, JoinReply{Err: err, MemberID: m.id, Generation: NoGeneration})
		g.endSync(m, SyncReply{Err: err})
	}
	g.replacing, g.assigning = nil, nil
	g.state = Dead
	return g.take()
}
