package sim

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/checker"
)

// member is a member of a consumer group that commits offsets of the partitions
// it is assigned. Now and then it falls silent for longer than its session
// lasts, and then goes on as if nothing had happened.
type member struct {
	w          *World
	c          *client
	d          *dice
	name       string
	group      string
	partitions int32

	at         string // the coordinator
	id         string
	generation int32
	own        []int32
	offsets    map[int32]int64
}

const (
	sessionTimeout = 6 * time.Second // Kafka's least: group.min.session.timeout.ms
	joinTimeout    = 8 * time.Second
)

func (m *member) run(ctx context.Context) {
	defer m.c.close()
	for ctx.Err() == nil {
		if m.at == "" {
			m.at = findCoordinator(ctx, m.c, m.group)
		}
		if m.at == "" || !m.join(ctx) {
			rest(ctx, m.d.between(50*time.Millisecond, 300*time.Millisecond))
			continue
		}
		m.work(ctx)
	}
}

// join joins the group and learns what is its own. A failure forgets whatever
// it shows to be of no use.
func (m *member) join(ctx context.Context) bool {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.ProtocolType = 5, m.group, m.id, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = int32(sessionTimeout/time.Millisecond), 3000
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "sim", []byte(m.name)
	req.Protocols = append(req.Protocols, p)
	resp, err := request[*kmsg.JoinGroupResponse](ctx, m.c, m.at, req, joinTimeout)
	if err != nil {
		m.at = ""
		return false
	}
	if resp.ErrorCode != 0 {
		m.learn(resp.ErrorCode)
		if resp.ErrorCode == kerr.MemberIDRequired.Code {
			m.id = resp.MemberID
		}
		return false
	}
	m.id, m.generation = resp.MemberID, resp.Generation
	return m.sync(ctx, resp)
}

// sync hands out partitions, if it is for this member to do, and takes its own.
func (m *member) sync(ctx context.Context, joined *kmsg.JoinGroupResponse) bool {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.Generation, req.MemberID = 3, m.group, m.generation, m.id
	if joined.LeaderID == m.id {
		req.GroupAssignment = m.assign(joined.Members)
	}
	resp, err := request[*kmsg.SyncGroupResponse](ctx, m.c, m.at, req, joinTimeout)
	if err != nil {
		m.at = ""
		return false
	}
	if resp.ErrorCode != 0 {
		m.learn(resp.ErrorCode)
		return false
	}
	m.own = nil
	var keys []checker.Key
	for _, b := range resp.MemberAssignment {
		m.own = append(m.own, int32(b))
		keys = append(keys, checker.Key{Topic: topicName, Partition: int32(b)})
	}
	m.w.note(m.name, "stable", fmt.Sprintf("generation %d: partitions %v", m.generation, m.own))
	m.w.judge.stable(m.name, m.group, m.id, m.generation, keys)
	return m.load(ctx)
}

// assign deals the partitions out in turns.
func (m *member) assign(members []kmsg.JoinGroupResponseMember) []kmsg.SyncGroupRequestGroupAssignment {
	slices.SortFunc(members, func(a, b kmsg.JoinGroupResponseMember) int {
		return cmp.Or(slices.Compare(a.ProtocolMetadata, b.ProtocolMetadata), cmp.Compare(a.MemberID, b.MemberID))
	})
	out := make([]kmsg.SyncGroupRequestGroupAssignment, len(members))
	for i := range members {
		out[i].MemberID = members[i].MemberID
		for p := i; p < int(m.partitions); p += len(members) {
			out[i].MemberAssignment = append(out[i].MemberAssignment, byte(p))
		}
	}
	return out
}

// load reads where the partitions were left.
func (m *member) load(ctx context.Context) bool {
	m.offsets = make(map[int32]int64)
	if len(m.own) == 0 {
		return true
	}
	offsets, err := fetchOffsets(ctx, m.w, m.c, m.name, m.at, m.group, m.own)
	if err != nil {
		m.at = ""
		return false
	}
	for p, offset := range offsets {
		m.offsets[p] = offset + 1
	}
	return true
}

// work commits and lets itself be heard until it must join again.
func (m *member) work(ctx context.Context) {
	for ctx.Err() == nil {
		if m.d.chance(0.03) {
			m.w.note(m.name, "silent", "")
			rest(ctx, m.d.between(sessionTimeout/2, 2*sessionTimeout))
		}
		if len(m.own) > 0 && m.d.chance(0.5) {
			if !m.commit(ctx) {
				return
			}
		} else if !m.heartbeat(ctx) {
			return
		}
		rest(ctx, m.d.between(100*time.Millisecond, time.Second))
	}
}

func (m *member) heartbeat(ctx context.Context) bool {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group, req.Generation, req.MemberID = 3, m.group, m.generation, m.id
	resp, err := request[*kmsg.HeartbeatResponse](ctx, m.c, m.at, req, groupTimeout)
	if err != nil {
		m.at = findCoordinator(ctx, m.c, m.group)
		return m.at != ""
	}
	return m.learn(resp.ErrorCode)
}

// commit moves one of its partitions on.
func (m *member) commit(ctx context.Context) bool {
	p := m.own[m.d.n(len(m.own))]
	offset := m.offsets[p]
	m.offsets[p] = offset + 1
	code, err := commitOffset(ctx, m.w, m.c, commitArgs{m.name, m.at, m.group, m.id, m.generation, p, offset})
	if err != nil {
		m.at = findCoordinator(ctx, m.c, m.group)
		return m.at != ""
	}
	if code == 0 {
		m.w.judge.count("member commits")
	}
	return m.learn(code)
}

// learn takes in an error code, and reports whether the member may go on.
func (m *member) learn(code int16) bool {
	switch kerr.ErrorForCode(code) {
	case nil:
		return true
	case kerr.UnknownMemberID:
		m.id = ""
	case kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress:
		m.at = ""
	}
	return false
}
