package test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemark-io/tidemark/test/harness"
)

const scaleTopic = "scale"

// evenWithin is how soon leadership is spread evenly after a broker comes or goes.
const evenWithin = 10 * time.Second

// steady is how long the load goes on with nothing changing.
const steady = 5 * time.Second

// TestScale adds a fourth broker and removes one, under load. Leadership evens
// out, and no client meets an error it does not retry by itself.
func TestScale(t *testing.T) {
	harness.System(t)
	const partitions = 24
	c := harness.StartCluster(t, harness.Options{})
	createTopic(t, c, scaleTopic, partitions)
	adm := newAdmin(t, c)
	l := startLoad(t, c, scaleTopic, partitions, 3, 100)
	l.waitAcks(time.Now(), 20*time.Second)

	fourth := c.Add()
	fourth.Start()
	ready := time.Now()
	waitEven(t, adm, c)
	figure(t, "leadership even %v after the fourth broker was ready", time.Since(ready).Round(time.Millisecond))

	time.Sleep(steady)

	leaver := c.Brokers[1]
	left := time.Now()
	took, err := leaver.Terminate(20 * time.Second)
	if err != nil {
		t.Errorf("graceful stop: %v after %v", err, took)
	}
	waitEven(t, adm, c)
	figure(t, "leadership even %v after a broker was asked to leave, which took it %v",
		time.Since(left).Round(time.Millisecond), took.Round(time.Millisecond))
	time.Sleep(steady)
	waitEven(t, adm, c) // and it stays so
	l.waitAcks(time.Now(), 20*time.Second)
	l.finish()
}

// waitEven waits until the running brokers share the partitions, none leading
// two more than another.
func waitEven(t *testing.T, adm *kadm.Client, c *harness.Cluster) {
	t.Helper()
	harness.Eventually(t, evenWithin, "leadership even", func() error {
		by, err := leaders(t.Context(), adm, scaleTopic)
		if err != nil {
			return err
		}
		led := make(map[string]int)
		for _, seed := range c.Seeds() {
			led[seed] = 0
		}
		for p, addr := range by {
			if _, ok := led[addr]; !ok {
				return fmt.Errorf("partition %d is led by %s, which is gone", p, addr)
			}
			led[addr]++
		}
		low, high := len(by), 0
		for _, n := range led {
			low, high = min(low, n), max(high, n)
		}
		if high-low > 2 {
			return fmt.Errorf("brokers lead between %d and %d partitions", low, high)
		}
		return nil
	})
}
