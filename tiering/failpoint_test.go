//go:build failpoint

package tiering

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/tiering/failpoint"
)

// TestChaosAtFailpoints runs the chaos with errors at every point of this
// package: each takes the path of a failed call there, so nothing that holds
// otherwise may break.
func TestChaosAtFailpoints(t *testing.T) {
	first, seeds := uint64(time.Now().UnixNano()), 60
	if s := os.Getenv("TIDEMARK_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, seeds = v, 1
	}
	var mu sync.Mutex
	fired := make(map[failpoint.Point]int)
	for i := range seeds {
		seed := first + uint64(i)
		r := rand.New(rand.NewPCG(seed, 3))
		undo := failpoint.Hook(func(p failpoint.Point) error {
			mu.Lock()
			defer mu.Unlock()
			rate := 0.05
			if p == failpoint.BeforeHW {
				rate = 0.01 // each costs an incarnation, and they come often
			}
			if r.Float64() >= rate {
				return nil
			}
			fired[p]++
			return fmt.Errorf("%w: %s", failpoint.ErrInjected, p)
		})
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runChaos(t, seed, make(map[string]int), undo) })
		})
		undo()
		if !ok {
			t.Fatalf("TIDEMARK_SEED=%d repeats it", seed)
		}
	}
	if seeds == 1 {
		return
	}
	for _, p := range []failpoint.Point{failpoint.BeforePut, failpoint.AfterPut, failpoint.BeforeHW, failpoint.CheckpointMid,
		failpoint.BeforeRelease, failpoint.AfterRelease, failpoint.BeforeFence, failpoint.AfterFence, failpoint.AfterSeal,
		failpoint.BeforeOpen, failpoint.AfterOpen,
		failpoint.BeforeSegment, failpoint.AfterSegment, failpoint.AfterAdd, failpoint.BeforeTrim, failpoint.AfterTrim, failpoint.BeforeDelete} {
		if fired[p] == 0 {
			t.Errorf("no error came from %s", p)
		}
	}
	t.Logf("errors: %v", fired)
}
