package chaos

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/harness"
)

// TestS7Clock gives each broker a clock of its own, wrong by minutes, fast or
// slow, and jumping: nothing but the timestamps of records may follow it.
func TestS7Clock(t *testing.T) {
	if !long() && rotation(t)%10 != 7 {
		t.Skip("at other commits: it needs the standard library built anew")
	}
	bin := buildClockBroker(t)
	var clocks []clock
	r := newRig(t, "S7", rigOptions{bin: bin, prepare: func(_ int, b *harness.Broker) {
		c, path := newClock(t)
		clocks = append(clocks, c)
		b.Env = append(b.Env, clockEnv+"="+path)
	}})
	r.seeClock(clocks[0]) // before there is a load: a broker of yesterday refuses the timestamps of today
	// A second is two for a broker whose clock runs at half speed.
	l := r.startLoad(loadOptions{staleness: 2 * time.Second})
	wrongs := []struct {
		name string
		set  func()
	}{
		{"offsets of -300, 0 and 300 s", func() {
			for i, c := range clocks {
				c.offset(time.Duration(i-1) * 300 * time.Second)
			}
		}},
		{"wall clocks at rates of 0.5, 1 and 2", func() { rates(clocks, 1) }},
		{"monotonic clocks at 0.5, 1 and 2 as well", func() { rates(clocks, 0) }},
		{"monotonic clocks at 0.9, 1 and 1.1", func() {
			for i, c := range clocks {
				c.rates(1, 0.9+0.1*float64(i))
			}
		}},
	}
	each := pick(5*time.Second, time.Minute)
	for _, w := range wrongs {
		f := r.begin("clock: "+w.name, checker.Minority, r.names(r.all()), func() func() {
			w.set()
			return func() {
				for _, c := range clocks {
					c.offset(0)
					c.rates(1, 1)
				}
			}
		})
		from := time.Now()
		time.Sleep(each / 2)
		k := r.killed(r.random.IntN(len(r.brokers))) // a takeover by wrong clocks
		time.Sleep(each / 2)
		k.heal()
		l.waitAcks(from, 2*healMax)
		f.heal()
		l.waitAcks(time.Now(), 2*healMax)
	}
	jumps := 0
	f := r.begin("clock jumps", checker.Minority, r.names(r.all()), func() func() { return func() {} })
	for end := time.Now().Add(each); time.Now().Before(end); jumps++ {
		clocks[r.random.IntN(len(clocks))].offset(time.Duration(r.random.IntN(601)-300) * time.Second)
		time.Sleep(200 * time.Millisecond)
	}
	for _, c := range clocks {
		c.offset(0)
	}
	f.heal()
	l.finish()
	r.report("clocks", figures{"wrong clocks": len(wrongs), "jumps": jumps, "kills under them": r.kills, "exits": r.exited()})
	if e := r.exited(); e > 0 {
		t.Errorf("%d brokers ended by themselves", e)
	}
}

// rates sets a slow, a true and a fast clock; mono 0 gives the monotonic clocks
// the same rates.
func rates(clocks []clock, mono float64) {
	for i, c := range clocks {
		rate := []float64{0.5, 1, 2}[i]
		if mono == 0 {
			c.rates(rate, rate)
			continue
		}
		c.rates(rate, mono)
	}
}

// seeClock makes sure that a broker reads the clock it was given: its log tells.
func (r *rig) seeClock(c clock) {
	r.t.Helper()
	c.offset(-24 * time.Hour)
	defer c.offset(0)
	yesterday := time.Now().Add(-24 * time.Hour).Format("time=2006-01-02")
	r.kill(1) // of which the others have something to log
	defer r.cluster.WaitReady()
	defer r.start(1)
	harness.Eventually(r.t, 20*time.Second, "a broker logs with the clock it was given", func() error {
		if !strings.Contains(r.brokers[0].Log(), yesterday) {
			return errors.New("no line of yesterday")
		}
		return nil
	})
}
