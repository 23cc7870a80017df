package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tidemark-io/tidemark/test/harness"
)

// TestS5Etcd does to etcd what may happen to one; the short form takes some at
// each commit.
func TestS5Etcd(t *testing.T) {
	r := newRig(t, "S5", rigOptions{})
	l := r.startLoad(loadOptions{})
	pause := pick(8*time.Second, 20*time.Second)
	adversities := []pack{
		{"kill leader", func(r *rig) *fault { return r.etcdKilled(r.etcdLeader()) }},
		{"stop leader", func(r *rig) *fault { return r.etcdStopped(r.etcdLeader()) }},
		{"stop all", func(r *rig) *fault { return r.etcdStopped(0, 1, 2) }},
		{"3 s more latency", func(r *rig) *fault { return r.etcdSlow(3 * time.Second) }},
		{"leader cut off", func(r *rig) *fault { return r.etcdCutOff(ways[0], r.etcdLeader()) }},
		{"member wiped", (*rig).etcdWiped},
		{"answers lost", func(r *rig) *fault { f, _ := r.unanswered(0.5); return f }},
		{"compaction storm", func(r *rig) *fault { f, _ := r.compacted(); return f }},
	}
	done := rotate(t, adversities, 3)
	var healed []time.Duration
	for _, a := range done {
		from := time.Now()
		f := a.begin(r)
		length := pause
		if a.name == "stop all" {
			length = pick(8*time.Second, 30*time.Second)
		}
		time.Sleep(length)
		silence := l.longestGap(from, time.Now())
		f.heal()
		r.waitEtcd()
		took := l.waitAcks(time.Now(), healMax)
		healed = append(healed, took)
		t.Logf("%s: longest silence %v, every partition acknowledges %v after the end", a.name, milli(silence), milli(took))
		if silence > 5*time.Second {
			t.Errorf("%s: led partitions were silent for %v", a.name, silence)
		}
		time.Sleep(2 * time.Second) // sessions come back
	}
	l.finish()
	r.report("etcd", figures{"adversities": len(done), "first ack after heal, max": milli(slices.Max(healed)), "exits": r.exited()})
	if e := r.exited(); e > 0 {
		t.Errorf("%d brokers ended by themselves", e)
	}
}

// etcdWiped loses a member's disk; healing removes it from the cluster and lets
// it join again, empty.
func (r *rig) etcdWiped() *fault {
	i := r.random.IntN(etcdMembers)
	return r.begin("etcd member wiped", scopeOf(1, etcdMembers), r.memberNames([]int{i}), func() func() {
		r.etcd.Members[i].Kill()
		return func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := r.etcd.Replace(ctx, i); err != nil {
				r.t.Errorf("replace %s: %v", r.etcd.Members[i].Name, err)
				return
			}
			r.etcd.Members[i].WaitReady()
		}
	})
}

// TestS5NoSpace fills etcd to its quota, so that it refuses writes: what is led
// is written and read on. Then room is made.
func TestS5NoSpace(t *testing.T) {
	r := newRig(t, "S5", rigOptions{etcdArgs: []string{"--quota-backend-bytes", fmt.Sprint(16 << 20)}})
	l := r.startLoad(loadOptions{})
	from := time.Now()
	var filled int
	f := r.begin("etcd NOSPACE", "all", nil, func() func() {
		filled = r.fillEtcd()
		return r.emptyEtcd
	})
	full := time.Now()
	time.Sleep(pick(6*time.Second, time.Minute))
	silence := l.longestGap(full, time.Now())
	f.heal()
	took := l.waitAcks(time.Now(), healMax)
	l.finish()
	r.report("NOSPACE", figures{"MiB written to fill it": filled >> 20, "filled in": milli(full.Sub(from)),
		"longest silence while full": milli(silence), "first ack after heal": milli(took), "exits": r.exited()})
	if silence > 2*time.Second {
		t.Errorf("led partitions were silent for %v while etcd was full", silence)
	}
}

const fillPrefix = "/fill/"

// fillEtcd writes until etcd raises its alarm.
func (r *rig) fillEtcd() (bytes int) {
	r.t.Helper()
	cl, err := r.etcd.Client()
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	value := strings.Repeat("x", 1<<20)
	for n := range 200 {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		_, err := cl.Put(ctx, fmt.Sprintf("%s%d", fillPrefix, n), value)
		cancel()
		if err != nil {
			if strings.Contains(err.Error(), "database space exceeded") {
				return bytes
			}
			r.t.Fatalf("fill etcd: %v", err)
		}
		bytes += len(value)
	}
	r.t.Fatal("etcd takes more than its quota")
	return 0
}

// emptyEtcd deletes what fillEtcd wrote, as an operator would: compact, defragment,
// disarm.
func (r *rig) emptyEtcd() {
	r.t.Helper()
	cl, err := r.etcd.Client()
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := cl.Delete(ctx, fillPrefix, clientv3.WithPrefix()); err != nil {
		r.t.Fatalf("delete: %v", err)
	}
	if err := r.compact(); err != nil {
		r.t.Fatalf("compact: %v", err)
	}
	for _, m := range r.etcd.Members {
		if _, err := cl.Defragment(ctx, m.URL); err != nil {
			r.t.Fatalf("defragment %s: %v", m.Name, err)
		}
	}
	harness.Eventually(r.t, 30*time.Second, "no alarm", func() error {
		if _, err := cl.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
			return err
		}
		resp, err := cl.AlarmList(ctx)
		if err != nil {
			return err
		}
		for _, a := range resp.Alarms {
			if a.Alarm == etcdserverpb.AlarmType_NOSPACE {
				return fmt.Errorf("member %x is over its quota", a.MemberID)
			}
		}
		return nil
	})
}

// waitLevel waits until every broker leads its share. A topic that was made
// while the brokers still learn of each other is levelled some seconds later.
func (r *rig) waitLevel() {
	r.t.Helper()
	adm := kadm.NewClient(r.client())
	harness.Eventually(r.t, 30*time.Second, "every broker leads its share", func() error {
		by, err := r.leaders(adm, topic)
		led := make([]int, len(r.brokers))
		for _, i := range by {
			led[i]++
		}
		if err == nil && slices.Max(led)-slices.Min(led) > 1 {
			err = fmt.Errorf("they lead %v", led)
		}
		return err
	})
}

// TestS5LeaderPauses stops etcd's leader for longer than a session lives: leases
// vanish, and no partition moves.
func TestS5LeaderPauses(t *testing.T) {
	r := newRig(t, "S5", rigOptions{})
	l := r.startLoad(loadOptions{})
	pauses := pick(1, 20)
	r.waitLevel()
	before := r.owners()
	lapsed := r.sessions()
	for range pauses {
		f := r.etcdStopped(r.etcdLeader())
		time.Sleep(20 * time.Second)
		f.heal()
		r.waitEtcd()
		time.Sleep(pick(5*time.Second, 15*time.Second))
	}
	after := r.owners()
	registered := r.sessions()
	moved := 0
	for p, o := range before {
		if after[p] != o {
			moved++
		}
	}
	l.finish()
	r.report("pauses of etcd's leader", figures{"pauses": pauses, "seconds each": 20, "partitions": len(before), "partitions moved": moved,
		"sessions before and after": fmt.Sprintf("%d, %d, of which %d are the same", len(lapsed), len(registered), same(lapsed, registered))})
	if moved > 0 {
		t.Errorf("%d partitions moved off healthy brokers", moved)
	}
}
