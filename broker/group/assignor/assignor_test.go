package assignor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tidemark-io/tidemark/metadata"
)

func topicID(i int) metadata.TopicID { return metadata.TopicID{0: byte(i*37 + 11), 15: byte(i)} }

func topics(counts ...int32) []Topic {
	var out []Topic
	for i, n := range counts {
		out = append(out, Topic{ID: topicID(i), Partitions: n})
	}
	return out
}

// run assigns and keeps the result as what the members have.
func run(t *testing.T, f Func, tops []Topic, members []Member) [][]metadata.TopicPartition {
	t.Helper()
	got := f(tops, members)
	if len(got) != len(members) {
		t.Fatalf("%d assignments for %d members", len(got), len(members))
	}
	checkWhole(t, tops, members, got)
	return got
}

// checkWhole: each partition somebody wants is given once, to one who wants it.
func checkWhole(t *testing.T, tops []Topic, members []Member, got [][]metadata.TopicPartition) {
	t.Helper()
	owner := map[metadata.TopicPartition]int{}
	index := map[metadata.TopicID]int{}
	for i, topic := range tops {
		index[topic.ID] = i
	}
	for m, list := range got {
		if !slices.IsSortedFunc(list, Compare) {
			t.Fatalf("member %d: not sorted", m)
		}
		for _, tp := range list {
			if other, dup := owner[tp]; dup {
				t.Fatalf("%s given to %d and %d", tp, other, m)
			}
			owner[tp] = m
			i, ok := index[tp.Topic]
			if !ok || tp.Partition >= tops[i].Partitions || !slices.Contains(members[m].Topics, i) {
				t.Fatalf("member %d got %s, which it cannot have", m, tp)
			}
		}
	}
	for i, topic := range tops {
		wanted := slices.ContainsFunc(members, func(m Member) bool { return slices.Contains(m.Topics, i) })
		for p := range topic.Partitions {
			if _, ok := owner[metadata.TopicPartition{Topic: topic.ID, Partition: p}]; ok != wanted {
				t.Fatalf("topic %d partition %d: given %v, wanted %v", i, p, ok, wanted)
			}
		}
	}
}

func keep(members []Member, got [][]metadata.TopicPartition) {
	for i := range members {
		members[i].Assigned = got[i]
	}
}

func randomInput(rng *rand.Rand) ([]Topic, []Member) {
	var counts []int32
	for range 1 + rng.IntN(5) {
		counts = append(counts, int32(rng.IntN(9)))
	}
	tops := topics(counts...)
	members := make([]Member, 1+rng.IntN(7))
	alike := rng.IntN(2) == 0
	for m := range members {
		for i := range tops {
			if alike && (i+len(members))%2 == 0 || !alike && rng.IntN(2) == 0 {
				members[m].Topics = append(members[m].Topics, i)
			}
		}
		// What they claim to have overlaps, is stale and is out of range.
		for range rng.IntN(6) {
			members[m].Assigned = append(members[m].Assigned,
				metadata.TopicPartition{Topic: topicID(rng.IntN(7)), Partition: int32(rng.IntN(10))})
		}
		slices.SortFunc(members[m].Assigned, Compare)
	}
	return tops, members
}

func TestRandomInputs(t *testing.T) {
	for name, f := range map[string]Func{UniformName: Uniform, RangeName: Range} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3000) {
				rng := rand.New(rand.NewPCG(seed, 7))
				tops, members := randomInput(rng)
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					got := run(t, f, tops, members)
					checkFair(t, name, tops, members, got)
					keep(members, got)
					if again := run(t, f, tops, members); !equal(got, again) {
						t.Fatalf("not stable:\n%v\n%v", got, again)
					}
				})
			}
		})
	}
}

func equal(a, b [][]metadata.TopicPartition) bool {
	return slices.EqualFunc(a, b, func(x, y []metadata.TopicPartition) bool { return slices.Equal(x, y) })
}

// checkFair: Range is fair in each topic, Uniform in all together, as far as no
// single move could make two members more equal.
func checkFair(t *testing.T, name string, tops []Topic, members []Member, got [][]metadata.TopicPartition) {
	t.Helper()
	if name == RangeName {
		for i, topic := range tops {
			low, high := 1<<30, 0
			for m := range members {
				if slices.Contains(members[m].Topics, i) {
					n := countOf(got[m], topic.ID)
					low, high = min(low, n), max(high, n)
				}
			}
			if high > low+1 && low < 1<<30 {
				t.Fatalf("topic %d: shares from %d to %d", i, low, high)
			}
		}
		return
	}
	for m := range members {
		for _, tp := range got[m] {
			for other := range members {
				i := slices.IndexFunc(tops, func(x Topic) bool { return x.ID == tp.Topic })
				if slices.Contains(members[other].Topics, i) && len(got[other])+1 < len(got[m]) {
					t.Fatalf("%s should move from %d with %d to %d with %d", tp, m, len(got[m]), other, len(got[other]))
				}
			}
		}
	}
}

func countOf(list []metadata.TopicPartition, id metadata.TopicID) int {
	n := 0
	for _, tp := range list {
		if tp.Topic == id {
			n++
		}
	}
	return n
}

func members(n int, tops ...int) []Member {
	out := make([]Member, n)
	for i := range out {
		out[i].Topics = tops
	}
	return out
}

// TestFewMoves: who stays keeps what the new quota allows.
func TestFewMoves(t *testing.T) {
	tops := topics(30, 31)
	ms := members(6, 0, 1)
	for name, f := range map[string]Func{UniformName: Uniform, RangeName: Range} {
		t.Run(name, func(t *testing.T) {
			keep(ms, run(t, f, tops, ms))
			fewer := slices.Delete(slices.Clone(ms), 2, 3)
			got := run(t, f, tops, fewer)
			for i := range fewer {
				for _, tp := range fewer[i].Assigned {
					if !slices.Contains(got[i], tp) {
						t.Errorf("member %d lost %s although only another left", i, tp)
					}
				}
			}
			more := append(slices.Clone(ms), Member{Topics: []int{0, 1}})
			got = run(t, f, tops, more)
			moved := 0
			for i := range ms {
				for _, tp := range ms[i].Assigned {
					if !slices.Contains(got[i], tp) {
						moved++
					}
				}
			}
			if moved != len(got[6]) {
				t.Errorf("%d partitions moved for a new member that gets %d", moved, len(got[6]))
			}
		})
	}
}

// TestRangeJoins: topics with equally many partitions are assigned alike.
func TestRangeJoins(t *testing.T) {
	tops := topics(7, 7, 7)
	ms := members(3, 0, 1, 2)
	keep(ms, run(t, Range, tops, ms))
	ms = append(ms, Member{Topics: []int{0, 1, 2}})
	for m, list := range run(t, Range, tops, ms) {
		var by [3][]int32
		for _, tp := range list {
			for i := range tops {
				if tops[i].ID == tp.Topic {
					by[i] = append(by[i], tp.Partition)
				}
			}
		}
		if !slices.Equal(by[0], by[1]) || !slices.Equal(by[1], by[2]) {
			t.Errorf("member %d: %v", m, by)
		}
	}
}

func TestNamed(t *testing.T) {
	for _, name := range []string{UniformName, RangeName} {
		if _, ok := Named(name); !ok {
			t.Errorf("no assignor %q", name)
		}
	}
	if _, ok := Named("sticky"); ok {
		t.Error("there is no sticky assignor")
	}
}

func BenchmarkUniform(b *testing.B) {
	tops := topics(1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000)
	for name, ms := range map[string][]Member{"alike": members(1000, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9), "mixed": append(members(500, 0, 1, 2, 3, 4, 5), members(500, 4, 5, 6, 7, 8, 9)...)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				keep(ms, Uniform(tops, ms))
			}
		})
	}
}
