package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// CommitOffsets decides whether offsets may be committed. Generation -1 without a
// member id is a consumer that assigns itself, or an administrator: welcome while
// the group is empty. A commit of a member counts as a heartbeat.
func (g *Group) CommitOffsets(now time.Time, id string, instance *string, generation int32) *kerr.Error {
	g.begin(now)
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	if generation < 0 && g.state == Empty {
		return nil
	}
	if generation < 0 && id == "" && instance == nil {
		return kerr.UnknownMemberID
	}
	if err := g.validateMember(id, instance); err != nil {
		return err
	}
	if generation != g.generation {
		return kerr.IllegalGeneration
	}
	if g.state == CompletingRebalance {
		// The member knows of this generation, so it waits for its assignment
		// and must not commit for what it held before.
		return kerr.RebalanceInProgress
	}
	g.expectHeartbeat(g.members[id], g.members[id].sessionTimeout)
	return nil
}

// CommitTxnOffsets decides whether offsets may be committed in a transaction. Old
// producers name no member; one that does must be in the group's generation
// (KIP-447). In the middle of a rebalance its commit is welcome: the transaction
// began before.
func (g *Group) CommitTxnOffsets(now time.Time, id string, instance *string, generation int32) *kerr.Error {
	g.begin(now)
	switch {
	case g.state == Dead:
		return kerr.CoordinatorNotAvailable
	case generation < 0 && (g.state == Empty || id == "" && instance == nil):
		return nil
	}
	if err := g.validateMember(id, instance); err != nil {
		return err
	}
	if generation != g.generation {
		return kerr.IllegalGeneration
	}
	return nil
}

// DeleteOffsets decides whether offsets may be deleted at all; Subscribed then
// says for which topics.
func (g *Group) DeleteOffsets() *kerr.Error {
	switch {
	case g.state == Dead:
		return kerr.GroupIDNotFound
	case g.state != Empty && g.protocolType != consumerProtocolType:
		return kerr.NonEmptyGroup
	}
	return nil
}

// Delete marks an empty group as gone.
func (g *Group) Delete(now time.Time) *kerr.Error {
	g.begin(now)
	switch g.state {
	case Dead:
		return kerr.GroupIDNotFound
	case Empty:
		clear(g.pending)
		g.wake = never
		g.transition(Dead)
		return nil
	}
	return kerr.NonEmptyGroup
}

// Undelete takes back a Delete that could not be carried out.
func (g *Group) Undelete(now time.Time) {
	if g.state == Dead {
		since := g.since
		g.begin(now)
		g.transition(Empty)
		g.since = since
	}
}

// OffsetExpired tells whether an offset committed at committed has outlived
// retention. expires is the moment an old client asked for, or zero.
//
// An empty group keeps its offsets for the retention after its last member left,
// a stable consumer group those of topics it still consumes for ever, and
// offsets of consumers that assign themselves age from their commit (KIP-211).
func (g *Group) OffsetExpired(now time.Time, topic string, committed, expires time.Time, retention time.Duration) bool {
	var base time.Time
	switch {
	case g.protocolType == "" && g.state == Empty:
		base = committed
	case g.protocolType != "" && g.state == Empty:
		base = g.since
		if committed.After(base) {
			base = committed
		}
	case g.protocolType == consumerProtocolType && g.subscribed != nil && g.state == Stable:
		base = committed
	default:
		return false
	}
	if g.Subscribed(topic) {
		return false
	}
	if !expires.IsZero() {
		return !now.Before(expires)
	}
	return now.Sub(base) >= retention
}
