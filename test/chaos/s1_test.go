package chaos

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemark-io/tidemark/test/harness"
)

const (
	// What a client may see after its leader was killed.
	killAckMedian, killAckMax = 3 * time.Second, 14 * time.Second
)

// TestS1Kill kills brokers, one and now and then all, again and again.
func TestS1Kill(t *testing.T) {
	r := newRig(t, "S1", rigOptions{})
	l := r.startLoad(loadOptions{})
	adm := kadm.NewClient(r.client())
	singles, disasters := pick(6, 182), pick(2, 6) // 12 kills, or 200
	var one, all []time.Duration
	for i := range singles {
		victim := r.random.IntN(len(r.brokers))
		led := r.ledBy(adm, victim)
		at := time.Now()
		f := r.killed(victim)
		time.Sleep(pick(2*time.Second, time.Duration(1+r.random.IntN(4))*time.Second))
		f.heal()
		one = append(one, l.recovered(led, at)...)
		if i%8 == 7 {
			r.cluster.WaitReady()
		}
		time.Sleep(time.Until(at.Add(5 * time.Second)))
	}
	for range disasters {
		at := time.Now()
		f := r.killed(r.all()...)
		for _, b := range r.brokers {
			b.Wipe() // nothing on a broker's disk is needed
		}
		f.heal()
		all = append(all, l.waitAcks(at, 30*time.Second))
	}
	l.finish()
	if len(one) == 0 {
		t.Fatal("no victim led a partition: the faults hit nothing")
	}
	r.report("kill -9", figures{
		"kills": r.kills, "of all at once, disks wiped": disasters, "partitions led by victims": len(one),
		"first ack p50": milli(middle(one)), "first ack max": milli(slices.Max(one)), "first ack after all died, max": milli(slices.Max(all)),
	})
	if middle(one) > killAckMedian || slices.Max(one) > killAckMax {
		t.Errorf("after kill -9: want p50 <= %v and max <= %v", killAckMedian, killAckMax)
	}
	if n := r.exited(); n > 0 {
		t.Errorf("%d brokers ended by themselves", n)
	}
}

// ledBy are the partitions a broker leads.
func (r *rig) ledBy(adm *kadm.Client, i int) []int32 {
	r.t.Helper()
	var led []int32
	harness.Eventually(r.t, 20*time.Second, "leaders known", func() error {
		by, err := r.leaders(adm, topic)
		led = nil
		for p, leader := range by {
			if leader == i {
				led = append(led, p)
			}
		}
		return err
	})
	return led
}

// recovered waits until partitions acknowledge what was sent after at, and
// returns how long each took.
func (l *load) recovered(partitions []int32, at time.Time) []time.Duration {
	l.r.t.Helper()
	var times []time.Duration
	for _, p := range partitions {
		harness.Eventually(l.r.t, 60*time.Second, "an acknowledgement after a fault", func() error {
			d, ok := l.firstAck(p, at)
			if !ok {
				return errNothing
			}
			times = append(times, d)
			return nil
		})
	}
	return times
}

func middle(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}
