package chaos

import (
	"regexp"
	"time"

	"github.com/tidemark-io/tidemark/test/chaos/s3proxy"
	"github.com/tidemark-io/tidemark/test/checker"
)

// storeRule is one rule at every target's store.
type storeRule struct{ at []*s3proxy.Active }

func (r *rig) storeRule(rule s3proxy.Rule, targets ...int) storeRule {
	var s storeRule
	for _, i := range targets {
		s.at = append(s.at, r.stores[i].Add(rule))
	}
	return s
}

func (s storeRule) remove() {
	for _, a := range s.at {
		a.Remove()
	}
}

// counts adds up what the rule did at all targets.
func (s storeRule) counts() s3proxy.Counts {
	sum := s3proxy.Counts{Outcomes: make(map[string]int)}
	for _, a := range s.at {
		c := a.Counts()
		sum.Seen += c.Seen
		sum.Hit += c.Hit
		for k, n := range c.Outcomes {
			sum.Outcomes[k] += n
		}
	}
	return sum
}

// lying is a rule as a fault. A store that lies to some requests only is not
// expected to stop anything, whoever asks; one that fails all does.
func (r *rig) lying(rule s3proxy.Rule, targets ...int) (*fault, storeRule) {
	scope := checker.All
	if rule.Probability > 0 && rule.Probability < 0.5 {
		scope = checker.Minority
	}
	var s storeRule
	f := r.begin("store "+string(rule.Mode), scope, r.names(targets), func() func() {
		s = r.storeRule(rule, targets...)
		return s.remove
	})
	return f, s
}

// lie is a mode of the store's, as the scenarios use it.
type lie struct {
	name string
	rule s3proxy.Rule
	// some is the largest share it is used at: a bucket that never shows what it
	// has stored, or damages everything, cannot be written to at all, which the
	// modes that refuse requests cover.
	some float64
}

var wal = regexp.MustCompile(`^w/`)

// lies are all modes of the store's proxy. Delays are short: they have to end
// within a scenario.
func lies() []lie {
	wait, spread := pick(2*time.Second, 5*time.Second), pick(2*time.Second, 55*time.Second)
	return []lie{
		{"503", s3proxy.Rule{Mode: s3proxy.SlowDown}, 1},
		{"500", s3proxy.Rule{Mode: s3proxy.Internal}, 1},
		{"403 expired", s3proxy.Rule{Mode: s3proxy.Expired}, 1},
		{"409", s3proxy.Rule{Mode: s3proxy.Conflict, Op: s3proxy.Put}, 1},
		{"hang before forward", s3proxy.Rule{Mode: s3proxy.HangBefore, Delay: wait}, 1},
		{"ambiguous PUT", s3proxy.Rule{Mode: s3proxy.AmbiguousOK, Op: s3proxy.Put}, 1},
		{"late PUT", s3proxy.Rule{Mode: s3proxy.Late, Op: s3proxy.Put, Delay: wait, Spread: spread}, 1},
		{"slow PUT", s3proxy.Rule{Mode: s3proxy.Slow, Op: s3proxy.Put}, 1},
		{"slow GET", s3proxy.Rule{Mode: s3proxy.Slow, Op: s3proxy.Get}, 1},
		{"truncated GET", s3proxy.Rule{Mode: s3proxy.Truncate, Op: s3proxy.Get}, 1},
		{"truncated GET, length rewritten", s3proxy.Rule{Mode: s3proxy.TruncateHide, Op: s3proxy.Get}, 1},
		{"bit flip on GET", s3proxy.Rule{Mode: s3proxy.Flip, Op: s3proxy.Get}, 1},
		{"bit flip on PUT", s3proxy.Rule{Mode: s3proxy.Flip, Op: s3proxy.Put}, 1},
		{"404 once", s3proxy.Rule{Mode: s3proxy.MissingOnce, Op: s3proxy.Get}, 1},
		{"LIST empty", s3proxy.Rule{Mode: s3proxy.ListEmpty}, 1},
		{"LIST stale", s3proxy.Rule{Mode: s3proxy.ListStale}, 1},
		{"LIST cut", s3proxy.Rule{Mode: s3proxy.ListCut}, 1},
		{"late DELETE", s3proxy.Rule{Mode: s3proxy.Late, Op: s3proxy.Delete, Delay: wait, Spread: spread}, 1},
	}
}
