package cluster

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/tidemark-io/tidemark/metadata"
)

// placed is one thing that the controller places: a partition, or a group
// shard dressed as one.
type placed struct {
	tp metadata.TopicPartition
	// preferred is where it lies or is on its way to; owner claimed it last.
	// Both are zero for what was never assigned.
	preferred, owner metadata.Incarnation
	// weight is its share of a broker's load, at least 1.
	weight int64
}

// settled reports whether the broker that should have it also claimed it.
func (p *placed) settled() bool { return p.owner == p.preferred }

// membership says what each broker may be given and may keep.
type membership struct {
	// accept lists the brokers that may be given more, ascending.
	accept []metadata.Incarnation
	// stay holds every broker whose partitions stay where they are. A broker in
	// neither is dead or draining: what it has moves at once.
	stay map[metadata.Incarnation]bool
	// calm allows rebalancing: no broker has just joined or is in doubt.
	calm bool
}

// move is one decision: tp goes from one broker to another. From is zero for
// what was never assigned.
type move struct {
	tp       metadata.TopicPartition
	from, to metadata.Incarnation
}

// plan decides where things go. What has no broker any more is placed at once;
// what has one is moved only in calm, only when the imbalance is worth it, the
// fewest possible, and no more than budget under way at a time. Planning again
// after its moves were made yields nothing.
func plan(things []placed, m membership, budget int) []move {
	if len(m.accept) == 0 {
		return nil
	}
	pl := newPlanner(things, m)
	pl.placeOrphans()
	if m.calm && len(m.accept) > 1 {
		pl.budget = budget - pl.underWay
		pl.levelTotals()
		pl.levelTopics()
	}
	return pl.moves
}

// planner is the state of one plan. Brokers are indices into accept.
type planner struct {
	m      membership
	index  map[metadata.Incarnation]int
	total  []int64                      // load of each accepting broker
	topics map[metadata.TopicID][]int64 // things of a topic on each accepting broker
	order  []metadata.TopicID
	// movable lists, by broker, what may be moved: settled things only, so that
	// nothing is moved again before it arrived.
	movable  [][]*placed
	orphans  []*placed
	underWay int
	budget   int
	moves    []move
}

func newPlanner(things []placed, m membership) *planner {
	pl := &planner{
		m:       m,
		index:   make(map[metadata.Incarnation]int, len(m.accept)),
		total:   make([]int64, len(m.accept)),
		topics:  make(map[metadata.TopicID][]int64),
		movable: make([][]*placed, len(m.accept)),
	}
	for i, inc := range m.accept {
		pl.index[inc] = i
	}
	sorted := make([]*placed, len(things))
	for i := range things {
		sorted[i] = &things[i]
	}
	slices.SortFunc(sorted, func(a, b *placed) int { return compareTP(a.tp, b.tp) })
	for _, t := range sorted {
		if pl.topics[t.tp.Topic] == nil {
			pl.topics[t.tp.Topic] = make([]int64, len(m.accept))
			pl.order = append(pl.order, t.tp.Topic)
		}
		if !m.stay[t.preferred] {
			pl.orphans = append(pl.orphans, t)
			continue
		}
		i, ok := pl.index[t.preferred]
		if !t.settled() {
			pl.underWay++
		}
		if ok {
			pl.count(t, i, 1)
			if t.settled() {
				pl.movable[i] = append(pl.movable[i], t)
			}
		}
	}
	return pl
}

func compareTP(a, b metadata.TopicPartition) int {
	if c := bytes.Compare(a.Topic[:], b.Topic[:]); c != 0 {
		return c
	}
	return cmp.Compare(a.Partition, b.Partition)
}

func (pl *planner) count(t *placed, broker int, sign int64) {
	pl.total[broker] += sign * t.weight
	pl.topics[t.tp.Topic][broker] += sign
}

func (pl *planner) move(t *placed, to int) {
	pl.moves = append(pl.moves, move{tp: t.tp, from: t.preferred, to: pl.m.accept[to]})
}

// placeOrphans gives each orphan back to an accepting broker that still owns
// it, which moves nothing, or else to the broker with the fewest of its topic
// and, among those, the least load.
func (pl *planner) placeOrphans() {
	homeless := pl.orphans[:0:0]
	for _, t := range pl.orphans {
		if i, ok := pl.index[t.owner]; ok {
			pl.count(t, i, 1)
			pl.move(t, i)
			continue
		}
		homeless = append(homeless, t)
	}
	for _, t := range homeless {
		best := 0
		ofTopic := pl.topics[t.tp.Topic]
		for i := range pl.total {
			if c := cmp.Compare(ofTopic[i], ofTopic[best]); c < 0 || c == 0 && pl.total[i] < pl.total[best] {
				best = i
			}
		}
		pl.count(t, best, 1)
		pl.move(t, best)
	}
}

// spread is the distance between the fullest and the emptiest broker.
func (pl *planner) spread() int64 { return slices.Max(pl.total) - slices.Min(pl.total) }

func (pl *planner) mean() int64 {
	var sum int64
	for _, t := range pl.total {
		sum += t
	}
	return sum / int64(len(pl.total))
}

// Hysteresis: levelling begins above a tenth of the mean and ends below a
// twentieth, so that a small change of load moves nothing. A spread of one
// partition is always level.
func (pl *planner) tolerated() int64 { return max(1, pl.mean()/10) }

// levelTotals moves load from the fullest brokers to the emptiest.
func (pl *planner) levelTotals() {
	if pl.spread() <= pl.tolerated() {
		return
	}
	enough := max(1, pl.mean()/20)
	for pl.budget > 0 && pl.spread() > enough {
		to := indexOfMin(pl.total)
		from, t := pl.heaviestDonor(to)
		if t < 0 {
			return
		}
		pl.shift(from, t, to)
	}
}

// heaviestDonor finds, from the fullest broker down, one that has something
// whose move to the given broker narrows the spread.
func (pl *planner) heaviestDonor(to int) (broker, thing int) {
	donors := make([]int, len(pl.total))
	for i := range donors {
		donors[i] = i
	}
	slices.SortStableFunc(donors, func(a, b int) int { return cmp.Compare(pl.total[b], pl.total[a]) })
	for _, from := range donors {
		if t := pl.bestToShift(from, to); t >= 0 {
			return from, t
		}
	}
	return -1, -1
}

// bestToShift picks what to move: of the topic that is most unevenly spread
// between the two brokers, then what comes closest to halving the distance.
func (pl *planner) bestToShift(from, to int) int {
	gap := pl.total[from] - pl.total[to]
	best, bestSkew, bestOff := -1, int64(0), int64(0)
	for i, t := range pl.movable[from] {
		if t.weight >= gap {
			continue // would only swap the two brokers' roles
		}
		of := pl.topics[t.tp.Topic]
		skew, off := of[from]-of[to], abs(gap-2*t.weight)
		if best < 0 || skew > bestSkew || skew == bestSkew && off < bestOff {
			best, bestSkew, bestOff = i, skew, off
		}
	}
	return best
}

// shift moves the i-th movable thing of a broker and spends budget.
func (pl *planner) shift(from, i, to int) {
	t := pl.movable[from][i]
	pl.movable[from] = slices.Delete(pl.movable[from], i, i+1)
	pl.count(t, from, -1)
	pl.count(t, to, 1)
	pl.move(t, to)
	pl.budget--
}

// levelTopics evens out topics that lie lopsidedly although the totals are
// level, exchanging partitions of two topics where a plain move would tilt the
// totals. Each step lowers the sum of the squares of the topics' counts, so it ends.
func (pl *planner) levelTopics() {
	for _, topic := range pl.order {
		of := pl.topics[topic]
		for pl.budget > 0 {
			from, to := indexOfMax(of), indexOfMin(of)
			gap := of[from] - of[to]
			if gap < 2 || gap*5 <= (of[from]+of[to])/2 || !pl.levelTopic(topic, from, to) {
				break
			}
		}
	}
}

func (pl *planner) levelTopic(topic metadata.TopicID, from, to int) bool {
	i := slices.IndexFunc(pl.movable[from], func(t *placed) bool { return t.tp.Topic == topic })
	if i < 0 {
		return false
	}
	t := pl.movable[from][i]
	if pl.levelAfter(from, to, t.weight) {
		pl.shift(from, i, to)
		return true
	}
	if pl.budget < 2 {
		return false
	}
	for j, u := range pl.movable[to] {
		of := pl.topics[u.tp.Topic]
		if u.tp.Topic != topic && of[to] > of[from] && pl.levelAfter(from, to, t.weight-u.weight) {
			pl.shift(from, i, to)
			pl.shift(to, j, from)
			return true
		}
	}
	return false
}

// levelAfter reports whether the totals stay level, or get no worse, when
// weight goes from one broker to another.
func (pl *planner) levelAfter(from, to int, weight int64) bool {
	before := pl.spread()
	pl.total[from] -= weight
	pl.total[to] += weight
	after := pl.spread()
	pl.total[from] += weight
	pl.total[to] -= weight
	return after <= max(before, pl.tolerated())
}

func indexOfMin(v []int64) int {
	best := 0
	for i := range v {
		if v[i] < v[best] {
			best = i
		}
	}
	return best
}

func indexOfMax(v []int64) int {
	best := 0
	for i := range v {
		if v[i] > v[best] {
			best = i
		}
	}
	return best
}

func abs(v int64) int64 { return max(v, -v) }
