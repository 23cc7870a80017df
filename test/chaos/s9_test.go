package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/chaos/tcpproxy"
	"github.com/tidemark-io/tidemark/test/checker/franz"
)

func transactional(req kmsg.Request) bool {
	p, ok := req.(*kmsg.ProduceRequest)
	return ok && p.TransactionID != nil
}

// TestS9Transactions lets what ends transactions, and what is written in them,
// arrive long after its client went on; loses answers; has two clients use one
// transactional id, others sleep for longer than their transactions may last, and
// brokers die.
//
// Run long, each has a cluster of its own, and another has the faults of S12.
func TestS9Transactions(t *testing.T) {
	steps := []step{{"late", (*txnLoad).late}, {"lost", (*txnLoad).lost}, {"shared", (*txnLoad).shared}, {"slept", (*txnLoad).slept}, {"killed", (*txnLoad).killed}}
	if !long() {
		txnSteps(t, steps...)
		return
	}
	for _, s := range append(steps, step{"mixed", (*txnLoad).mixed}) {
		t.Run(s.name, func(t *testing.T) { txnSteps(t, s) })
	}
}

// step is one thing that is done to transactions.
type step struct {
	name string
	do   func(x *txnLoad, values figures)
}

func txnSteps(t *testing.T, steps ...step) {
	r := newRig(t, "S9", rigOptions{})
	l := r.startLoad(loadOptions{})
	x := l.startTxns(false)
	values := figures{}
	for _, s := range steps {
		s.do(x, values)
	}
	l.finish()
	r.report("late, lost and shared", values)
	if len(steps) > 1 && (x.aborted.Load() == 0 || x.left.Load() == 0) {
		t.Errorf("%d transactions aborted and %d left open show nothing", x.aborted.Load(), x.left.Load())
	}
}

// killed kills one broker after the other.
func (x *txnLoad) killed(values figures) {
	r := x.r
	for range pick(2, 20) {
		k := r.killed(r.random.IntN(len(r.brokers)))
		time.Sleep(2 * time.Second)
		k.heal()
		r.cluster.WaitReady()
		time.Sleep(3 * time.Second)
	}
	values["kills"] = r.kills
}

// mixed draws from all kinds of faults at once.
func (x *txnLoad) mixed(values figures) {
	d := x.r.nemesis(schedule{length: 3 * time.Minute, least: 5 * time.Second, spread: 10 * time.Second,
		groups: [][]pack{brokerPacks(), partitionPacks(), storePacks(), etcdPacks()}})
	values["periods"], values["of them quiet"], values["faults"] = d.periods, d.quiet, fmt.Sprint(d.faults)
}

// late delivers requests when another transaction of the same producer is long
// under way: the client's connection is reset at once, and it tries again.
func (x *txnLoad) late(values figures) {
	want := pick(10, 50) // of each: 200 in the long form
	for _, c := range []struct {
		name string
		rule tcpproxy.Rule
	}{
		{"late EndTxn", tcpproxy.Rule{Key: int16(kmsg.EndTxn), Probability: 0.2}},
		{"late Produce", tcpproxy.Rule{Key: int16(kmsg.Produce), Match: transactional, Probability: 0.1}},
		{"late TxnOffsetCommit", tcpproxy.Rule{Key: int16(kmsg.TxnOffsetCommit), Probability: 0.2}},
		{"late markers", tcpproxy.Rule{Key: int16(kmsg.WriteTxnMarkers), Probability: 0.1}},
	} {
		c.rule.Action, c.rule.Delay = tcpproxy.HoldAndDrop, pick(1500*time.Millisecond, 8*time.Second)
		f, k := x.r.misled(c.name, c.rule)
		x.l.until(c.name, func() int { return k.counts().Hit }, want)
		f.heal()
		time.Sleep(c.rule.Delay) // the last arrive
		values[c.name] = k.counts().Done
	}
}

// lost resets connections instead of answering what was done.
func (x *txnLoad) lost(values figures) {
	want := pick(5, 25)
	for _, c := range []struct {
		name string
		key  kmsg.Key
	}{
		{"answers to InitProducerId lost", kmsg.InitProducerID},
		{"answers to EndTxn lost", kmsg.EndTxn},
		{"answers to TxnOffsetCommit lost", kmsg.TxnOffsetCommit},
		{"answers to markers lost", kmsg.WriteTxnMarkers},
	} {
		f, k := x.r.misled(c.name, tcpproxy.Rule{Key: int16(c.key), Action: tcpproxy.CutBeforeReply, Probability: 0.5})
		x.l.until(c.name, func() int { return k.counts().Done }, want)
		f.heal()
		values[c.name] = k.counts().Done
	}
}

// shared has two clients use one transactional id: each fences the other.
func (x *txnLoad) shared(values figures) {
	before := x.unknown.Load()
	ctx, cancel := context.WithTimeout(context.Background(), pick(5*time.Second, 30*time.Second))
	defer cancel()
	var both sync.WaitGroup
	for i := range 2 {
		both.Go(func() { x.mix(ctx, fmt.Sprintf("twin-%d", i), "twins") })
	}
	both.Wait()
	values["ends of unknown outcome with a shared id"] = x.unknown.Load() - before
}

// slept has clients ask for a commit when the time of the transaction is over: it
// was aborted, and they are told that they are fenced.
func (x *txnLoad) slept(values figures) {
	var all sync.WaitGroup
	sleepers := pick(2, 10)
	for i := range sleepers {
		all.Go(func() {
			name := fmt.Sprintf("sleeper-%d", i)
			cl := x.producer(name)
			defer cl.Close()
			ctx, cancel := context.WithTimeout(context.Background(), txnTimeout+endMax)
			defer cancel()
			t := x.r.history.RetryingProducer(name).Begin()
			var sent promises
			if err := cl.BeginTransaction(); err != nil {
				x.r.t.Errorf("%s: %v", name, err)
				return
			}
			for p := range int32(txnPartitions) {
				franz.Send(ctx, cl, t.Send(txnMix, p), txnMix, p, payloadBytes, sent.done)
			}
			if err := cl.Flush(ctx); err != nil || sent.failed() != nil {
				x.r.t.Errorf("%s: %v, %v", name, err, sent.failed())
				return
			}
			sleep(ctx, txnTimeout+2*time.Second)
			end := t.End(true, "", nil)
			err := cl.EndTransaction(ctx, kgo.TryCommit)
			x.count(end, true, true, err)
			if err == nil {
				x.r.t.Errorf("%s committed a transaction whose time was over", name)
				return
			}
			x.gaveUp(name, err)
		})
	}
	all.Wait()
	values["clients that slept for too long"] = sleepers
}
