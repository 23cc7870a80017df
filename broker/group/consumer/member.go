package consumer

import (
	"slices"
	"time"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/metadata"
)

// MemberState is how far a member is on its way to its target.
type MemberState int8

// The states, as Kafka numbers them.
const (
	Stable MemberState = iota
	Unrevoked
	Unreleased
)

// epochs that requests carry instead of the member's.
const (
	joinEpoch        int32 = 0
	leaveEpoch       int32 = -1
	leaveStaticEpoch int32 = -2
)

// Member is one member of a group at one moment. It does not change.
type Member struct {
	ID         string
	Instance   *string
	Rack       *string
	ClientID   string
	ClientHost string
	// RebalanceTimeout is how long it may take to give up partitions.
	RebalanceTimeout time.Duration
	// Topics are sorted; Regex is empty for none.
	Topics []string
	Regex  string
	// Assignor is empty for a member that leaves the choice.
	Assignor string

	// Epoch is -2 while a static member is away for a moment. Previous is what
	// it was before: a reply that carried the newer one may have been lost.
	Epoch    int32
	Previous int32
	State    MemberState
	// Assigned is what it has or is about to get, Revoking what it has to give
	// up and may still have, Target what it should have.
	Assigned []Held
	Revoking []Held
	Target   []metadata.TopicPartition

	// Classic is set for a member that speaks the classic protocol.
	Classic *Classic
}

// Classic is what a classic member joined with.
type Classic struct {
	SessionTimeout time.Duration
	Protocols      []group.Protocol
}

// with returns a changed copy.
func (m *Member) with(change func(*Member)) *Member {
	c := *m
	change(&c)
	return &c
}

// advanced returns a copy in the epoch.
func (m *Member) advanced(epoch int32, change func(*Member)) *Member {
	return m.with(func(c *Member) {
		if c.Epoch != epoch {
			c.Previous, c.Epoch = c.Epoch, epoch
		}
		change(c)
	})
}

// reconciled tells whether nothing is left to do towards the target.
func (m *Member) reconciled(assignmentEpoch int32) bool {
	return m.State == Stable && m.Epoch == assignmentEpoch
}

func sameText(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// sameSubscription compares all that a request can change.
func (m *Member) sameSubscription(o *Member) bool {
	return sameText(m.Instance, o.Instance) && sameText(m.Rack, o.Rack) &&
		m.ClientID == o.ClientID && m.ClientHost == o.ClientHost && m.RebalanceTimeout == o.RebalanceTimeout &&
		slices.Equal(m.Topics, o.Topics) && m.Regex == o.Regex && m.Assignor == o.Assignor && m.Classic.same(o.Classic)
}

func (c *Classic) same(o *Classic) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.SessionTimeout == o.SessionTimeout && slices.EqualFunc(c.Protocols, o.Protocols, func(a, b group.Protocol) bool {
		return a.Name == b.Name && string(a.Metadata) == string(b.Metadata)
	})
}

// bytes is what the member's own words cost to keep.
func (m *Member) bytes() int {
	n := len(m.ID) + len(m.ClientID) + len(m.ClientHost) + len(m.Regex) + len(m.Assignor)
	for _, s := range []*string{m.Instance, m.Rack} {
		if s != nil {
			n += len(*s)
		}
	}
	for _, t := range m.Topics {
		n += len(t) + 16
	}
	if m.Classic != nil {
		for _, p := range m.Classic.Protocols {
			n += len(p.Name) + len(p.Metadata) + 16
		}
	}
	return n
}
