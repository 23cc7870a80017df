package assignor

import (
	"slices"

	"github.com/tidemark-io/tidemark/metadata"
)

// Range shares each topic among its subscribers by itself. A member keeps the
// lowest of the partitions it has, up to its share; what is free then goes to
// those below theirs in runs, in the order of the members.
func Range(topics []Topic, members []Member) [][]metadata.TopicPartition {
	t := newTable(topics, members)
	for topic, subscribers := range t.subscribers() {
		if len(subscribers) > 0 {
			t.share(topic, subscribers)
		}
	}
	return t.result()
}

func (t *table) share(topic int, subscribers []int) {
	least := int(t.topics[topic].Partitions) / len(subscribers)
	extra := int(t.topics[topic].Partitions) % len(subscribers)
	missing := make([]int, len(subscribers))
	for i, m := range subscribers {
		have := t.heldOf(m, topic)
		keep := min(len(have), least)
		missing[i] = least - keep
		if len(have) > least && extra > 0 {
			extra--
			keep++
			missing[i] = nobody // has its share, the extra one included
		}
		for _, n := range have[:keep] {
			t.give(n, m)
		}
	}
	next := t.first[topic]
	for i, m := range subscribers {
		if missing[i] == nobody {
			continue
		}
		if extra > 0 {
			extra--
			missing[i]++
		}
		for ; missing[i] > 0; next++ {
			if t.owner[next] == nobody {
				t.give(next, m)
				missing[i]--
			}
		}
	}
}

// heldOf lists what a member has of one topic, ascending.
func (t *table) heldOf(m, topic int) []int {
	all := t.members[m].Assigned
	from, _ := slices.BinarySearchFunc(all, metadata.TopicPartition{Topic: t.topics[topic].ID}, Compare)
	var have []int
	for _, tp := range all[from:] {
		if tp.Topic != t.topics[topic].ID {
			break
		}
		if n := t.first[topic] + int(tp.Partition); tp.Partition < t.topics[topic].Partitions && t.owner[n] == nobody {
			have = append(have, n)
		}
	}
	return slices.Compact(have)
}
