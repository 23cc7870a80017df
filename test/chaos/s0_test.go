package chaos

import (
	"testing"
	"time"
)

// TestS0None: without any fault there is nothing to forgive.
func TestS0None(t *testing.T) {
	r := newRig(t, "S0", rigOptions{})
	l := r.startLoad(loadOptions{})
	from := time.Now()
	time.Sleep(pick(5*time.Second, 5*time.Minute))
	quiet := l.longestGap(from, time.Now())
	l.finish()
	r.report("no fault", figures{"longest silence": milli(quiet)})
	if quiet > 3*time.Second { // the machine may be busy with something else
		t.Errorf("nothing was acknowledged for %v", quiet)
	}
	if n := r.exited(); n > 0 {
		t.Errorf("%d brokers ended by themselves", n)
	}
}
