package chaos

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemark-io/tidemark/metadata"
)

// hangAckMax is what a client may see after its leader fell silent.
const hangAckMax = 18 * time.Second

// TestS2Stop stops the leader of some partitions for less and for more than the
// life of its session, while writes queue up in its sockets, and lets it go on.
func TestS2Stop(t *testing.T) {
	r := newRig(t, "S2", rigOptions{})
	l := r.startLoad(loadOptions{})
	adm := kadm.NewClient(r.client())
	factors := []float64{0.5, 1.1, 2, 5}
	stops := pick(2, 100)
	var sum zombieCount
	for n := range stops {
		factor := factors[n%len(factors)]
		if !long() {
			factor = []float64{1.1, 2}[n%2]
		}
		sum.add(l.stopLeader(adm, n, time.Duration(factor*float64(metadata.DefaultSessionTTL))))
		l.waitAcks(time.Now(), healMax)
	}
	l.finish()
	values := figures{
		"SIGSTOPs": stops, "writes queued at deposed leaders": sum.attempted, "of them acknowledged": sum.committed,
		"writes queued at leaders that still led": sum.late,
	}
	if len(sum.taken) > 0 {
		values["silence p50"], values["silence max"] = milli(middle(sum.taken)), milli(slices.Max(sum.taken))
	}
	r.report("SIGSTOP", values)
	if sum.committed > 0 {
		t.Errorf("deposed leaders acknowledged %d writes", sum.committed)
	}
	if sum.attempted <= 50 {
		t.Errorf("%d writes to deposed leaders show nothing", sum.attempted)
	}
	if len(sum.taken) > 0 && slices.Max(sum.taken) > hangAckMax {
		t.Errorf("after a silent stop: want an acknowledgement within %v", hangAckMax)
	}
	if e := r.exited(); e > 0 {
		t.Errorf("%d brokers ended by themselves", e)
	}
}

// zombieCount is what became of writes to a broker that was stopped.
type zombieCount struct {
	attempted, committed int             // of partitions that others led when it went on
	late                 int             // of the other partitions
	taken                []time.Duration // from the stop to the next leader's first acknowledgement
}

func (z *zombieCount) add(o zombieCount) {
	z.attempted, z.committed, z.late = z.attempted+o.attempted, z.committed+o.committed, z.late+o.late
	z.taken = append(z.taken, o.taken...)
}

// stopLeader stops a broker that leads something for so long.
func (l *load) stopLeader(adm *kadm.Client, n int, length time.Duration) zombieCount {
	r := l.r
	r.t.Helper()
	victim, led := r.someLeader(adm)
	z := r.dialZombie(victim, n)
	for _, rep := range z.produce(led[:1], 1) {
		if err := <-rep.err; err != nil {
			r.t.Fatalf("the leader refused a write before it was stopped, so refusals would show nothing: %v", err)
		}
	}
	f := r.stopped(victim)
	at := time.Now()
	// Two waves: writes that were on their way when the leader stopped, and
	// writes sent when others may have taken over.
	replies := z.produce(led, 1)
	time.Sleep(length - 300*time.Millisecond)
	replies = append(replies, z.produce(led, 16)...)
	time.Sleep(300 * time.Millisecond) // the second wave reaches the sockets
	moved := make(map[int32]bool)
	var count zombieCount
	for _, p := range led {
		if d, ok := l.firstAck(p, at); ok { // by another, for this one is stopped
			moved[p] = true
			count.taken = append(count.taken, d)
		}
	}
	f.heal()
	for _, rep := range replies {
		var err error
		select {
		case err = <-rep.err:
		case <-time.After(2 * replyMax):
			r.t.Fatalf("a write to partition %d was neither refused nor acknowledged", rep.partition)
		}
		switch {
		case !moved[rep.partition]:
			count.late++
		case err == nil:
			count.committed++
			fallthrough
		default:
			count.attempted++
		}
	}
	return count
}

// someLeader is a broker that leads something, and what that is.
func (r *rig) someLeader(adm *kadm.Client) (int, []int32) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		i := r.random.IntN(len(r.brokers))
		if led := r.ledBy(adm, i); len(led) > 0 {
			return i, led
		}
	}
	r.t.Fatal("no broker leads anything")
	return 0, nil
}
