package chaos

import (
	"slices"
	"sync"

	"github.com/tidemark-io/tidemark/test/checker"
)

// fault is something that was done to the cluster and can be undone, once.
type fault struct {
	r    *rig
	kind string
	told checker.Fault
	once sync.Once
	undo func()
}

// begin tells the history of a fault and does it. What it returns undoes it.
// Nothing is expected of a cluster that has two faults at a time.
func (r *rig) begin(kind, scope string, targets []string, do func() (undo func())) *fault {
	r.t.Helper()
	r.mu.Lock()
	if len(r.active) > 0 {
		scope = checker.All
	}
	r.mu.Unlock()
	f := &fault{r: r, kind: kind, told: r.history.Fault(kind, scope, targets...)}
	f.undo = do()
	r.mu.Lock()
	r.active = append(r.active, f)
	r.mu.Unlock()
	return f
}

// heal undoes the fault; doing it again does nothing. When it was the last one
// the cluster has to come back to life.
func (f *fault) heal() {
	f.once.Do(func() {
		f.undo()
		f.told.End()
		f.r.mu.Lock()
		f.r.active = slices.DeleteFunc(f.r.active, func(g *fault) bool { return f == g })
		last := len(f.r.active) == 0
		f.r.mu.Unlock()
		if last {
			f.r.history.Heal()
		}
	})
}

// healAll undoes whatever is still going on.
func (r *rig) healAll() {
	r.mu.Lock()
	active := slices.Clone(r.active)
	r.mu.Unlock()
	for _, f := range slices.Backward(active) {
		f.heal()
	}
}

// scope of a fault of brokers.
func (r *rig) scope(targets []int) string { return scopeOf(len(targets), len(r.brokers)) }

func scopeOf(hit, of int) string {
	switch {
	case hit == of:
		return checker.All
	case 2*hit > of:
		return checker.Majority
	}
	return checker.Minority
}
