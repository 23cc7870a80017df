package assignor

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/tidemark-io/tidemark/metadata"
)

// Uniform balances the number of partitions over all topics.
func Uniform(topics []Topic, members []Member) [][]metadata.TopicPartition {
	t := newTable(topics, members)
	if len(members) == 0 {
		return nil
	}
	if t.alike() {
		t.uniformAlike()
	} else {
		t.uniformMixed()
	}
	return t.result()
}

// alike tells whether all members subscribe to the same topics.
func (t *table) alike() bool {
	for i := range t.members[1:] {
		if !slices.Equal(t.members[0].Topics, t.members[i+1].Topics) {
			return false
		}
	}
	return true
}

// uniformAlike gives everybody the same quota. Those who have more than the
// least quota get the extra partitions first, because they need not be moved.
func (t *table) uniformAlike() {
	total := 0
	for _, topic := range t.members[0].Topics {
		total += int(t.topics[topic].Partitions)
	}
	least, extra := total/len(t.members), total%len(t.members)
	quota := make([]int, len(t.members))
	for m := range t.members {
		var have []int
		t.held(m, func(_, number int) { have = append(have, number) })
		slices.Sort(have)
		have = slices.Compact(have)
		quota[m] = least
		if len(have) > least && extra > 0 {
			extra--
			quota[m]++
		}
		for _, n := range have[:min(len(have), quota[m])] {
			t.give(n, m)
		}
	}
	for m := range quota {
		if quota[m] == least && extra > 0 {
			extra--
			quota[m]++
		}
	}
	m := 0
	for _, topic := range t.members[0].Topics {
		for n := t.first[topic]; n < t.first[topic+1]; n++ {
			if t.owner[n] != nobody {
				continue
			}
			for t.count[m] >= quota[m] {
				m++
			}
			t.give(n, m)
		}
	}
}

// uniformMixed keeps what members have, gives what is free to whoever has least,
// and then moves partitions for as long as a move makes two members more equal.
// Every move lowers the sum of the squares of the counts, so it ends.
func (t *table) uniformMixed() {
	for m := range t.members {
		t.held(m, func(_, number int) { t.give(number, m) })
	}
	subscribers := t.subscribers()
	for _, topic := range t.narrowestFirst(subscribers) {
		t.fill(topic, subscribers[topic])
	}
	for moved := true; moved; {
		moved = false
		for topic := range t.topics {
			if len(subscribers[topic]) > 1 && t.level(topic, subscribers[topic]) {
				moved = true
			}
		}
	}
}

// narrowestFirst orders topics so that those with the fewest choices, and the
// most partitions a subscriber, are placed first.
func (t *table) narrowestFirst(subscribers [][]int) []int {
	order := make([]int, 0, len(t.topics))
	for topic := range t.topics {
		if len(subscribers[topic]) > 0 {
			order = append(order, topic)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		// Compare partitions per subscriber without dividing.
		x := int64(t.topics[a].Partitions) * int64(len(subscribers[b]))
		y := int64(t.topics[b].Partitions) * int64(len(subscribers[a]))
		if c := cmp.Compare(y, x); c != 0 {
			return c
		}
		return cmp.Compare(len(subscribers[a]), len(subscribers[b]))
	})
	return order
}

func (t *table) fill(topic int, subscribers []int) {
	h := t.fewest(subscribers)
	for n := t.first[topic]; n < t.first[topic+1]; n++ {
		if t.owner[n] == nobody {
			t.give(n, h.members[0])
			heap.Fix(h, 0)
		}
	}
}

// level moves partitions of a topic to the subscriber that has least, from those
// who have at least two more.
func (t *table) level(topic int, subscribers []int) bool {
	h := t.fewest(subscribers)
	moved := false
	for n := t.first[topic]; n < t.first[topic+1]; n++ {
		from, to := int(t.owner[n]), h.members[0]
		if t.count[from] < t.count[to]+2 {
			continue
		}
		t.move(n, to)
		heap.Fix(h, 0)
		heap.Fix(h, h.at[from])
		moved = true
	}
	return moved
}

// fewest is a heap of a topic's subscribers, the one with the fewest
// partitions, and of those the first, on top.
type fewest struct {
	t       *table
	members []int
	at      map[int]int // where a member is
}

func (t *table) fewest(subscribers []int) *fewest {
	h := &fewest{t: t, members: slices.Clone(subscribers), at: make(map[int]int, len(subscribers))}
	for i, m := range h.members {
		h.at[m] = i
	}
	heap.Init(h)
	return h
}

func (h *fewest) Len() int { return len(h.members) }

func (h *fewest) Less(i, j int) bool {
	a, b := h.members[i], h.members[j]
	if h.t.count[a] != h.t.count[b] {
		return h.t.count[a] < h.t.count[b]
	}
	return a < b
}

func (h *fewest) Swap(i, j int) {
	h.members[i], h.members[j] = h.members[j], h.members[i]
	h.at[h.members[i]], h.at[h.members[j]] = i, j
}

// Push and Pop complete heap.Interface; the heap's size never changes.
func (h *fewest) Push(any) {}

// Pop removes nothing.
func (h *fewest) Pop() any { return nil }
