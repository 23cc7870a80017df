package metadata_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata/mem"
)

// ambiguous runs f against a client whose writes number from+1 to from+count
// are answered with an error, for each way in which that can happen: applied
// before, not at all, or later. In each f must come to the same end.
func ambiguous(t *testing.T, f func(t *testing.T, kv *mem.Client, store *mem.Store)) {
	t.Helper()
	faults := []struct {
		name  string
		fault mem.Fault
	}{
		{"notApplied", mem.FailBefore()}, {"applied", mem.FailAfter()}, {"appliedLater", mem.FailLate(200 * time.Millisecond)},
	}
	for _, tt := range faults {
		for _, from := range []int{0, 1, 2} {
			for _, count := range []int{1, 3} {
				t.Run(fmt.Sprintf("%s/%d+%d", tt.name, from, count), func(t *testing.T) {
					bubble(t, func(t *testing.T, store *mem.Store) {
						kv := client(t, store)
						writes := 0
						kv.Inject(func(c mem.Call) (mem.Fault, bool) {
							if !c.Writes() {
								return mem.Fault{}, false
							}
							writes++
							return tt.fault, writes > from && writes <= from+count
						})
						f(t, kv, store)
						time.Sleep(time.Second) // whatever is late arrives
					})
				})
			}
		}
	}
}
