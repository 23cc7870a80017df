// Package assignor distributes partitions among the members of a group that
// leaves that to its coordinator (KIP-848). It is pure: the same input gives the
// same output, whichever broker computes it.
//
//   - Uniform gives every member the same number of partitions, as nearly as the
//     subscriptions allow, and moves as few as that permits.
//   - Range gives every member the same share of each topic, so that topics with
//     as many partitions as one another are assigned alike and can be joined; it
//     also keeps what members have where the shares allow.
//
// Neither looks at racks, as Apache Kafka 4.x's do not. Where Kafka leaves a
// choice to the order of a hash map, the order of the members decides here.
package assignor

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/tidemark-io/tidemark/metadata"
)

// Topic is a topic that exists and that somebody subscribes to.
type Topic struct {
	ID         metadata.TopicID
	Partitions int32
}

// Member is a member with what it wants and what it was assigned last.
type Member struct {
	// Topics are indexes into the topics, ascending.
	Topics []int
	// Assigned, sorted, may contain what no longer exists or is not wanted any
	// more, and even what another member was assigned as well.
	Assigned []metadata.TopicPartition
}

// Func is an assignor. The result has an element for each member, sorted.
type Func func(topics []Topic, members []Member) [][]metadata.TopicPartition

// Names of the assignors, the default first.
const (
	UniformName = "uniform"
	RangeName   = "range"
)

// Named returns the assignor of a name.
func Named(name string) (Func, bool) {
	switch name {
	case UniformName:
		return Uniform, true
	case RangeName:
		return Range, true
	}
	return nil, false
}

const nobody = -1

// table knows the owner of every partition, numbered through all topics.
type table struct {
	topics  []Topic
	members []Member
	// first is the number of a topic's partition 0; one more than topics.
	first []int
	byID  map[metadata.TopicID]int
	owner []int32
	count []int
}

func newTable(topics []Topic, members []Member) *table {
	t := &table{
		topics: topics, members: members,
		first: make([]int, len(topics)+1),
		byID:  make(map[metadata.TopicID]int, len(topics)),
		count: make([]int, len(members)),
	}
	for i, topic := range topics {
		t.first[i+1] = t.first[i] + int(topic.Partitions)
		t.byID[topic.ID] = i
	}
	t.owner = make([]int32, t.first[len(topics)])
	for i := range t.owner {
		t.owner[i] = nobody
	}
	return t
}

// held calls f for each of a member's partitions that it may keep: of a topic
// that it wants, existing, and not given to another.
func (t *table) held(m int, f func(topic, number int)) {
	for _, tp := range t.members[m].Assigned {
		topic, ok := t.byID[tp.Topic]
		if !ok || tp.Partition < 0 || tp.Partition >= t.topics[topic].Partitions || !t.wants(m, topic) {
			continue
		}
		if n := t.first[topic] + int(tp.Partition); t.owner[n] == nobody {
			f(topic, n)
		}
	}
}

func (t *table) wants(m, topic int) bool {
	_, ok := slices.BinarySearch(t.members[m].Topics, topic)
	return ok
}

func (t *table) give(number, m int) {
	t.owner[number] = int32(m)
	t.count[m]++
}

func (t *table) move(number, m int) {
	t.count[t.owner[number]]--
	t.give(number, m)
}

// subscribers lists the members of each topic.
func (t *table) subscribers() [][]int {
	all := make([][]int, len(t.topics))
	for m := range t.members {
		for _, topic := range t.members[m].Topics {
			all[topic] = append(all[topic], m)
		}
	}
	return all
}

// result turns the table into assignments.
func (t *table) result() [][]metadata.TopicPartition {
	out := make([][]metadata.TopicPartition, len(t.members))
	for m, n := range t.count {
		if n > 0 {
			out[m] = make([]metadata.TopicPartition, 0, n)
		}
	}
	for i, topic := range t.topics {
		for p := range topic.Partitions {
			if m := t.owner[t.first[i]+int(p)]; m != nobody {
				out[m] = append(out[m], metadata.TopicPartition{Topic: topic.ID, Partition: p})
			}
		}
	}
	for _, list := range out {
		slices.SortFunc(list, Compare)
	}
	return out
}

// Compare orders partitions by topic id, then number.
func Compare(a, b metadata.TopicPartition) int {
	if c := bytes.Compare(a.Topic[:], b.Topic[:]); c != 0 {
		return c
	}
	return cmp.Compare(a.Partition, b.Partition)
}
