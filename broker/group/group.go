package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// NoGeneration is the generation of a request from outside the group's
// membership, and of a failed join.
const NoGeneration int32 = -1

// consumerProtocolType is the protocol type of consumers, the only one whose
// metadata the coordinator understands.
const consumerProtocolType = "consumer"

// Group is one classic group.
type Group struct {
	id    string
	cfg   *Config
	state State
	// previous is the state before this one: a rebalance that began in Empty
	// is the initial one and is not completed early.
	previous State
	since    time.Time

	generation   int32
	protocolType string // empty: the group never had a member
	protocol     *string
	leader       string

	// members by id; order is the same members, oldest first, so that every
	// choice among them is reproducible.
	members map[string]*member
	order   []*member
	// static maps group.instance.id to member id (KIP-345).
	static map[string]string
	// pending holds the ids given out with MEMBER_ID_REQUIRED (KIP-394) and
	// when each lapses.
	pending map[string]time.Time
	// unsynced members have joined this generation and not yet sent a sync.
	unsynced map[string]struct{}
	// supported counts the members that support each protocol.
	supported map[string]int
	// awaiting counts members with a parked join, bytes sums member.bytes.
	awaiting int
	bytes    int

	// subscribed is nil when the subscriptions are not known.
	subscribed map[string]struct{}

	// joinDeadline ends the join phase. During the initial rebalance it may be
	// extended by up to initialRemaining while new members arrive.
	joinDeadline     time.Time
	initialDelay     time.Duration
	initialRemaining time.Duration
	newMemberAdded   bool
	syncDeadline     time.Time
	// wake is no later than the earliest deadline; zero when there is none.
	wake time.Time

	snapshots uint64
	// assigning is the assignment on its way to storage.
	assigning *assigning
	// replacing are static replacements on their way to storage.
	replacing []replacing

	now time.Time
	out Effects
}

// New returns an empty group. cfg is shared and must not change.
func New(id string, cfg *Config, now time.Time) *Group {
	return &Group{
		id: id, cfg: cfg, state: Empty, previous: Empty, since: now,
		members:   map[string]*member{},
		static:    map[string]string{},
		pending:   map[string]time.Time{},
		unsynced:  map[string]struct{}{},
		supported: map[string]int{},
	}
}

// Restore returns the group that s describes, with every session beginning
// anew: whoever held them before can no longer tell who is alive.
func Restore(id string, cfg *Config, s *Snapshot, now time.Time) *Group {
	g := New(id, cfg, now)
	g.begin(now)
	g.generation, g.protocolType, g.protocol, g.leader = s.Generation, s.ProtocolType, s.Protocol, s.Leader
	g.since = s.Since
	for i := range s.Members {
		sm := &s.Members[i]
		m := &member{
			id: sm.ID, instance: sm.Instance, clientID: sm.ClientID, clientHost: sm.ClientHost,
			sessionTimeout: sm.SessionTimeout, rebalanceTimeout: sm.RebalanceTimeout,
			protocols: sm.Protocols, assignment: sm.Assignment,
		}
		g.add(m)
		g.expectHeartbeat(m, m.sessionTimeout)
	}
	if len(g.members) > 0 {
		g.state = Stable
		if g.members[s.Leader] == nil {
			g.leader = g.order[0].id
		} else {
			g.leader = s.Leader
		}
	}
	g.subscribed = g.computeSubscribed()
	return g
}

// ID is the group's id.
func (g *Group) ID() string { return g.id }

// State is the group's state.
func (g *Group) State() State { return g.state }

// Generation is the group's generation.
func (g *Group) Generation() int32 { return g.generation }

// ProtocolType is empty for a group that never had members.
func (g *Group) ProtocolType() string { return g.protocolType }

// Vacant tells that the group has neither members nor anyone about to join.
func (g *Group) Vacant() bool {
	return (g.state == Empty || g.state == Dead) && len(g.members) == 0 && len(g.pending) == 0
}

func (g *Group) transition(to State) {
	g.previous, g.state, g.since = g.state, to, g.now
}

// add puts m into the group.
func (g *Group) add(m *member) {
	if len(g.members) == 0 {
		g.leader = ""
	}
	if m.instance != nil {
		g.static[*m.instance] = m.id
	}
	if g.leader == "" {
		g.leader = m.id
	}
	g.members[m.id] = m
	g.order = append(g.order, m)
	g.count(m, 1)
	if m.join != 0 {
		g.awaiting++
	}
	delete(g.pending, m.id)
}

// count adds m to, or takes it from, the sums over members.
func (g *Group) count(m *member, by int) {
	for _, name := range uniqueNames(m.protocols) {
		if g.supported[name] += by; g.supported[name] == 0 {
			delete(g.supported, name)
		}
	}
	g.bytes += by * m.bytes()
}

// remove takes a member or pending member out of the group. What it has parked
// is answered: the client, if it still lives, begins again.
func (g *Group) remove(id string) {
	if m := g.members[id]; m != nil {
		g.endJoin(m, JoinReply{Err: kerr.UnknownMemberID, Generation: NoGeneration})
		g.endSync(m, SyncReply{Err: kerr.UnknownMemberID})
		g.count(m, -1)
		delete(g.members, id)
		g.order = slices.DeleteFunc(g.order, func(o *member) bool { return o == m })
		if m.instance != nil && g.static[*m.instance] == id {
			delete(g.static, *m.instance)
		}
	}
	if g.leader == id {
		g.leader = ""
		if len(g.order) > 0 {
			g.leader = g.order[0].id
		}
	}
	delete(g.pending, id)
	delete(g.unsynced, id)
}

// setJoin parks a join; one that was parked before comes from a connection the
// client has given up.
func (g *Group) setJoin(m *member, t Ticket) {
	if m.join != 0 {
		g.failJoin(m.join, m.id, kerr.RebalanceInProgress)
	} else if t != 0 {
		g.awaiting++
	}
	m.join = t
}

// endJoin answers m's parked join, if there is one.
func (g *Group) endJoin(m *member, r JoinReply) bool {
	if m.join == 0 {
		return false
	}
	g.replyJoin(m.join, r)
	m.join = 0
	g.awaiting--
	return true
}

func (g *Group) setSync(m *member, t Ticket) {
	if m.sync != 0 {
		g.failSync(m.sync, kerr.RebalanceInProgress)
	}
	m.sync = t
}

func (g *Group) endSync(m *member, r SyncReply) bool {
	if m.sync == 0 {
		return false
	}
	g.replySync(m.sync, r)
	m.sync = 0
	return true
}

func (g *Group) setAssignment(m *member, assignment []byte) {
	g.bytes += len(assignment) - len(m.assignment)
	m.assignment = assignment
}

// validateMember checks that the instance, if named, is the member's, and that
// the member is in the group.
func (g *Group) validateMember(id string, instance *string) *kerr.Error {
	if instance != nil {
		switch owner, ok := g.static[*instance]; {
		case !ok:
			return kerr.UnknownMemberID
		case owner != id:
			return kerr.FencedInstanceID
		}
	}
	if g.members[id] == nil {
		return kerr.UnknownMemberID
	}
	return nil
}

func (g *Group) allJoined() bool { return len(g.members) == g.awaiting && len(g.pending) == 0 }

func (g *Group) rebalanceTimeout() time.Duration {
	var longest time.Duration
	for _, m := range g.order {
		longest = max(longest, m.rebalanceTimeout)
	}
	return longest
}

func (g *Group) protocolTypeOrNil() *string {
	if g.protocolType == "" {
		return nil
	}
	t := g.protocolType
	return &t
}

// snapshot issues the state to persist. assigned overrides the members'
// assignments when it is not nil.
func (g *Group) snapshot(assigned map[string][]byte) uint64 {
	g.snapshots++
	s := g.Export()
	s.Seq, s.Since = g.snapshots, g.now
	if assigned != nil {
		for i := range s.Members {
			s.Members[i].Assignment = assigned[s.Members[i].ID]
		}
	}
	g.out.Persist = s
	return s.Seq
}

// Export describes the group as it is, for its conversion to another protocol.
func (g *Group) Export() *Snapshot {
	s := &Snapshot{
		Generation:   g.generation,
		ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader, Since: g.since,
		Members: make([]SnapshotMember, 0, len(g.order)),
	}
	for _, m := range g.order {
		s.Members = append(s.Members, SnapshotMember{
			ID: m.id, Instance: m.instance, ClientID: m.clientID, ClientHost: m.clientHost,
			SessionTimeout: m.sessionTimeout, RebalanceTimeout: m.rebalanceTimeout,
			Protocols: m.protocols, Assignment: m.assignment,
		})
	}
	return s
}

// Adopt returns the group that another protocol's group becomes: stable for the
// moment that it takes to persist, and rebalancing.
func Adopt(id string, cfg *Config, s *Snapshot, now time.Time) (*Group, Effects) {
	g := Restore(id, cfg, s, now)
	g.since = now
	g.protocol = g.selectProtocol()
	g.subscribed = g.computeSubscribed()
	g.snapshot(nil)
	if len(g.members) > 0 {
		g.prepareRebalance()
	}
	return g, g.take()
}
