package cluster

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tidemark-io/tidemark/metadata"
)

// world is a set of things and brokers that plans are applied to.
type world struct {
	things []placed
	m      membership
}

func newWorld(brokers ...metadata.Incarnation) *world {
	w := &world{m: membership{stay: map[metadata.Incarnation]bool{}, calm: true}}
	for _, b := range brokers {
		w.join(b)
	}
	return w
}

func (w *world) join(b metadata.Incarnation) {
	w.m.accept = append(w.m.accept, b)
	slices.Sort(w.m.accept)
	w.m.stay[b] = true
}

func (w *world) leave(b metadata.Incarnation) {
	w.m.accept = slices.DeleteFunc(w.m.accept, func(o metadata.Incarnation) bool { return o == b })
	delete(w.m.stay, b)
}

func (w *world) topic(n byte, partitions int) {
	for p := range partitions {
		w.things = append(w.things, placed{tp: testTP(n, int32(p)), weight: 1})
	}
}

// step plans and makes the moves, and settles them.
func (w *world) step(budget int) []move {
	moves := plan(w.things, w.m, budget)
	to := map[metadata.TopicPartition]metadata.Incarnation{}
	for _, mv := range moves {
		to[mv.tp] = mv.to
	}
	for i := range w.things {
		if inc, ok := to[w.things[i].tp]; ok {
			w.things[i].preferred, w.things[i].owner = inc, inc
		}
	}
	return moves
}

// settle steps until nothing moves and returns the number of moves.
func (w *world) settle(t *testing.T) int {
	t.Helper()
	n := 0
	for range 1000 {
		moves := w.step(50)
		if len(moves) == 0 {
			return n
		}
		n += len(moves)
	}
	t.Fatal("plan never settles")
	return 0
}

func (w *world) counts() map[metadata.Incarnation]int {
	c := map[metadata.Incarnation]int{}
	for _, b := range w.m.accept {
		c[b] = 0
	}
	for _, t := range w.things {
		c[t.preferred]++
	}
	return c
}

func (w *world) topicSpread(n byte) int {
	c := map[metadata.Incarnation]int{}
	for _, b := range w.m.accept {
		c[b] = 0
	}
	for _, t := range w.things {
		if t.tp.Topic[0] == n {
			c[t.preferred]++
		}
	}
	lo, hi := 1<<30, 0
	for _, b := range w.m.accept {
		lo, hi = min(lo, c[b]), max(hi, c[b])
	}
	return hi - lo
}

func testTP(topic byte, p int32) metadata.TopicPartition {
	return metadata.TopicPartition{Topic: metadata.TopicID{topic}, Partition: p}
}

func TestNewTopicIsSpreadEvenly(t *testing.T) {
	w := newWorld(1, 2, 3)
	w.topic('a', 12)
	if n := w.settle(t); n != 12 {
		t.Fatalf("%d moves for 12 partitions", n)
	}
	for b, c := range w.counts() {
		if c != 4 {
			t.Errorf("broker %d has %d partitions, want 4", b, c)
		}
	}
}

func TestJoinMovesTheMinimum(t *testing.T) {
	w := newWorld(1, 2, 3)
	w.topic('a', 12)
	w.topic('b', 12)
	w.settle(t)
	w.join(4)
	if n := w.settle(t); n != 6 {
		t.Errorf("%d moves, want 6", n)
	}
	for b, c := range w.counts() {
		if c != 6 {
			t.Errorf("broker %d has %d partitions, want 6", b, c)
		}
	}
	if a, b := w.topicSpread('a'), w.topicSpread('b'); a > 1 || b > 1 {
		t.Errorf("topics are spread by %d and %d", a, b)
	}
}

func TestDeathMovesOnlyWhatItHad(t *testing.T) {
	w := newWorld(1, 2, 3)
	w.topic('a', 12)
	w.settle(t)
	had := w.counts()[2]
	w.leave(2)
	w.m.calm = false
	if n := len(w.step(50)); n != had {
		t.Errorf("%d moves, want %d", n, had)
	}
	if c := w.counts(); c[1] != 6 || c[3] != 6 {
		t.Errorf("counts %v", c)
	}
}

func TestSmallImbalanceMovesNothing(t *testing.T) {
	w := newWorld(1, 2)
	w.topic('a', 200)
	w.settle(t)
	for i := range 4 { // 104 against 96
		j := slices.IndexFunc(w.things, func(p placed) bool { return p.preferred == 2 })
		w.things[j].preferred, w.things[j].owner = 1, 1
		_ = i
	}
	if moves := w.step(50); len(moves) != 0 {
		t.Errorf("%d moves", len(moves))
	}
}

func TestNothingUnderWayIsMovedAgain(t *testing.T) {
	w := newWorld(1, 2)
	w.topic('a', 10)
	for i := range w.things {
		w.things[i].preferred, w.things[i].owner = 1, 2
	}
	if moves := plan(w.things, w.m, 50); len(moves) != 0 {
		t.Errorf("moved %v although all is under way", moves)
	}
	for i := range w.things {
		w.things[i].owner = 1
	}
	if moves := plan(w.things, w.m, 3); len(moves) != 3 {
		t.Errorf("%d moves with a budget of 3", len(moves))
	}
	w.things[0].owner, w.things[1].owner = 2, 2
	if moves := plan(w.things, w.m, 3); len(moves) != 1 {
		t.Errorf("%d moves with a budget of 3 and 2 under way", len(moves))
	}
}

func TestLopsidedTopicsAreExchanged(t *testing.T) {
	w := newWorld(1, 2)
	w.topic('a', 6)
	w.topic('b', 6)
	for i := range w.things {
		on := metadata.Incarnation(1 + i/6)
		w.things[i].preferred, w.things[i].owner = on, on
	}
	w.settle(t)
	if c := w.counts(); c[1] != 6 || c[2] != 6 || w.topicSpread('a') > 1 || w.topicSpread('b') > 1 {
		t.Errorf("counts %v, topics spread by %d and %d", c, w.topicSpread('a'), w.topicSpread('b'))
	}
}

func TestOrphanReturnsToItsOwner(t *testing.T) {
	w := newWorld(1, 2)
	w.topic('a', 1)
	w.things[0].preferred, w.things[0].owner = 9, 2 // 9 died before it claimed
	moves := plan(w.things, w.m, 50)
	if len(moves) != 1 || moves[0].to != 2 {
		t.Errorf("moves %v", moves)
	}
}

func TestAbsentBrokerKeepsWhatItHas(t *testing.T) {
	w := newWorld(1, 2, 3)
	w.topic('a', 12)
	w.settle(t)
	w.leave(3)
	w.m.stay[3], w.m.calm = true, false
	if moves := w.step(50); len(moves) != 0 {
		t.Errorf("moved %v off a broker that may return", moves)
	}
}

func TestNobodyAccepts(t *testing.T) {
	w := newWorld(1)
	w.topic('a', 3)
	w.settle(t)
	w.leave(1)
	if moves := w.step(50); len(moves) != 0 {
		t.Errorf("moves %v with nobody to take them", moves)
	}
}

func TestWeightsAreLevelled(t *testing.T) {
	w := newWorld(1, 2)
	w.topic('a', 4)
	for i, weight := range []int64{70, 10, 10, 10} {
		w.things[i].preferred, w.things[i].owner, w.things[i].weight = 1, 1, weight
	}
	w.settle(t)
	var load [3]int64
	for _, p := range w.things {
		load[p.preferred] += p.weight
	}
	if abs(load[1]-load[2]) > 40 {
		t.Errorf("loads %v", load[1:])
	}
}

// TestPlanProperties drives random histories and checks after each that the
// plan settles, leaves nothing without a broker, levels totals and topics, and
// moves no more than had to move.
func TestPlanProperties(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(1, 2, 3)
		next := metadata.Incarnation(4)
		topics := byte(0)
		for range 12 {
			var bound int
			before := w.counts()
			switch k := r.IntN(4); {
			case k == 0 || topics == 0:
				topics++
				n := 1 + r.IntN(16)
				w.topic(topics, n)
				bound = len(w.things)
			case k == 1:
				w.join(next)
				next++
				bound = fewestToLevel(before, w.m.accept)
			case k == 2 && len(w.m.accept) > 1:
				b := w.m.accept[r.IntN(len(w.m.accept))]
				w.leave(b)
				bound = len(w.things)
			default:
				bound = 0
			}
			// Only topics that lie lopsidedly may cost more than levelling does.
			moved := w.settle(t)
			if slack := 2 * int(topics); moved > bound+slack {
				t.Fatalf("seed %d: %d moves, bound %d", seed, moved, bound)
			}
			c := w.counts()
			lo, hi, sum := 1<<30, 0, 0
			for _, b := range w.m.accept {
				lo, hi, sum = min(lo, c[b]), max(hi, c[b]), sum+c[b]
			}
			if sum != len(w.things) {
				t.Fatalf("seed %d: %d of %d placed", seed, sum, len(w.things))
			}
			if mean := sum / len(w.m.accept); hi-lo > max(1, mean/10) {
				t.Fatalf("seed %d: totals %v", seed, c)
			}
			for topic := byte(1); topic <= topics; topic++ {
				if s := w.topicSpread(topic); s > 3 {
					t.Errorf("seed %d: topic %d spread %d", seed, topic, s)
				}
			}
		}
	}
}

// fewestToLevel is the least number of moves that makes counts differ by at
// most one: what lies above a level's ceiling, or below its floor.
func fewestToLevel(c map[metadata.Incarnation]int, brokers []metadata.Incarnation) int {
	sum := 0
	for _, b := range brokers {
		sum += c[b]
	}
	floor := sum / len(brokers)
	above, below := 0, 0
	for _, b := range brokers {
		above += max(0, c[b]-floor-1)
		below += max(0, floor-c[b])
	}
	return max(above, below)
}

func BenchmarkPlan(b *testing.B) {
	for _, name := range []string{"settled", "joined"} {
		w := newWorld(1, 2, 3, 4, 5)
		for topic := range byte(100) {
			w.topic(topic, 100)
		}
		for len(w.step(50)) > 0 {
		}
		if name == "joined" {
			w.join(6)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				plan(w.things, w.m, 50)
			}
		})
	}
}
