package chaos

import (
	"slices"
	"testing"
	"time"
)

// partition is one kind of S3.
type partition struct {
	name  string
	begin func(r *rig, w way, targets ...int) *fault
}

var partitions = []partition{
	{"broker-etcd", (*rig).fromEtcd},
	{"broker-store", (*rig).fromStore},
	{"client-broker", (*rig).fromClients},
	{"broker-broker", (*rig).fromPeers},
	{"isolated", (*rig).isolated},
	{"bridge", func(r *rig, w way, _ ...int) *fault { return r.bridge(w) }},
}

// TestS3Partition cuts each kind of link, in each way, for one broker, for most
// and for all; the short form takes one way and one target for each kind.
func TestS3Partition(t *testing.T) {
	r := newRig(t, "S3", rigOptions{})
	l := r.startLoad(loadOptions{})
	length := pick(4*time.Second, 20*time.Second)
	var healed []time.Duration
	n := 0
	for k, p := range partitions {
		for _, w := range rotateFrom(t, ways, 1, k) {
			for _, count := range rotateFrom(t, []int{1, 2, 3}, 1, k) {
				targets := r.random.Perm(len(r.brokers))[:count]
				f := p.begin(r, w, targets...)
				time.Sleep(length)
				f.heal()
				at := time.Now()
				took := l.waitAcks(at, healMax)
				healed = append(healed, took)
				t.Logf("%s, %s, %d brokers: every partition acknowledges %v after the end", p.name, w.name, count, took.Round(time.Millisecond))
				n++
			}
		}
	}
	l.finish()
	r.report("partitions", figures{"partitions": n, "of kinds": len(partitions), "seconds each": length.Seconds(),
		"first ack after heal, max": milli(slices.Max(healed)), "exits": r.exited()})
	if e := r.exited(); e > 0 {
		t.Errorf("%d brokers ended by themselves", e)
	}
}

// rotateFrom is rotate for one of several lists, which begin at different places.
func rotateFrom[V any](t *testing.T, items []V, n, list int) []V {
	t.Helper()
	at := list % len(items)
	return rotate(t, slices.Concat(items[at:], items[:at]), n)
}
