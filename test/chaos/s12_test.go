package chaos

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// roundMax is how long one history of the mixed scenario gets: it is judged in
// memory.
const roundMax = 8 * time.Minute

// TestS12Mixed draws from all kinds of faults at once.
func TestS12Mixed(t *testing.T) {
	if !long() {
		mixed(t, 25*time.Second)
		return
	}
	for left, n := mixDuration(t), 1; left > 0; left, n = left-roundMax, n+1 {
		if !t.Run(fmt.Sprintf("round-%d", n), func(t *testing.T) { mixed(t, min(left, roundMax)) }) {
			return
		}
	}
}

func mixed(t *testing.T, length time.Duration) {
	r := newRig(t, "S12", rigOptions{brokers: pick(3, 5)})
	l := r.startLoad(loadOptions{})
	time.Sleep(pick(0, 5*time.Second))
	d := r.nemesis(schedule{
		length: length, least: pick(4*time.Second, 15*time.Second), spread: pick(3*time.Second, 15*time.Second),
		groups: [][]pack{brokerPacks(), partitionPacks(), storePacks(), etcdPacks()},
	})
	l.finish()
	var faults []string
	for _, name := range slices.Sorted(maps.Keys(d.faults)) {
		faults = append(faults, fmt.Sprintf("%s ×%d", name, d.faults[name]))
	}
	r.report("mixed", figures{"periods": d.periods, "of them quiet": d.quiet, "faults": faults, "kills": r.kills, "exits": r.exited()})
}
