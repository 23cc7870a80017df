package chaos

import (
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/chaos/s3proxy"
	"github.com/tidemark-io/tidemark/test/chaos/tcpproxy"
)

// dedicated are what the dashboard counts, each aimed at one kind of fault until
// there were enough of it. Run long, each has a cluster of its own; the short
// form runs a tenth of each, one after the other, on one.
var dedicated = []struct {
	name string
	run  func(l *load)
}{
	{"ambiguous", (*load).ambiguous},
	{"failing store", (*load).failingStore},
	{"late PUTs", (*load).latePuts},
	{"cut replies", (*load).cutReplies},
	{"bit flips on GET", (*load).flipsOnGet},
}

func TestFigures(t *testing.T) {
	if !long() {
		r := newRig(t, "figures", rigOptions{brokerArgs: coldArgs, plain: true})
		l := r.startLoad(loadOptions{reread: true})
		for _, d := range dedicated {
			d.run(l)
			l.waitAcks(time.Now(), healMax)
		}
		l.finish()
		return
	}
	for _, d := range dedicated {
		t.Run(d.name, func(t *testing.T) {
			r := newRig(t, d.name, rigOptions{brokerArgs: coldArgs, plain: true})
			l := r.startLoad(loadOptions{reread: true})
			d.run(l)
			l.finish()
		})
	}
}

// coldArgs are of brokers that keep little: no disk cache, and the smallest tail
// in memory that there is.
var coldArgs = []string{"--memory-tail-bytes", "67108864", "--cache-bytes", "0"}

// until waits for a count, for as long as that may take at all.
func (l *load) until(what string, count func() int, want int) {
	l.r.t.Helper()
	const limit = 5 * time.Minute
	for end := time.Now().Add(limit); count() < want; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			l.r.t.Errorf("%s: %d of %d within %v", what, count(), want, limit)
			return
		}
	}
}

// ambiguous loses the answers to PUTs and to etcd's writes that were done, so
// many of each.
func (l *load) ambiguous() {
	want, r := pick(20, 200), l.r
	puts, store := r.lying(s3proxy.Rule{Mode: s3proxy.AmbiguousOK, Op: s3proxy.Put, Key: wal, Probability: 0.1}, r.all()...)
	writes, etcd := r.unanswered(0.2)
	l.until("ambiguous PUTs", func() int { return store.counts().Outcomes["200"] }, want)
	l.until("ambiguous etcd writes", func() int { return etcd.counts().Written }, want)
	puts.heal()
	writes.heal()
	r.report("ambiguous", figures{"PUTs done and not told": store.counts().Outcomes["200"],
		"etcd writes done and not told": etcd.counts().Written, "exits": r.exited()})
}

// failingStore lets every request to the store fail for a minute: no broker
// ends, nothing is acknowledged falsely, and all go on soon after.
func (l *load) failingStore() {
	const recovery = 10 * time.Second
	length, r := pick(6*time.Second, time.Minute), l.r
	before := r.exited()
	f, s := r.lying(s3proxy.Rule{Mode: s3proxy.SlowDown}, r.all()...)
	from := time.Now()
	time.Sleep(length)
	// What was on its way when the store began to fail may still be answered.
	falsely := l.acksBetween(from.Add(time.Second), time.Now())
	f.heal()
	took := l.waitAcks(time.Now(), 2*recovery)
	exits := r.exited() - before
	r.report("failing store", figures{"seconds of 503": length.Seconds(), "requests refused": s.counts().Hit,
		"exits": exits, "false acknowledgements": falsely, "first ack after heal, all partitions": milli(took)})
	if exits > 0 || falsely > 0 || took > recovery {
		r.t.Errorf("%d exits, %d false acknowledgements, %v until every partition acknowledges", exits, falsely, took)
	}
}

// acksBetween counts acknowledgements.
func (l *load) acksBetween(from, to time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, acks := range l.acks {
		for _, a := range acks {
			if a.acked.After(from) && a.acked.Before(to) {
				n++
			}
		}
	}
	return n
}

// latePuts resets the callers of PUTs and delivers those much later, when they
// have long been repeated or their chain was sealed: none overwrites anything.
func (l *load) latePuts() {
	want, r := pick(10, 100), l.r
	f, s := r.lying(s3proxy.Rule{Mode: s3proxy.Late, Op: s3proxy.Put, Key: wal, Probability: 0.05,
		Delay: pick(2*time.Second, 5*time.Second), Spread: pick(4*time.Second, 55*time.Second)}, r.all()...)
	l.until("late PUTs", func() int { return s.counts().Hit }, want/2)
	// The other half comes from brokers that are dead when it arrives.
	for victim := 0; s.counts().Hit < want; victim++ {
		k := r.killed(victim % len(r.brokers))
		time.Sleep(time.Second)
		k.heal()
		time.Sleep(2 * time.Second)
	}
	f.heal()
	delivered := func() int {
		n := s.counts().Outcomes
		return n["200"] + n["412"]
	}
	l.until("late PUTs delivered", delivered, s.counts().Hit)
	n := s.counts()
	r.report("late PUTs", figures{"late": n.Hit, "found their slot taken": n.Outcomes["412"], "landed": n.Outcomes["200"], "overwritten": r.overwritten()})
}

// overwritten is how many keys were created twice.
func (r *rig) overwritten() (n int) {
	for _, s := range r.stores {
		n += s.Overwritten()
	}
	return n
}

// cutReplies cuts connections between the effect of a produce and its reply, so
// many times.
func (l *load) cutReplies() {
	want, r := pick(50, 500), l.r
	f, k := r.misled("replies cut", tcpproxy.Rule{Key: produceKey, Action: tcpproxy.CutBeforeReply, Probability: 0.1})
	l.until("replies cut", func() int { return k.counts().Applied }, want)
	f.heal()
	r.report("cut replies", figures{"replies cut of produces that were written": k.counts().Applied})
}

// flipsOnGet flips bits in what the store returns, and cuts some of it short,
// while the whole log is read back by brokers that have just started: no client
// sees any of it.
func (l *load) flipsOnGet() {
	want, r := pick(100, 1000), l.r
	time.Sleep(pick(0, 20*time.Second)) // objects to read
	f, s := r.lying(s3proxy.Rule{Mode: s3proxy.Flip, Op: s3proxy.Get, Probability: 0.3}, r.all()...)
	cut, c := r.lying(s3proxy.Rule{Mode: s3proxy.TruncateHide, Op: s3proxy.Get, Probability: 0.1}, r.all()...)
	flips := func() int { return s.counts().Outcomes["flipped"] }
	kills := 0
	for end := time.Now().Add(10 * time.Minute); flips() < want && time.Now().Before(end); kills++ {
		k := r.killed(r.all()...)
		k.heal()
		time.Sleep(pick(3*time.Second, 5*time.Second))
	}
	f.heal()
	cut.heal()
	r.report("bit flips on GET", figures{"flipped": flips(), "cut with a matching length": c.counts().Outcomes["cut"],
		"kills of all": kills, "exits": r.exited()})
	if flips() < want {
		r.t.Errorf("%d bits were flipped, want %d", flips(), want)
	}
	if e := r.exited(); e > 0 {
		r.t.Errorf("%d brokers that were at work ended by themselves", e)
	}
}
