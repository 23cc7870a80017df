package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Ticket names a parked request. Zero is none.
type Ticket uint64

// Effects is what the driver has to do after an event, in any order.
type Effects struct {
	// Replies answers requests. A ticket is answered exactly once.
	Replies []Reply
	// Persist is a snapshot to write. A later one contains it, so that a
	// snapshot which waits to be written may be replaced by a newer one.
	Persist *Snapshot
	// Rebalances counts the rebalances that began, Completed those that
	// reached the stable state.
	Rebalances int
	Completed  int
}

// Reply answers the request that Ticket names: exactly one of Join and Sync is set.
type Reply struct {
	Ticket Ticket
	Join   *JoinReply
	Sync   *SyncReply
}

// JoinReply answers a join. On an error only MemberID counts, and what the
// reply to a failed static replacement tells of the group.
type JoinReply struct {
	Err            *kerr.Error
	MemberID       string
	Generation     int32
	ProtocolType   *string
	Protocol       *string
	Leader         string
	SkipAssignment bool
	Members        []JoinedMember
}

// JoinedMember is what the leader learns of a member.
type JoinedMember struct {
	ID       string
	Instance *string
	Metadata []byte
}

// SyncReply answers a sync.
type SyncReply struct {
	Err          *kerr.Error
	ProtocolType *string
	Protocol     *string
	Assignment   []byte
}

// Snapshot is a group's durable state. Its slices are shared with the group and
// are never modified by either side.
type Snapshot struct {
	// Seq numbers the snapshots of one Group in memory, from 1.
	Seq          uint64
	Generation   int32
	ProtocolType string
	Protocol     *string
	Leader       string
	// Since is when the group entered its state.
	Since   time.Time
	Members []SnapshotMember
}

// SnapshotMember is one member of a snapshot.
type SnapshotMember struct {
	ID               string
	Instance         *string
	ClientID         string
	ClientHost       string
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	Protocols        []Protocol
	Assignment       []byte
}

func (g *Group) replyJoin(t Ticket, r JoinReply) {
	if t == 0 {
		return
	}
	if r.Err != nil && r.Generation == 0 {
		r.Generation = NoGeneration
	}
	g.out.Replies = append(g.out.Replies, Reply{Ticket: t, Join: &r})
}

func (g *Group) failJoin(t Ticket, memberID string, err *kerr.Error) {
	g.replyJoin(t, JoinReply{Err: err, MemberID: memberID, Generation: NoGeneration})
}

func (g *Group) replySync(t Ticket, r SyncReply) {
	if t != 0 {
		g.out.Replies = append(g.out.Replies, Reply{Ticket: t, Sync: &r})
	}
}

func (g *Group) failSync(t Ticket, err *kerr.Error) { g.replySync(t, SyncReply{Err: err}) }

// begin notes the time of an event; take ends the event.
func (g *Group) begin(now time.Time) { g.now = now }

func (g *Group) take() Effects {
	out := g.out
	g.out = Effects{}
	return out
}
