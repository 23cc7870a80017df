package consumer

import (
	"slices"

	"github.com/tidemark-io/tidemark/broker/group/assignor"
	"github.com/tidemark-io/tidemark/metadata"
)

// Partition sets are sorted slices that never change.

// Held is a partition that a member has, since the epoch it was assigned in:
// commits for it are good from that epoch on (KIP-1251).
type Held struct {
	metadata.TopicPartition
	Since int32
}

func compareHeld(a, b Held) int { return assignor.Compare(a.TopicPartition, b.TopicPartition) }

// SortPartitions makes a set of a list.
func SortPartitions(list []metadata.TopicPartition) []metadata.TopicPartition {
	list = slices.Clone(list)
	slices.SortFunc(list, assignor.Compare)
	return slices.Compact(list)
}

func contains(set []metadata.TopicPartition, tp metadata.TopicPartition) bool {
	_, ok := slices.BinarySearchFunc(set, tp, assignor.Compare)
	return ok
}

func find(held []Held, tp metadata.TopicPartition) (Held, bool) {
	i, ok := slices.BinarySearchFunc(held, Held{TopicPartition: tp}, compareHeld)
	if !ok {
		return Held{}, false
	}
	return held[i], true
}

// owns tells whether owned has any of held.
func owns(owned []metadata.TopicPartition, held []Held) bool {
	return slices.ContainsFunc(held, func(h Held) bool { return contains(owned, h.TopicPartition) })
}

// within tells whether owned is a subset of held.
func within(owned []metadata.TopicPartition, held []Held) bool {
	return !slices.ContainsFunc(owned, func(tp metadata.TopicPartition) bool {
		_, ok := find(held, tp)
		return !ok
	})
}

// merged is the union of two disjoint sets.
func merged(a, b []Held) []Held {
	out := slices.Concat(a, b)
	slices.SortFunc(out, compareHeld)
	return out
}

// samePartitions compares without epochs.
func samePartitions(a, b []Held) bool {
	return slices.EqualFunc(a, b, func(x, y Held) bool { return x.TopicPartition == y.TopicPartition })
}

func partitionsOf(held []Held) []metadata.TopicPartition {
	out := make([]metadata.TopicPartition, len(held))
	for i, h := range held {
		out[i] = h.TopicPartition
	}
	return out
}
