package chaos

import (
	"time"

	"github.com/tidemark-io/tidemark/test/chaos/s3proxy"
)

// pack is a kind of fault that the nemesis may draw.
type pack struct {
	name  string
	begin func(r *rig) *fault
}

// targets draws one broker, most of them, or all.
func (r *rig) targets() []int {
	n := []int{1, len(r.brokers)/2 + 1, len(r.brokers)}[r.random.IntN(3)]
	return r.random.Perm(len(r.brokers))[:n]
}

func (r *rig) way() way { return ways[r.random.IntN(len(ways))] }

// brokerPacks, partitionPacks, storePacks and etcdPacks are what S1, S3, S4 and
// S5 try one by one.
func brokerPacks() []pack {
	return []pack{
		{"kill", func(r *rig) *fault { return r.killed(r.targets()...) }},
		{"stop", func(r *rig) *fault { return r.stopped(r.random.IntN(len(r.brokers))) }},
	}
}

func partitionPacks() []pack {
	return []pack{
		{"broker-etcd", func(r *rig) *fault { return r.fromEtcd(r.way(), r.targets()...) }},
		{"broker-store", func(r *rig) *fault { return r.fromStore(r.way(), r.targets()...) }},
		{"client-broker", func(r *rig) *fault { return r.fromClients(r.way(), r.targets()...) }},
		{"broker-broker", func(r *rig) *fault { return r.fromPeers(r.way(), r.random.IntN(len(r.brokers))) }},
		{"isolated", func(r *rig) *fault { return r.isolated(r.way(), r.random.IntN(len(r.brokers))) }},
		{"bridge", func(r *rig) *fault { return r.bridge(r.way()) }},
		{"slow", func(r *rig) *fault { return r.slowed(300*time.Millisecond, 200*time.Millisecond, r.targets()...) }},
	}
}

func storePacks() []pack {
	return []pack{{"store", func(r *rig) *fault {
		all := lies()
		l := all[r.random.IntN(len(all))]
		l.rule.Probability = []float64{0.01, 0.1, 1}[r.random.IntN(3)]
		f, _ := r.lying(l.rule, r.targets()...)
		return f
	}}, {"ambiguous PUTs", func(r *rig) *fault {
		f, _ := r.lying(s3proxy.Rule{Mode: s3proxy.AmbiguousOK, Op: s3proxy.Put, Probability: 0.2}, r.all()...)
		return f
	}}}
}

func etcdPacks() []pack {
	return []pack{
		{"kill etcd leader", func(r *rig) *fault { return r.etcdKilled(r.etcdLeader()) }},
		{"stop etcd leader", func(r *rig) *fault { return r.etcdStopped(r.etcdLeader()) }},
		{"stop all of etcd", func(r *rig) *fault { return r.etcdStopped(0, 1, 2) }},
		{"etcd leader cut off", func(r *rig) *fault { return r.etcdCutOff(r.way(), r.etcdLeader()) }},
		{"etcd answers lost", func(r *rig) *fault { f, _ := r.unanswered(0.3); return f }},
		{"etcd slow", func(r *rig) *fault { return r.etcdSlow(time.Second) }},
		{"compaction", func(r *rig) *fault { f, _ := r.compacted(); return f }},
	}
}

// schedule is how the nemesis spends its time.
type schedule struct {
	length time.Duration
	// A period of faults lasts from least to least+spread, a pause after it
	// a third of that. A quarter of the periods have no fault.
	least, spread time.Duration
	groups        [][]pack
}

// drawn counts what the nemesis did.
type drawn struct {
	periods, quiet int
	faults         map[string]int
}

// nemesis draws faults until the schedule is over. In each period every group
// has an even chance to give one of its packs.
func (r *rig) nemesis(s schedule) drawn {
	r.t.Helper()
	d := drawn{faults: make(map[string]int)}
	for end := time.Now().Add(s.length); time.Now().Before(end); {
		d.periods++
		period := s.least
		if s.spread > 0 {
			period += time.Duration(r.random.Int64N(int64(s.spread)))
		}
		if r.random.IntN(4) == 0 {
			d.quiet++
			time.Sleep(period / 2)
			continue
		}
		begun := false
		for !begun {
			for _, g := range s.groups {
				if r.random.IntN(2) == 0 {
					continue
				}
				p := g[r.random.IntN(len(g))]
				p.begin(r)
				d.faults[p.name]++
				begun = true
			}
		}
		time.Sleep(period)
		r.healAll()
		time.Sleep(period / 3)
	}
	return d
}
