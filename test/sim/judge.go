package sim

import (
	"fmt"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/tiering/audit"
)

// judge gathers what clients saw and every rule that was broken.
type judge struct {
	w       *World
	history *checker.History
	report  *audit.Report // of the end; nil if there is none

	mu      sync.Mutex
	found   []string
	parts   map[int32]*progress
	ends    map[[2]int32]int64
	stables map[generation]time.Duration
	counts  map[string]int
	trims   map[int32]trimmed
}

func newJudge(w *World) *judge {
	return &judge{w: w, history: checker.NewHistory(), parts: make(map[int32]*progress), ends: make(map[[2]int32]int64), stables: make(map[generation]time.Duration), counts: make(map[string]int), trims: make(map[int32]trimmed)}
}

// foundMax bounds what is told about one run, toldMax what the checker says
// about one rule.
const (
	foundMax = 30
	toldMax  = 3
)

// broken notes a broken rule.
func (j *judge) broken(rule, format string, args ...any) {
	text := rule + ": " + fmt.Sprintf(format, args...)
	j.w.note("judge", "BROKEN", text)
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.found) < foundMax {
		j.found = append(j.found, fmt.Sprintf("at %v %s", j.w.now().Round(time.Microsecond), text))
	}
}

// count counts what happened, for the summary.
func (j *judge) count(what string) {
	j.mu.Lock()
	j.counts[what]++
	j.mu.Unlock()
}

// progress is what is known of a partition: one past the last offset that was
// acknowledged or read, and the moments at which it grew.
type progress struct {
	end  int64
	grew []growth
}

type growth struct {
	at  time.Duration
	end int64
}

// growthMax bounds the moments remembered; only those of the last second count.
const growthMax = 256

func (j *judge) sawLocked(partition int32, offset int64) {
	p := j.parts[partition]
	if p == nil {
		p = &progress{}
		j.parts[partition] = p
	}
	if offset < p.end {
		return
	}
	p.end = offset + 1
	p.grew = append(p.grew, growth{j.w.now(), p.end})
	if len(p.grew) > growthMax {
		p.grew = append([]growth(nil), p.grew[growthMax/2:]...)
	}
}

// known returns one past the last offset known to be committed now, and one
// past that known to be committed a second ago.
func (j *judge) known(partition int32) (now, old int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.parts[partition]
	if p == nil {
		return 0, 0
	}
	for _, g := range p.grew {
		if g.at < j.w.now()-staleness {
			old = g.end
		}
	}
	return p.end, old
}

// saw notes that an offset is known to be committed.
func (j *judge) saw(partition int32, offset int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sawLocked(partition, offset)
}

// epochEnd notes the answer to a question for the end of an epoch: found, the
// largest epoch not above the one asked for, ends at end. Whoever names an
// epoch below the one asked for knows of later ones, so that its end is final.
func (j *judge) epochEnd(who, from string, partition, asked, found int32, end int64) {
	if found < 0 {
		return
	}
	if end <= j.trimmed(partition).asked {
		return // of epochs that ended below the log start nobody knows more
	}
	j.mu.Lock()
	k := [2]int32{partition, found}
	final, known := j.ends[k]
	if !known && found < asked {
		j.ends[k] = end
	}
	j.mu.Unlock()
	if known && (end > final || end < final && found < asked) {
		j.broken("epoch end", "%s: partition %d: epoch %d ends at %d says %s, after it was said to end at %d", who, partition, found, end, from, final)
	}
}

// generation is one generation of a group.
type generation struct {
	group string
	n     int32
}

// stable notes that a member was told of a generation.
func (j *judge) stable(who, group, member string, n int32, own []checker.Key) {
	j.history.Stable(who, group, member, n, own)
	j.mu.Lock()
	defer j.mu.Unlock()
	if g := (generation{group, n}); j.stables[g] == 0 {
		j.stables[g] = j.w.now()
	}
}

// committed notes that a commit begun at a time was acknowledged. Members of a
// generation that had ended by then must not be.
func (j *judge) committed(a commitArgs, begun time.Duration) {
	j.mu.Lock()
	next, ended := j.stables[generation{a.group, a.generation + 1}]
	j.mu.Unlock()
	if a.generation >= 0 && ended && next < begun {
		j.broken("stale commit", "%s: a commit of generation %d of %s was acknowledged by %s, begun %v after the next one was stable",
			a.who, a.generation, a.group, a.to, begun-next)
	}
}

// verdict is every rule that was broken, by the judge's own account and by that
// of the history.
func (j *judge) verdict(hosts []string) []string {
	v := j.history.Check(checker.Rules{Nodes: hosts, Audit: j.report, Resets: j.w.weather.trims})
	j.mu.Lock()
	defer j.mu.Unlock()
	out := append([]string(nil), j.found...)
	told := make(map[string]int)
	for _, b := range v.Violations {
		if told[b.ID]++; told[b.ID] <= toldMax {
			out = append(out, b.String())
		}
	}
	for id, n := range v.Broken {
		if n > toldMax {
			out = append(out, fmt.Sprintf("%s: %d in all", id, n))
		}
	}
	return out
}
