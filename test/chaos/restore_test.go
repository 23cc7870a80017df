package chaos

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/harness"
)

// coldMax is what etcd and all brokers may take together to come up, the sessions
// of killed brokers having to lapse first.
const coldMax = time.Minute

// TestRestoredEtcd puts an etcd back in time under a bucket that went on, as an
// operator does who restores an old backup: brokers refuse it, whether they are
// started on it or it is put under them, and go on once the newest is back.
func TestRestoredEtcd(t *testing.T) {
	r := newRig(t, "R14", rigOptions{})
	l := r.startLoad(loadOptions{})
	time.Sleep(pick(3*time.Second, 20*time.Second))
	r.kill(r.all()...)
	r.etcdDown(func() { r.copyEtcd("", ".old") })
	r.start(r.all()...)
	l.waitAcks(time.Now(), coldMax)
	for i := range 2 { // so that leaders change
		r.killed(i).heal()
		l.waitAcks(time.Now(), healMax)
	}
	r.kill(r.all()...)
	r.etcdDown(func() { r.copyEtcd("", ".new"); r.copyEtcd(".old", "") })
	for _, b := range r.brokers {
		b.Launch()
	}
	r.waitRefused("was put back in time and would give offsets out again")

	r.etcdDown(func() { r.copyEtcd(".new", "") })
	r.start(r.all()...)
	l.waitAcks(time.Now(), coldMax)
	r.mu.Lock()
	for i := range r.down {
		r.down[i] = true // they will end, and are meant to
	}
	r.mu.Unlock()
	r.etcdDown(func() { r.copyEtcd("", ".new"); r.copyEtcd(".old", "") })
	r.waitRefused("cluster identity mismatch")
	r.etcdDown(func() { r.copyEtcd(".new", "") })
	r.start(r.all()...)
	took := l.waitAcks(time.Now(), coldMax)
	l.finish()
	r.report("etcd put back in time", figures{"refused to start": len(r.brokers), "stopped under it": len(r.brokers), "first ack with the newest": milli(took)})
}

// etcdDown does something while no member runs.
func (r *rig) etcdDown(do func()) {
	r.t.Helper()
	for _, m := range r.etcd.Members {
		m.Kill()
	}
	do()
	for _, m := range r.etcd.Members {
		m.Start()
	}
	for _, m := range r.etcd.Members {
		m.WaitReady()
	}
}

// copyEtcd replaces the members' data called to by that called from.
func (r *rig) copyEtcd(from, to string) {
	r.t.Helper()
	for _, m := range r.etcd.Members {
		if err := os.RemoveAll(m.Dir + to); err != nil {
			r.t.Fatal(err)
		}
		if err := os.CopyFS(m.Dir+to, os.DirFS(m.Dir+from)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// waitRefused waits until every broker has ended and said why.
func (r *rig) waitRefused(why string) {
	r.t.Helper()
	for _, b := range r.brokers {
		harness.Eventually(r.t, 30*time.Second, b.Name+" refuses", func() error {
			if b.Running() {
				return fmt.Errorf("it runs")
			}
			return nil
		})
		log := strings.TrimRight(b.Log(), "\n")
		if last := log[strings.LastIndexByte(log, '\n')+1:]; !strings.Contains(last, why) {
			r.t.Errorf("%s ended otherwise: %s", b.Name, last)
		}
	}
}
