package chaos

import (
	"time"

	"github.com/tidemark-io/tidemark/test/chaos/tcpproxy"
	"github.com/tidemark-io/tidemark/test/checker"
)

// killed ends brokers with SIGKILL; healing starts them again.
func (r *rig) killed(targets ...int) *fault {
	return r.begin("kill -9", r.scope(targets), r.names(targets), func() func() {
		r.kill(targets...)
		return func() { r.start(targets...) }
	})
}

// stopped pauses brokers with SIGSTOP; healing lets them go on.
func (r *rig) stopped(targets ...int) *fault {
	return r.begin("SIGSTOP", r.scope(targets), r.names(targets), func() func() {
		for _, i := range targets {
			r.brokers[i].Pause()
		}
		return func() {
			for _, i := range targets {
				r.brokers[i].Resume()
			}
		}
	})
}

// broken sets links to a mode; healing passes everything again.
func (r *rig) broken(kind, scope string, targets []string, mode tcpproxy.Mode, links ...*tcpproxy.Link) *fault {
	return r.begin(kind, scope, targets, func() func() {
		for _, l := range links {
			l.Set(mode)
		}
		return func() {
			for _, l := range links {
				l.Heal()
			}
		}
	})
}

// way names the modes that partitions come in.
type way struct {
	name string
	mode tcpproxy.Mode
}

var ways = []way{
	{"blackhole", tcpproxy.Blackhole()},
	{"reset", tcpproxy.Refuse()},
	{"one way up", tcpproxy.BlockDown()}, // requests arrive, answers do not
	{"one way down", tcpproxy.BlockUp()},
}

func (r *rig) fromEtcd(w way, targets ...int) *fault {
	var links []*tcpproxy.Link
	for _, i := range targets {
		for _, p := range r.toEtcd[i] {
			links = append(links, p.Link())
		}
	}
	return r.broken("broker-etcd "+w.name, r.scope(targets), r.names(targets), w.mode, links...)
}

func (r *rig) fromStore(w way, targets ...int) *fault {
	var links []*tcpproxy.Link
	for _, i := range targets {
		links = append(links, r.toStore[i].Link())
	}
	return r.broken("broker-store "+w.name, r.scope(targets), r.names(targets), w.mode, links...)
}

// fromClients cuts clients from brokers. Their partitions are not served then,
// for the cluster sees nothing wrong: no scope is a minority's.
func (r *rig) fromClients(w way, targets ...int) *fault {
	var links []*tcpproxy.Link
	for _, i := range targets {
		links = append(links, r.clients[i].Link())
	}
	return r.broken("client-broker "+w.name, checker.All, r.names(targets), w.mode, links...)
}

// fromPeers cuts brokers from all other brokers, both directions.
func (r *rig) fromPeers(w way, targets ...int) *fault {
	var links []*tcpproxy.Link
	for _, i := range targets {
		for j := range r.brokers {
			if i != j {
				links = append(links, r.peers[i].From(r.brokers[j].Name), r.peers[j].From(r.brokers[i].Name))
			}
		}
	}
	return r.broken("broker-broker "+w.name, r.scope(targets), r.names(targets), w.mode, links...)
}

// isolated cuts brokers from everything but their clients.
func (r *rig) isolated(w way, targets ...int) *fault {
	parts := []*fault{r.fromEtcd(w, targets...), r.fromStore(w, targets...), r.fromPeers(w, targets...)}
	return r.begin("isolated "+w.name, r.scope(targets), r.names(targets), func() func() {
		return func() {
			for _, p := range parts {
				p.heal()
			}
		}
	})
}

// bridge lets the first and the last broker see only the one between them, and
// each of them only one member of etcd besides the one they share.
func (r *rig) bridge(w way) *fault {
	last := len(r.brokers) - 1
	links := []*tcpproxy.Link{
		r.peers[0].From(r.brokers[last].Name), r.peers[last].From(r.brokers[0].Name),
		r.toEtcd[0][etcdMembers-1].Link(), r.toEtcd[last][0].Link(),
		r.raft[0].From(r.etcd.Members[etcdMembers-1].Name), r.raft[etcdMembers-1].From(r.etcd.Members[0].Name),
	}
	return r.broken("bridge "+w.name, checker.Minority, []string{r.brokers[0].Name, r.brokers[last].Name}, w.mode, links...)
}

// slowed delays everything that brokers send to etcd, the store and each other.
func (r *rig) slowed(latency, jitter time.Duration, targets ...int) *fault {
	var links []*tcpproxy.Link
	for _, i := range targets {
		links = append(links, r.toStore[i].Link())
		for _, p := range r.toEtcd[i] {
			links = append(links, p.Link())
		}
		for j := range r.brokers {
			links = append(links, r.peers[i].From(r.brokers[j].Name))
		}
	}
	return r.broken("slow links", r.scope(targets), r.names(targets), tcpproxy.Slow(latency, jitter), links...)
}
