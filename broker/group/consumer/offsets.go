package consumer

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/metadata"
)

// memberCommitVersion is the first version of OffsetCommit that a member of the
// new protocol may use: it knows STALE_MEMBER_EPOCH.
const memberCommitVersion = 9

// CommitOffsets decides whether offsets may be committed. An epoch below zero in
// an empty group is an administrator's, or of a consumer that assigns itself.
// accepts, when not nil, decides for each partition: one who has not heard of
// its newest epoch yet may commit for what it has had since an older one
// (KIP-1251).
func (g *Group) CommitOffsets(now time.Time, id string, epoch int32, version int16) (accepts func(metadata.TopicPartition) bool, err *kerr.Error) {
	g.begin(now)
	if g.dead {
		return nil, kerr.CoordinatorNotAvailable
	}
	if epoch < 0 && len(g.members) == 0 {
		return nil, nil
	}
	m := g.members[id]
	switch {
	case m == nil:
		return nil, kerr.UnknownMemberID
	case m.Classic != nil && epoch != m.Epoch:
		return nil, kerr.IllegalGeneration
	case m.Classic != nil:
		g.awakeSession(m)
		return nil, nil
	case version < memberCommitVersion:
		return nil, kerr.UnsupportedVersion
	case epoch == m.Epoch:
		return nil, nil
	case epoch > m.Epoch || epoch < 0:
		return nil, kerr.StaleMemberEpoch
	}
	return func(tp metadata.TopicPartition) bool { return m.since(tp) <= epoch }, nil
}

// CommitTxnOffsets decides whether offsets may be committed in a transaction. Old
// producers name no member; one that does must be in its epoch (KIP-447).
func (g *Group) CommitTxnOffsets(now time.Time, id string, instance *string, epoch int32) *kerr.Error {
	g.begin(now)
	switch {
	case g.dead:
		return kerr.CoordinatorNotAvailable
	case epoch < 0 && (len(g.members) == 0 || id == "" && instance == nil):
		return nil
	}
	m := g.members[id]
	switch {
	case m == nil:
		return kerr.UnknownMemberID
	case epoch != m.Epoch:
		return kerr.IllegalGeneration
	}
	return nil
}

// since is the epoch from which on m has had tp.
func (m *Member) since(tp metadata.TopicPartition) int32 {
	for _, held := range [][]Held{m.Assigned, m.Revoking} {
		if h, ok := find(held, tp); ok {
			return h.Since
		}
	}
	return 1<<31 - 1
}

// FetchOffsets decides whether offsets may be fetched: a member that tells its
// epoch must be right about it, because it is about to begin where others left
// off.
func (g *Group) FetchOffsets(id *string, epoch int32) *kerr.Error {
	if epoch < 0 && (id == nil || *id == "") {
		return nil
	}
	var m *Member
	if id != nil {
		m = g.members[*id]
	}
	switch {
	case m == nil:
		return kerr.UnknownMemberID
	case m.Epoch == epoch:
		return nil
	case m.Classic != nil:
		return kerr.IllegalGeneration
	}
	return kerr.StaleMemberEpoch
}

// DeleteOffsets decides whether offsets may be deleted at all; Subscribed then
// says for which topics.
func (g *Group) DeleteOffsets() *kerr.Error {
	if g.dead {
		return kerr.GroupIDNotFound
	}
	return nil
}

// Subscribed tells whether the group consumes the topic.
func (g *Group) Subscribed(topic string) bool {
	if g.topics[topic] > 0 {
		return true
	}
	for regex := range g.regexes {
		if _, ok := findName(g.matches[regex].Topics, topic); ok {
			return true
		}
	}
	return false
}

// OffsetExpired tells whether an offset committed at committed has outlived
// retention: counted from the commit, or, when the group has lost its last
// member since, from then. expires is what an old client asked for, or zero.
func (g *Group) OffsetExpired(now time.Time, topic string, committed, expires time.Time, retention time.Duration) bool {
	if g.Subscribed(topic) {
		return false
	}
	if !expires.IsZero() {
		return !now.Before(expires)
	}
	base := committed
	if len(g.members) == 0 && g.since.After(base) {
		base = g.since
	}
	return now.Sub(base) >= retention
}

// Delete marks an empty group as gone.
func (g *Group) Delete(now time.Time) *kerr.Error {
	g.begin(now)
	switch {
	case g.dead:
		return kerr.GroupIDNotFound
	case len(g.members) > 0:
		return kerr.NonEmptyGroup
	}
	g.dead, g.wake = true, never
	return nil
}

// Undelete takes back a Delete that could not be carried out.
func (g *Group) Undelete(time.Time) { g.dead = false }
