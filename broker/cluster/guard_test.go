package cluster

import (
	"slices"
	"testing"

	"github.com/tidemark-io/tidemark/metadata"
)

func peersOf(v ...verdict) []standing {
	var out []standing
	for i, w := range v {
		out = append(out, standing{incarnation: metadata.Incarnation(10 * (i + 1)), verdict: w})
	}
	return out
}

func TestActor(t *testing.T) {
	for _, c := range []struct {
		name string
		s    situation
		want metadata.Incarnation
	}{
		{"the controller", situation{self: 5, registered: true, controller: 20, peers: peersOf(live, live)}, 20},
		{"nobody without a controller", situation{self: 5, registered: true, peers: peersOf(live)}, 0},
		{"itself as the lowest", situation{self: 5, registered: true, controller: 20, peers: peersOf(live, suspect)}, 5},
		{"the lowest other", situation{self: 35, registered: true, controller: 20, peers: peersOf(live, suspect, live)}, 10},
		{"not a suspect", situation{self: 35, registered: true, controller: 20, peers: peersOf(suspect, suspect, live)}, 30},
		{"not itself when unregistered", situation{self: 5, controller: 20, peers: peersOf(live, suspect)}, 10},
		{"instead of a stuck controller", situation{self: 5, registered: true, controller: 20, peers: peersOf(live, stuck)}, 5},
		{"one that can write", situation{self: 5, registered: true, failing: true, controller: 20, peers: peersOf(live, suspect)}, 10},
	} {
		if got := c.s.actor(); got != c.want {
			t.Errorf("%s: %d acts, want %d", c.name, got, c.want)
		}
	}
}

func TestSeals(t *testing.T) {
	many := func(n int, v ...verdict) []standing {
		all := slices.Clone(v)
		for len(all) < n {
			all = append(all, live)
		}
		return peersOf(all...)
	}
	failing := func(p []standing, which ...int) []standing {
		for _, i := range which {
			p[i].failing = true
		}
		return p
	}
	for _, c := range []struct {
		name string
		s    situation
		want []metadata.Incarnation
	}{
		{"nothing to do", situation{self: 5, controller: 5, registered: true, peers: peersOf(live, absent, condemned)}, nil},
		{"a suspect", situation{self: 5, controller: 5, registered: true, peers: peersOf(live, suspect)}, []metadata.Incarnation{20}},
		{"one at a time", situation{self: 5, controller: 5, registered: true, peers: peersOf(suspect, suspect)}, []metadata.Incarnation{10}},
		{"one is in progress", situation{self: 5, controller: 5, registered: true, sealing: 1, peers: peersOf(suspect)}, nil},
		{"the dead first", situation{self: 5, controller: 5, registered: true, peers: peersOf(suspect, stuck, dead)}, []metadata.Incarnation{30}},
		{"a tenth of many", situation{self: 5, controller: 5, registered: true, peers: many(30, suspect, suspect, dead, suspect)}, []metadata.Incarnation{30, 10, 20}},
		{"not the actor", situation{self: 5, controller: 10, registered: true, peers: peersOf(live, suspect)}, nil},
		{"a stand-in seals the controller only", situation{self: 5, controller: 20, registered: true, peers: peersOf(dead, suspect)}, []metadata.Incarnation{20}},
		{"a bucket outage", situation{self: 5, controller: 5, registered: true, peers: failing(peersOf(live, live, dead), 0, 1)}, nil},
		{"two of seven failing is no outage", situation{self: 5, controller: 5, registered: true, peers: failing(many(6, live, live, dead), 0, 1)}, []metadata.Incarnation{30}},
		{"one of two failing is no outage", situation{self: 5, controller: 5, registered: true, peers: failing(peersOf(stuck), 0)}, []metadata.Incarnation{10}},
		{"both of two failing is one", situation{self: 5, controller: 5, registered: true, failing: true, peers: failing(peersOf(stuck), 0)}, nil},
		{"suspects have no vote", situation{self: 5, controller: 5, registered: true, failing: true, peers: failing(peersOf(suspect, live, live), 0)}, []metadata.Incarnation{10}},
	} {
		if got := c.s.seals(); !slices.Equal(got, c.want) {
			t.Errorf("%s: seals %v, want %v", c.name, got, c.want)
		}
	}
}

func TestMayKeep(t *testing.T) {
	s := situation{self: 5, registered: true, controller: 5, peers: peersOf(live, suspect, dead, condemned)}
	for inc, want := range map[metadata.Incarnation]bool{5: true, 10: true, 20: true, 30: true, 40: false, 99: false, 0: false} {
		if got := s.mayKeep(inc); got != want {
			t.Errorf("mayKeep(%d) = %v", inc, got)
		}
	}
	s = situation{self: 5, registered: true, failing: true, controller: 5, peers: []standing{{incarnation: 10, verdict: live, failing: true}}}
	if !s.mayKeep(99) {
		t.Error("an unknown owner loses its partitions during a bucket outage")
	}
}
