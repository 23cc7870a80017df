package consumer

import (
	"slices"

	"github.com/tidemark-io/tidemark/metadata"
)

// State is a group's state, in Kafka's words.
type State string

// The states of a consumer group.
const (
	StateEmpty       State = "Empty"
	StateAssigning   State = "Assigning"
	StateReconciling State = "Reconciling"
	StateStable      State = "Stable"
	StateDead        State = "Dead"
)

// States lists every state.
func States() []State {
	return []State{StateEmpty, StateAssigning, StateReconciling, StateStable, StateDead}
}

// State is the group's state.
func (g *Group) State() State {
	switch {
	case g.dead:
		return StateDead
	case len(g.members) == 0:
		return StateEmpty
	case g.epoch > g.assignmentEpoch:
		return StateAssigning
	case !g.stable():
		return StateReconciling
	}
	return StateStable
}

// Description is a group as administrators see it.
type Description struct {
	State           State
	Epoch           int32
	AssignmentEpoch int32
	Assignor        string
	Members         []*Member
}

// Describe describes the group.
func (g *Group) Describe() Description {
	return Description{
		State: g.State(), Epoch: g.epoch, AssignmentEpoch: g.assignmentEpoch,
		Assignor: g.assignor(), Members: g.Snapshot().Members,
	}
}

// Partitions are what the member has or is about to get.
func (m *Member) Partitions() []metadata.TopicPartition { return partitionsOf(m.Assigned) }

func findName(sorted []string, name string) (int, bool) { return slices.BinarySearch(sorted, name) }
