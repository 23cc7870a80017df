package chaos

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// stopAckMax is what a client may see of a broker that leaves in order.
const stopAckMax = time.Second

// TestS8Rolling restarts brokers one after the other, in order, while the
// controller is made to change its mind every two seconds.
func TestS8Rolling(t *testing.T) {
	r := newRig(t, "S8", rigOptions{})
	l := r.startLoad(loadOptions{})
	kv := r.kv()
	moved, rounds := 0, 0
	for end := time.Now().Add(pick(8*time.Second, 5*time.Minute)); time.Now().Before(end); {
		n, err := r.move(kv)
		if err != nil {
			t.Fatal(err)
		}
		moved += n
		rounds++
		time.Sleep(2 * time.Second)
	}
	l.waitAcks(time.Now(), healMax)
	adm := kadm.NewClient(r.client())
	var acks []time.Duration
	restarts := 0
	for range pick(1, 5) {
		for i, b := range r.brokers {
			led := r.ledBy(adm, i)
			r.mu.Lock()
			r.down[i] = true
			r.mu.Unlock()
			at := time.Now()
			f := r.begin("SIGTERM", r.scope([]int{i}), r.names([]int{i}), func() func() {
				if took, err := b.Terminate(10 * time.Second); err != nil {
					t.Errorf("%s did not stop cleanly: %v after %v", b.Name, err, took)
				}
				return func() { r.start(i) }
			})
			acks = append(acks, l.recovered(led, at)...)
			f.heal()
			b.WaitReady()
			restarts++
			time.Sleep(pick(2*time.Second, 5*time.Second)) // leadership comes back to it
		}
	}
	l.finish()
	if len(acks) == 0 {
		t.Fatal("no broker that was restarted led anything")
	}
	r.report("rolling restarts and moves", figures{"rounds of moves": rounds, "partitions moved": moved, "restarts": restarts,
		"first ack after SIGTERM p50": milli(middle(acks)), "first ack after SIGTERM max": milli(slices.Max(acks))})
	if moved == 0 {
		t.Error("nothing was moved")
	}
	if slices.Max(acks) > stopAckMax {
		t.Errorf("after a graceful stop: want an acknowledgement within %v", stopAckMax)
	}
	if e := r.exited(); e > 0 {
		t.Errorf("%d brokers ended by themselves", e)
	}
}
