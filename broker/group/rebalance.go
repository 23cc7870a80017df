package group

import (
	"github.com/twmb/franz-go/pkg/kerr"
)

// rebalanceOrComplete begins a rebalance where one may begin, else sees whether
// the one under way is complete.
func (g *Group) rebalanceOrComplete() {
	switch g.state {
	case Empty, Stable, CompletingRebalance:
		g.prepareRebalance()
	case PreparingRebalance:
		g.maybeCompleteJoin()
	}
}

func (g *Group) prepareRebalance() {
	if g.state == CompletingRebalance {
		g.dropAssignments(kerr.RebalanceInProgress)
	}
	clear(g.unsynced)
	g.syncDeadline = never
	g.assigning = nil
	g.out.Rebalances++

	initial := g.state == Empty
	g.transition(PreparingRebalance)
	if initial {
		g.prepareInitial()
		return
	}
	if g.allJoined() {
		g.completeJoin()
		return
	}
	g.joinDeadline = g.now.Add(g.rebalanceTimeout())
	g.wakeBy(g.joinDeadline)
}

// prepareInitial gives the members of a new group time to arrive together.
func (g *Group) prepareInitial() {
	g.newMemberAdded = false
	g.initialDelay = g.cfg.initialDelay()
	g.initialRemaining = max(g.rebalanceTimeout()-g.initialDelay, 0)
	if g.initialDelay == 0 {
		g.completeJoin()
		return
	}
	g.joinDeadline = g.now.Add(g.initialDelay)
	g.wakeBy(g.joinDeadline)
}

// joinExpired ends the join phase, or extends the initial one for those who
// arrived during the delay.
func (g *Group) joinExpired() {
	if g.previous == Empty && g.newMemberAdded && g.initialRemaining > 0 {
		g.newMemberAdded = false
		last := g.initialDelay
		g.initialDelay = min(g.cfg.initialDelay(), g.initialRemaining)
		g.initialRemaining = max(g.initialRemaining-last, 0)
		g.joinDeadline = g.now.Add(g.initialDelay)
		return
	}
	g.completeJoin()
}

// maybeCompleteJoin completes the join phase when nobody is missing.
func (g *Group) maybeCompleteJoin() {
	if g.state == PreparingRebalance && g.previous != Empty && g.allJoined() {
		g.completeJoin()
	}
}

// completeJoin forms the next generation from those who joined. Static members
// that did not are kept until their session ends.
func (g *Group) completeJoin() {
	g.joinDeadline = never
	var absent []string
	for _, m := range g.order {
		if m.join == 0 && !m.isStatic() {
			absent = append(absent, m.id)
		}
	}
	for _, id := range absent {
		g.remove(id)
	}
	if len(g.members) > 0 && !g.electJoinedLeader() {
		// Nobody came back. Wait again; the sessions of the silent end first.
		g.joinDeadline = g.now.Add(g.rebalanceTimeout())
		g.wakeBy(g.joinDeadline)
		return
	}
	g.generation++
	clear(g.unsynced)
	if len(g.members) == 0 {
		g.becomeEmpty()
		return
	}
	g.protocol = g.selectProtocol()
	g.subscribed = g.computeSubscribed()
	g.transition(CompletingRebalance)
	for _, m := range g.order {
		g.endJoin(m, g.currentGeneration(m))
		g.expectHeartbeat(m, m.sessionTimeout)
		m.isNew = false
		g.unsynced[m.id] = struct{}{}
	}
	g.syncDeadline = g.now.Add(g.rebalanceTimeout())
	g.wakeBy(g.syncDeadline)
}

func (g *Group) becomeEmpty() {
	g.protocol = nil
	g.leader = ""
	g.transition(Empty)
	g.subscribed = g.computeSubscribed()
	g.snapshot(nil)
}

// electJoinedLeader keeps the leader if it rejoined, or takes the oldest member
// that did. It reports whether there is one.
func (g *Group) electJoinedLeader() bool {
	if m := g.members[g.leader]; m != nil && m.join != 0 {
		return true
	}
	for _, m := range g.order {
		if m.join != 0 {
			g.leader = m.id
			return true
		}
	}
	return false
}

// dropAssignments forgets every assignment and answers the waiting syncs with err.
func (g *Group) dropAssignments(err *kerr.Error) {
	for _, m := range g.order {
		g.setAssignment(m, nil)
		if g.endSync(m, SyncReply{Err: err}) {
			g.expectHeartbeat(m, m.sessionTimeout)
		}
	}
}

// removeAndRebalance takes out a member that is gone.
func (g *Group) removeAndRebalance(id string) {
	g.remove(id)
	switch g.state {
	case Stable, CompletingRebalance:
		g.prepareRebalance()
	case PreparingRebalance:
		if g.allJoined() {
			g.completeJoin()
		}
	}
}
