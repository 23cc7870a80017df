package chaos

import (
	"context"
	"time"

	"github.com/tidemark-io/tidemark/test/chaos/etcdproxy"
	"github.com/tidemark-io/tidemark/test/chaos/tcpproxy"
	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/harness"
)

func (r *rig) memberNames(targets []int) []string {
	var names []string
	for _, i := range targets {
		names = append(names, r.etcd.Members[i].Name)
	}
	return names
}

// etcdLeader is the member that leads, or the first if none says so.
func (r *rig) etcdLeader() int {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	i, err := r.etcd.Leader(ctx)
	if err != nil {
		r.t.Logf("etcd leader: %v", err)
	}
	return i
}

// etcdKilled ends members with SIGKILL; healing starts them and waits for them.
func (r *rig) etcdKilled(targets ...int) *fault {
	return r.begin("etcd kill -9", scopeOf(len(targets), etcdMembers), r.memberNames(targets), func() func() {
		for _, i := range targets {
			r.etcd.Members[i].Kill()
		}
		return func() {
			for _, i := range targets {
				r.etcd.Members[i].Start()
			}
			for _, i := range targets {
				r.etcd.Members[i].WaitReady()
			}
		}
	})
}

// etcdStopped pauses members; healing lets them go on.
func (r *rig) etcdStopped(targets ...int) *fault {
	return r.begin("etcd SIGSTOP", scopeOf(len(targets), etcdMembers), r.memberNames(targets), func() func() {
		for _, i := range targets {
			r.etcd.Members[i].Pause()
		}
		return func() {
			for _, i := range targets {
				r.etcd.Members[i].Resume()
			}
		}
	})
}

// etcdSlow delays everything that brokers say to etcd.
func (r *rig) etcdSlow(latency time.Duration) *fault {
	var links []*tcpproxy.Link
	for _, to := range r.toEtcd {
		for _, p := range to {
			links = append(links, p.Link())
		}
	}
	return r.broken("etcd slow", checker.All, r.memberNames([]int{0, 1, 2}), tcpproxy.Slow(latency, latency/10), links...)
}

// etcdCutOff parts a member from the others, not from the brokers.
func (r *rig) etcdCutOff(w way, i int) *fault {
	var links []*tcpproxy.Link
	for j, m := range r.etcd.Members {
		if j != i {
			links = append(links, r.raft[i].From(m.Name), r.raft[j].From(r.etcd.Members[i].Name))
		}
	}
	return r.broken("etcd cut off "+w.name, checker.Minority, r.memberNames([]int{i}), w.mode, links...)
}

// etcdRule is one rule at every member.
type etcdRule struct{ at []*etcdproxy.Active }

func (r *rig) etcdRule(rule etcdproxy.Rule) etcdRule {
	var e etcdRule
	for _, m := range r.members {
		e.at = append(e.at, m.Add(rule))
	}
	return e
}

func (e etcdRule) remove() {
	for _, a := range e.at {
		a.Remove()
	}
}

func (e etcdRule) counts() etcdproxy.Counts {
	var sum etcdproxy.Counts
	for _, a := range e.at {
		c := a.Counts()
		sum.Seen, sum.Hit, sum.Written = sum.Seen+c.Seen, sum.Hit+c.Hit, sum.Written+c.Written
	}
	return sum
}

// unanswered loses the answers to a share of the writes.
func (r *rig) unanswered(share float64) (*fault, etcdRule) {
	var e etcdRule
	f := r.begin("etcd answers lost", checker.Minority, r.memberNames([]int{0, 1, 2}), func() func() {
		e = r.etcdRule(etcdproxy.Rule{Method: etcdproxy.Txn, Writes: true, Action: etcdproxy.LoseAnswer, Probability: share})
		return e.remove
	})
	return f, e
}

// compacted compacts etcd's history every second and cuts the watches, until it
// is healed.
func (r *rig) compacted() (*fault, func() (compactions, cuts int)) {
	var compactions, cuts int
	done := make(chan struct{})
	stop := make(chan struct{})
	f := r.begin("etcd compacted each second, watches cut", checker.Minority, r.memberNames([]int{0, 1, 2}), func() func() {
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
				}
				for _, m := range r.members {
					cuts += m.CutWatches()
				}
				if r.compact() == nil {
					compactions++
				}
			}
		}()
		return func() { close(stop); <-done }
	})
	return f, func() (int, int) { <-done; return compactions, cuts }
}

// compact drops all of etcd's history but now.
func (r *rig) compact() error {
	cl, err := r.etcd.Client()
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	resp, err := cl.Get(ctx, "\x00")
	if err != nil {
		return err
	}
	_, err = cl.Compact(ctx, resp.Header.Revision)
	return err
}

// waitEtcd waits until etcd has a leader.
func (r *rig) waitEtcd() {
	r.t.Helper()
	harness.Eventually(r.t, 30*time.Second, "etcd has a leader", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		_, err := r.etcd.Leader(ctx)
		return err
	})
}
