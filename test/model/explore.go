package model

import (
	"fmt"
	"hash/maphash"
	"slices"
)

// protocol is a protocol as a graph: states, and the steps that anybody, the
// network included, may take in each.
type protocol[S comparable] interface {
	start() S
	// next calls yield for every step possible in s. It visits them in the same
	// order each time.
	next(s *S, yield func(S, step))
	// broken names the promise that s breaks, or is empty.
	broken(s *S) string
}

// step says what was done. It becomes text only in a trace: millions are taken,
// a dozen are shown.
type step struct {
	format string
	who    int // broker, sealer or incarnation
	what   int // slot, mark, epoch or offset
}

func (s step) String() string { return fmt.Sprintf(s.format, s.who, s.what) }

// outcome is what an exploration found.
type outcome struct {
	states   int
	complete bool   // every reachable state was visited
	broken   string // the promise that was broken, empty if none
	trace    []string
	// taken counts, by their format, the steps that led to a new state: a model
	// in which something never happens proves nothing about it.
	taken map[string]int
}

// explore visits every state reachable from the start, nearest first, until one
// breaks a promise or there are more than limit. So a counterexample is as short
// as can be, and silence with complete set is a proof within the bounds.
func explore[S comparable](p protocol[S], limit int) outcome {
	seen := newStateSet[S]()
	start := p.start()
	seen.add(start, 0)
	if b := p.broken(&start); b != "" {
		return outcome{states: 1, broken: b}
	}
	taken := make(map[string]int)
	var broken string
	var from, found uint32
	yield := func(n S, by step) {
		if broken != "" {
			return
		}
		i, added := seen.add(n, from)
		if !added {
			return
		}
		taken[by.format]++
		if broken = p.broken(&n); broken != "" {
			found = i
		}
	}
	for ; int(from) < seen.len(); from++ {
		if seen.len() > limit {
			return outcome{states: seen.len(), taken: taken}
		}
		s := *seen.at(from)
		if p.next(&s, yield); broken != "" {
			return outcome{states: seen.len(), broken: broken, trace: retrace(p, seen, found), taken: taken}
		}
	}
	return outcome{states: seen.len(), complete: true, taken: taken}
}

// retrace tells how state i was reached. The steps were not kept: those of each
// state on the way are taken once more.
func retrace[S comparable](p protocol[S], seen *stateSet[S], i uint32) []string {
	var trace []string
	for i != 0 {
		parent := seen.parents[i]
		s, want := *seen.at(parent), *seen.at(i)
		name := ""
		p.next(&s, func(n S, by step) {
			if n == want && name == "" {
				name = by.String()
			}
		})
		trace = append(trace, name)
		i = parent
	}
	slices.Reverse(trace)
	return trace
}

// stateSet holds states in the order they were found, which is also the queue
// of a breadth-first search, and finds them again by their hash. It spends, per
// state, the state itself and some 30 bytes.
type stateSet[S comparable] struct {
	seed    maphash.Seed
	chunks  [][]S // all of chunkLen but the last
	parents []uint32
	// table is open addressing: half a hash above the index of the state plus
	// one, 0 where free. The hash's first bits are the place, so that growing
	// reads no state, and looking reads one only if the hashes agree.
	table []uint64
	shift uint // a hash, shifted right by it, is a place
}

const (
	chunkLen  = 1 << 14
	indexMask = 1<<32 - 1
)

func newStateSet[S comparable]() *stateSet[S] {
	return &stateSet[S]{seed: maphash.MakeSeed(), table: make([]uint64, 1<<12), shift: 64 - 12}
}

func (t *stateSet[S]) len() int { return len(t.parents) }

func (t *stateSet[S]) at(i uint32) *S { return &t.chunks[i/chunkLen][i%chunkLen] }

// add inserts s unless it is there, and says where it is and whether it is new.
func (t *stateSet[S]) add(s S, parent uint32) (i uint32, added bool) {
	if len(t.parents) >= len(t.table)/2 {
		t.grow()
	}
	tag := maphash.Comparable(t.seed, s) &^ indexMask
	place := tag >> t.shift
	for ; t.table[place] != 0; place = t.after(place) {
		if e := t.table[place]; e&^indexMask == tag {
			if i = uint32(e&indexMask) - 1; *t.at(i) == s {
				return i, false
			}
		}
	}
	i = uint32(len(t.parents))
	if i%chunkLen == 0 {
		t.chunks = append(t.chunks, make([]S, 0, chunkLen))
	}
	last := len(t.chunks) - 1
	t.chunks[last] = append(t.chunks[last], s)
	t.parents = append(t.parents, parent)
	t.table[place] = tag | uint64(i+1)
	return i, true
}

func (t *stateSet[S]) after(place uint64) uint64 { return (place + 1) & uint64(len(t.table)-1) }

func (t *stateSet[S]) grow() {
	old := t.table
	t.table = make([]uint64, 2*len(old))
	t.shift--
	for _, e := range old {
		if e == 0 {
			continue
		}
		place := e >> t.shift
		for t.table[place] != 0 {
			place = t.after(place)
		}
		t.table[place] = e
	}
}
