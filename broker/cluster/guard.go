package cluster

import (
	"cmp"
	"slices"

	"github.com/tidemark-io/tidemark/metadata"
)

// standing is one peer in a situation.
type standing struct {
	incarnation metadata.Incarnation
	verdict     verdict
	failing     bool // it reports that it cannot write to the bucket
}

// situation is what this broker knows at one moment; decisions about others
// are functions of it.
type situation struct {
	self       metadata.Incarnation
	registered bool // the view shows this broker
	failing    bool // this broker cannot write to the bucket
	controller metadata.Incarnation
	peers      []standing
	// sealing counts the seals in progress.
	sealing int
}

func (s *situation) verdictOf(inc metadata.Incarnation) verdict {
	if inc == s.self {
		if s.registered {
			return live
		}
		return absent
	}
	for _, p := range s.peers {
		if p.incarnation == inc {
			return p.verdict
		}
	}
	return unknown
}

// actor is the broker that acts on suspicions: the controller, or, when that is
// in doubt itself, the live unsuspected broker with the lowest incarnation. A
// broker that cannot write cannot seal, so it is passed over while another can.
// Zero: nobody, until a controller is elected.
func (s *situation) actor() metadata.Incarnation {
	if s.controller == 0 {
		return 0
	}
	if s.verdictOf(s.controller) == live {
		return s.controller
	}
	best, bestFailing := metadata.Incarnation(0), true
	consider := func(inc metadata.Incarnation, failing bool) {
		if best == 0 || bestFailing && !failing || bestFailing == failing && inc < best {
			best, bestFailing = inc, failing
		}
	}
	if s.registered {
		consider(s.self, s.failing)
	}
	for _, p := range s.peers {
		if p.verdict == live {
			consider(p.incarnation, p.failing)
		}
	}
	return best
}

// bucketDown reports whether so many brokers cannot write that the bucket is to
// blame and not they: at least two and more than a third of the brokers that
// are registered and unsuspected. Nobody changes leader because of it.
func (s *situation) bucketDown() bool {
	n, failing := 0, 0
	count := func(f bool) {
		n++
		if f {
			failing++
		}
	}
	if s.registered {
		count(s.failing)
	}
	for _, p := range s.peers {
		if p.verdict == live || p.verdict == stuck {
			count(p.failing || p.verdict == stuck)
		}
	}
	return failing >= 2 && 3*failing > n
}

// seals lists the incarnations whose sealing this broker should begin now.
func (s *situation) seals() []metadata.Incarnation {
	if s.actor() != s.self || s.bucketDown() {
		return nil
	}
	var doomed []standing
	brokers := 1
	for _, p := range s.peers {
		switch p.verdict {
		case live, absent:
			brokers++
		case dead, suspect, stuck:
			brokers++
			// A stand-in for the controller deals with the controller only;
			// whoever is elected then deals with the rest.
			if s.controller == s.self || p.incarnation == s.controller {
				doomed = append(doomed, p)
			}
		}
	}
	// Dead sessions first: those brokers cannot come back to work anyway.
	slices.SortFunc(doomed, func(a, b standing) int {
		if (a.verdict == dead) != (b.verdict == dead) {
			if a.verdict == dead {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.incarnation, b.incarnation)
	})
	room := max(0, max(1, brokers/10)-s.sealing)
	var out []metadata.Incarnation
	for _, p := range doomed[:min(room, len(doomed))] {
		out = append(out, p.incarnation)
	}
	return out
}

// mayKeep reports whether partitions of inc stay where they are.
func (s *situation) mayKeep(inc metadata.Incarnation) bool {
	switch s.verdictOf(inc) {
	case live, suspect, stuck, absent, dead:
		return true // until it is condemned: the guards decide that
	case unknown:
		return inc != 0 && s.bucketDown()
	}
	return false
}
