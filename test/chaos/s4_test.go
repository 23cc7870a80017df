package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/chaos/s3proxy"
)

// TestS4Store lets the store lie in every way the proxy knows, to 1, 10 and 100 %
// of the requests; the short form takes one share for each lie. Old data is read
// all the while, from a bucket that no cache stands before.
func TestS4Store(t *testing.T) {
	r := newRig(t, "S4", rigOptions{brokerArgs: coldArgs})
	l := r.startLoad(loadOptions{reread: true})
	length := pick(1500*time.Millisecond, 20*time.Second)
	var healed []time.Duration
	hits := figures{}
	silent := 0
	for k, lie := range lies() {
		for _, share := range rotateFrom(t, []float64{0.01, 0.1, 1}, 1, k) {
			rule := lie.rule
			rule.Probability = share
			f, s := r.lying(rule, r.all()...)
			if op := lie.rule.Op; op == s3proxy.Get || op == s3proxy.Any {
				r.restarted(k % len(r.brokers)) // memory is empty, and others take over
			}
			time.Sleep(length)
			f.heal()
			at := time.Now()
			healed = append(healed, l.waitAcks(at, 2*healMax))
			n := s.counts()
			if n.Hit == 0 {
				silent++
			}
			hits[fmt.Sprintf("%s at %v %%", lie.name, 100*share)] = fmt.Sprintf("%d of %d", n.Hit, n.Seen)
			r.checkDamaged(lie, n)
		}
	}
	l.finish()
	r.report("lies told", hits)
	r.report("store", figures{"modes": len(lies()), "runs": len(hits), "without a hit": silent,
		"first ack after heal, max": milli(slices.Max(healed)), "exits": r.exited()})
	if e := r.exited(); e > 0 {
		t.Errorf("%d brokers that were at work ended by themselves", e)
	}
}

// restarted kills a broker and starts it at once.
func (r *rig) restarted(i int) {
	r.t.Helper()
	f := r.killed(i)
	f.heal()
}

// checkDamaged: a store must refuse what does not match its checksum, or the
// rest of the test shows nothing.
func (r *rig) checkDamaged(l lie, n s3proxy.Counts) {
	r.t.Helper()
	if l.rule.Mode == s3proxy.Flip && l.rule.Op == s3proxy.Put && n.Outcomes["200"] > 0 {
		r.t.Errorf("the store took %d damaged objects", n.Outcomes["200"])
	}
}
