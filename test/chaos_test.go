package test

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/harness"
)

const (
	chaosTopic      = "chaos"
	chaosPartitions = 12

	// What a client may see after its leader died, and after it left in order.
	killAckMedian, killAckMax, stopAckMax = 3 * time.Second, 14 * time.Second, time.Second
)

// TestKill9 kills one of three brokers every ten seconds, under load, and starts
// it again three seconds later.
func TestKill9(t *testing.T) {
	harness.System(t)
	kills := 5
	if harness.Long() {
		kills = 18
	}
	c := harness.StartCluster(t, harness.Options{EtcdMembers: 3})
	createTopic(t, c, chaosTopic, chaosPartitions)
	adm := newAdmin(t, c)
	l := startLoad(t, c, chaosTopic, chaosPartitions, 3, 100)
	l.waitAcks(time.Now(), 20*time.Second)

	var faults []fault
	for i := range kills {
		victim := c.Brokers[i%len(c.Brokers)]
		f := faultOn(t, adm, victim)
		kill := l.hist.Fault("kill", checker.Minority, victim.Name)
		victim.Kill()
		faults = append(faults, f)
		time.Sleep(3 * time.Second)
		victim.Launch()
		kill.End()
		time.Sleep(time.Until(f.at.Add(10 * time.Second)))
	}
	c.WaitReady()
	l.hist.Heal()
	l.waitAcks(time.Now(), 20*time.Second)
	killed := l.recovery(faults)

	faults = nil
	for _, victim := range c.Brokers {
		f := faultOn(t, adm, victim)
		stop := l.hist.Fault("terminate", checker.Minority, victim.Name)
		took, err := victim.Terminate(10 * time.Second)
		if err != nil {
			t.Errorf("%s did not stop cleanly: %v after %v", victim.Name, err, took)
		}
		figure(t, "%s drained and stopped in %v", victim.Name, took.Round(time.Millisecond))
		faults = append(faults, f)
		l.waitAcks(time.Now(), 20*time.Second)
		victim.Start()
		stop.End()
		time.Sleep(5 * time.Second) // leadership comes back to it
	}
	stopped := l.recovery(faults)
	l.hist.Heal()
	l.finish()

	figure(t, "kill -9 to the next acknowledgement: p50 %v, max %v, of %d partitions in %d kills", middle(killed), slices.Max(killed), len(killed), kills)
	figure(t, "graceful stop to the next acknowledgement: p50 %v, max %v, of %d partitions", middle(stopped), slices.Max(stopped), len(stopped))
	if middle(killed) > killAckMedian || slices.Max(killed) > killAckMax {
		t.Errorf("after kill -9: want p50 <= %v and max <= %v", killAckMedian, killAckMax)
	}
	if slices.Max(stopped) > stopAckMax {
		t.Errorf("after a graceful stop: want max <= %v", stopAckMax)
	}
}

// fault is something done to a broker, and the partitions it led then.
type fault struct {
	at  time.Time
	led []int32
}

func faultOn(t *testing.T, adm *kadm.Client, victim *harness.Broker) fault {
	t.Helper()
	var by map[int32]string
	harness.Eventually(t, 20*time.Second, "leaders known", func() (err error) {
		by, err = leaders(t.Context(), adm, chaosTopic)
		return err
	})
	f := fault{at: time.Now()}
	for p, addr := range by {
		if addr == victim.Addr {
			f.led = append(f.led, p)
		}
	}
	return f
}

// recovery is the time to the next acknowledgement of every partition of every
// fault. There is at least one value, or the test fails.
func (l *load) recovery(faults []fault) []time.Duration {
	l.t.Helper()
	var times []time.Duration
	for _, f := range faults {
		for _, p := range f.led {
			d, ok := l.firstAck(p, f.at)
			if !ok {
				l.t.Errorf("partition %d: nothing acknowledged since %v", p, f.at)
				continue
			}
			times = append(times, d.Round(time.Millisecond))
		}
	}
	if len(times) == 0 {
		l.t.Fatal("no victim led a partition: the faults hit nothing")
	}
	return times
}

func middle(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}
