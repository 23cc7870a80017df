package consumer

import (
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/metadata"
)

// Request is a heartbeat. Nil fields were not sent: they are as before.
type Request struct {
	// MemberID is the id to use for a member without one.
	MemberID   string
	Epoch      int32
	Instance   *string
	Rack       *string
	ClientID   string
	ClientHost string
	// RebalanceTimeout is negative when not sent.
	RebalanceTimeout time.Duration
	Topics           []string
	// Regex comes with what it matches.
	Regex    *string
	Matches  Matches
	Assignor *string
	// Owned is what the member has, as a set; meaningless unless OwnedSent.
	Owned     []metadata.TopicPartition
	OwnedSent bool
}

// full tells whether the member sent everything, as it does after an error.
func (r *Request) full() bool {
	return r.Epoch == joinEpoch || r.RebalanceTimeout >= 0 && (r.Topics != nil || r.Regex != nil) && r.OwnedSent
}

// Reply answers a heartbeat.
type Reply struct {
	MemberID string
	Epoch    int32
	Interval time.Duration
	// Assignment is what the member has to get to; nil: as it was told.
	Assignment []metadata.TopicPartition
	Assigned   bool
}

// Validate checks what does not depend on the group. noID tells that the client
// sent no member id, which only the first version may, when joining.
func (r *Request) Validate(cfg *Config, version int16, group string, noID bool) *kerr.Error {
	empty := func(s *string) bool { return s != nil && strings.TrimSpace(*s) == "" }
	switch {
	case noID && (version >= 1 || r.Epoch != joinEpoch):
		return refuse(kerr.InvalidRequest, "MemberId can't be empty.")
	case empty(&group):
		return refuse(kerr.InvalidRequest, "GroupId can't be empty.")
	case empty(r.Instance):
		return refuse(kerr.InvalidRequest, "InstanceId can't be empty.")
	case empty(r.Rack):
		return refuse(kerr.InvalidRequest, "RackId can't be empty.")
	case r.Epoch < leaveStaticEpoch:
		return refuse(kerr.InvalidRequest, "MemberEpoch is invalid.")
	case r.Epoch == leaveStaticEpoch && r.Instance == nil:
		return refuse(kerr.InvalidRequest, "InstanceId can't be null.")
	case r.Epoch == joinEpoch && r.RebalanceTimeout < 0:
		return refuse(kerr.InvalidRequest, "RebalanceTimeoutMs must be provided in first request.")
	case r.Epoch == joinEpoch && (!r.OwnedSent || len(r.Owned) > 0):
		return refuse(kerr.InvalidRequest, "TopicPartitions must be empty when (re-)joining.")
	case r.Epoch == joinEpoch && r.Topics == nil && r.Regex == nil:
		return refuse(kerr.InvalidRequest, "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")
	case namesBytes(r.Topics) > cfg.MemberBytesMax:
		return refuse(kerr.InvalidRequest, "The subscription takes more than %d bytes.", cfg.MemberBytesMax)
	case r.Assignor != nil && !cfg.supportsAssignor(*r.Assignor):
		return refuse(kerr.UnsupportedAssignor, "ServerAssignor %s is not supported. Supported assignors: %s.", *r.Assignor, strings.Join(cfg.Assignors, ", "))
	}
	return nil
}

func namesBytes(names []string) int {
	n := 0
	for _, name := range names {
		n += len(name) + 16
	}
	return n
}

// Heartbeat handles a member's heartbeat, with which it also joins and leaves.
func (g *Group) Heartbeat(now time.Time, img *Image, r Request) (Reply, *kerr.Error, Effects) {
	g.begin(now)
	if g.dead {
		return Reply{}, kerr.CoordinatorNotAvailable, g.take()
	}
	var reply Reply
	var err *kerr.Error
	if r.Epoch == leaveEpoch || r.Epoch == leaveStaticEpoch {
		reply, err = g.leave(img, r)
	} else {
		reply, err = g.heartbeat(img, r)
	}
	return reply, err, g.take()
}

func (g *Group) heartbeat(img *Image, r Request) (Reply, *kerr.Error) {
	old, replaced, err := g.find(&r)
	if err != nil {
		return Reply{}, err
	}
	updated := old.with(func(m *Member) { r.update(m) })
	if n := updated.bytes(); n > g.cfg.MemberBytesMax {
		return Reply{}, refuse(kerr.InvalidRequest, "The member's subscription takes %d bytes, more than %d.", n, g.cfg.MemberBytesMax)
	}
	if replaced != nil {
		g.drop(replaced.ID)
	}
	m := g.settle(img, old, updated, step{owned: r.Owned, sent: r.OwnedSent, matches: r.Matches})
	g.awakeSession(m)
	g.lives[m.ID].join, g.lives[m.ID].sync = never, never
	reply := Reply{MemberID: m.ID, Epoch: m.Epoch, Interval: g.timing.HeartbeatInterval}
	if r.full() || !samePartitions(old.Assigned, m.Assigned) {
		reply.Assigned, reply.Assignment = true, partitionsOf(m.Assigned)
	}
	return reply, nil
}

// update takes over what the request brings.
func (r *Request) update(m *Member) {
	m.ClientID, m.ClientHost, m.Classic = r.ClientID, r.ClientHost, nil
	if r.Instance != nil {
		m.Instance = r.Instance
	}
	if r.Rack != nil {
		m.Rack = r.Rack
	}
	if r.RebalanceTimeout >= 0 {
		m.RebalanceTimeout = r.RebalanceTimeout
	}
	if r.Topics != nil {
		m.Topics = sortedNames(r.Topics)
	}
	if r.Regex != nil {
		m.Regex = *r.Regex
	}
	if r.Assignor != nil {
		m.Assignor = *r.Assignor
	}
}

func sortedNames(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}

// find returns the member that sent r, new if it joins. A member that joins
// again says that it has nothing any more. replaced is the former self of a
// static member, to be dropped.
func (g *Group) find(r *Request) (m, replaced *Member, err *kerr.Error) {
	if r.Instance != nil {
		return g.findStatic(r)
	}
	m = g.members[r.MemberID]
	switch {
	case m == nil && r.Epoch != joinEpoch:
		return nil, nil, refuse(kerr.UnknownMemberID, "Member %s is not a member of group %s.", r.MemberID, g.id)
	case m == nil:
		m, err = g.newMember(r.MemberID)
		return m, nil, err
	case r.Epoch == joinEpoch:
		return m.rejoined(m.ID), nil, nil
	}
	return m, nil, m.checkEpoch(r)
}

func (g *Group) newMember(id string) (*Member, *kerr.Error) {
	if len(g.members) >= g.cfg.MembersMax {
		return nil, refuse(kerr.GroupMaxSizeReached, "The consumer group has reached its maximum capacity of %d members.", g.cfg.MembersMax)
	}
	return &Member{ID: id}, nil
}

func (g *Group) findStatic(r *Request) (m, replaced *Member, err *kerr.Error) {
	id, known := g.static[*r.Instance]
	m = g.members[id]
	switch {
	case r.Epoch != joinEpoch && !known:
		return nil, nil, refuse(kerr.UnknownMemberID, "Instance id %s is unknown.", *r.Instance)
	case r.Epoch != joinEpoch && id != r.MemberID:
		return nil, nil, fencedInstance(r.MemberID, *r.Instance, id)
	case r.Epoch != joinEpoch:
		return m, nil, m.checkEpoch(r)
	case known && id == r.MemberID:
		return m.rejoined(id), nil, nil
	case known && m.Classic == nil && m.Epoch != leaveStaticEpoch:
		return nil, nil, refuse(kerr.UnreleasedInstanceID, "Static member %s with instance id %s cannot join the group because the instance id is owned by %s member.", r.MemberID, *r.Instance, id)
	case known:
		return m.rejoined(r.MemberID), m, nil
	case g.members[r.MemberID] != nil:
		// It was a dynamic member, or another instance, until now.
		return g.members[r.MemberID].rejoined(r.MemberID), nil, nil
	}
	m, err = g.newMember(r.MemberID)
	return m, nil, err
}

func fencedInstance(member, instance, owner string) *kerr.Error {
	return refuse(kerr.FencedInstanceID, "Static member %s with instance id %s was fenced by member %s.", member, instance, owner)
}

// rejoined is the member beginning anew, perhaps under another id: with its
// target, without partitions.
func (m *Member) rejoined(id string) *Member {
	return m.with(func(c *Member) {
		c.ID, c.Epoch, c.Previous, c.State, c.Assigned, c.Revoking = id, joinEpoch, joinEpoch, Stable, nil, nil
	})
}

// checkEpoch accepts the member's epoch, and the one before if the reply with
// the newer epoch may have been lost: then the member has nothing it should not.
func (m *Member) checkEpoch(r *Request) *kerr.Error {
	switch {
	case r.Epoch == m.Epoch:
		return nil
	case r.Epoch < m.Epoch && r.Epoch == m.Previous && r.OwnedSent && within(r.Owned, m.Assigned):
		return nil
	}
	than := "smaller"
	if r.Epoch > m.Epoch {
		than = "greater"
	}
	return refuse(kerr.FencedMemberEpoch, "The consumer group member has a %s member epoch (%d) than the one known by the group coordinator (%d). The member must abandon all its partitions and rejoin.", than, r.Epoch, m.Epoch)
}

// step is how a member's request moves it on.
type step struct {
	owned   []metadata.TopicPartition
	sent    bool
	matches Matches
	// urgent: compute the target now, however recent the last one is.
	urgent bool
}

// settle makes updated, which was old before this request, a member, begins a
// rebalance if that changes what is to be assigned, computes the target if it
// is time to, and moves the member towards it.
func (g *Group) settle(img *Image, old, updated *Member, s step) *Member {
	first := len(g.members) == 0
	known := g.members[updated.ID]
	if known == nil || known.Epoch != updated.Epoch || !samePartitions(known.Assigned, updated.Assigned) || !known.sameSubscription(updated) {
		if known != nil && known.Regex != "" && known.Regex != updated.Regex && g.regexes[known.Regex] == 1 {
			delete(g.matches, known.Regex)
		}
		g.put(updated)
	} else {
		updated = known
	}
	changed := !slices.Equal(old.Topics, updated.Topics) || old.Regex != updated.Regex
	bump := g.epoch == 0 || changed
	if updated.Regex != "" && s.matches.Regex == updated.Regex && g.resolve(s.matches) {
		bump = true
	}
	if bump || g.img == nil || img.version > g.digestOf {
		bump = g.look(img) || bump
	}
	if bump {
		g.bump()
	}
	g.refreshRegexes(img)
	due := !g.now.Before(g.assignedAt.Add(g.timing.AssignmentInterval))
	if g.epoch > g.assignmentEpoch && (first || s.urgent || due) {
		g.assign()
	}
	return g.reconcile(g.members[updated.ID], s, changed)
}

// awakeSession begins a member's session anew.
func (g *Group) awakeSession(m *Member) {
	g.lives[m.ID].session = g.deadline(g.sessionTimeout(m))
}

func (g *Group) sessionTimeout(m *Member) time.Duration {
	if m.Classic != nil {
		return m.Classic.SessionTimeout
	}
	return g.timing.SessionTimeout
}
