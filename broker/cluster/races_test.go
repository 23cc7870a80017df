package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
	"github.com/tidemark-io/tidemark/tiering"
)

// A controller that was deposed without knowing writes nothing.
func TestZombieControllerWritesNothing(t *testing.T) {
	inCluster(t, 2, func(r *rig) {
		topic := r.topic("orders", 4)
		r.settle(topic, 2, 2)
		zombie := r.controller()
		term := zombie.controller.rev
		r.store.DropLease(zombie.session.Lease())
		r.eventually(5*time.Second, "another term", func() bool {
			entries, _, err := r.admin.Get(r.ctx, metadata.KeyController)
			return err == nil && entries[0].Exists() && entries[0].ModRevision != term
		})
		tp := metadata.TopicPartition{Topic: topic.ID}
		p, rev, _ := r.view.PartitionEntry(tp)
		late := &controller{n: zombie.Node, rev: term}
		m := membership{accept: []metadata.Incarnation{999}, stay: map[metadata.Incarnation]bool{999: true}}
		for _, assign := range []func(context.Context, membership) (int64, error){late.assignPartitions, late.assignShards} {
			late.rev = term
			if _, err := assign(r.ctx, m); err != nil {
				t.Error(err)
			}
			if late.rev != 0 {
				t.Error("the zombie still believes")
			}
		}
		now, nowRev, _ := r.view.PartitionEntry(tp)
		if nowRev != rev || now.Preferred != p.Preferred {
			t.Errorf("partition changed from %+v to %+v", p, now)
		}
		if c := r.shards(); c[999] != 0 {
			t.Errorf("shards %v", c)
		}
	})
}

// Epochs of successive controllers grow.
func TestControllerEpochGrows(t *testing.T) {
	inCluster(t, 2, func(r *rig) {
		last := int64(0)
		for range 4 {
			var c metadata.Controller
			r.eventually(20*time.Second, "a newer controller", func() bool {
				var ok bool
				c, ok = r.view.Controller()
				return ok && c.Epoch != last
			})
			if c.Epoch <= last {
				t.Fatalf("epoch %d after %d", c.Epoch, last)
			}
			last = c.Epoch
			r.store.DropLease(r.controller().session.Lease())
		}
	})
}

// A claim whose Lead is still under way is released at once when a successor
// asks for it, and never opened afterwards.
func TestSupersededClaimIsReleased(t *testing.T) {
	inCluster(t, 2, func(r *rig) {
		r.controller()
		time.Sleep(2 * time.Second)
		m := r.other()
		// The claim lies under a predecessor that nobody can close for a while.
		r.bucket.mu.Lock()
		r.bucket.chain[7] = &fakeChain{opened: map[tiering.Claim]bool{}, released: map[tiering.Claim]uint64{}}
		r.bucket.mu.Unlock()
		tp := metadata.TopicPartition{Topic: metadata.TopicID{1}}
		owned := metadata.Partition{Preferred: m.inc, Owners: []metadata.Owner{{Incarnation: 7, Epoch: 3}, {Incarnation: m.inc, Epoch: 4}}}
		if _, err := r.admin.Txn(r.ctx, metadata.Txn{Then: []metadata.Op{metadata.Put(metadata.PartitionKey(tp), encode(owned))}}); err != nil {
			t.Fatal(err)
		}
		asker := r.controller()
		claim := tiering.Claim{Partition: tp, Epoch: 4}
		foreign := tiering.Claim{Partition: tp, Epoch: 3}
		got, err := asker.AskRelease(r.ctx, m.inc, []tiering.Claim{claim, foreign})
		if err != nil || len(got) != 1 || got[0].Claim != claim {
			t.Fatalf("released %v, %v; want only its own claim", got, err)
		}
		again, err := asker.AskRelease(r.ctx, m.inc, []tiering.Claim{claim})
		if err != nil || !slices.Equal(again, got) {
			t.Errorf("asked again: %v, %v; before: %v", again, err, got)
		}
		if !m.log.isGivenUp(claim) {
			t.Error("the log does not know")
		}
	})
}

// What a broker released it claims anew, under a new epoch, while the
// controller still prefers it.
func TestReleasedButPreferredIsClaimedAnew(t *testing.T) {
	inCluster(t, 2, func(r *rig) {
		topic := r.topic("orders", 2)
		r.settle(topic, 1, 1)
		m := r.other()
		var tp metadata.TopicPartition
		for p := range topic.Partitions {
			if c := (metadata.TopicPartition{Topic: topic.ID, Partition: p}); slices.Contains(r.bucket.leaders(c), m.inc) {
				tp = c
			}
		}
		if _, err := r.controller().AskRelease(r.ctx, m.inc, []tiering.Claim{{Partition: tp, Epoch: 0}}); err != nil {
			t.Fatal(err)
		}
		r.eventually(time.Second, "led again", func() bool { return slices.Contains(r.bucket.leaders(tp), m.inc) })
		p, _, _ := r.view.PartitionEntry(tp)
		if newest, _ := p.Newest(); newest != (metadata.Owner{Incarnation: m.inc, Epoch: 1}) {
			t.Errorf("owners %v", p.Owners)
		}
	})
}

// A successor claimed what this broker leads and died; the controller prefers
// this broker again. It gives its old claim up and leads under a newer one.
func TestSupersededByADeadSuccessor(t *testing.T) {
	inCluster(t, 1, func(r *rig) {
		topic := r.topic("orders", 1)
		r.settle(topic, 1)
		r.bucket.mu.Lock()
		r.bucket.chain[7] = &fakeChain{ended: true, opened: map[tiering.Claim]bool{}, released: map[tiering.Claim]uint64{}}
		r.bucket.mu.Unlock()
		m, tp := r.nodes[0], metadata.TopicPartition{Topic: topic.ID}
		p, _, _ := r.view.PartitionEntry(tp)
		next := metadata.Partition{Preferred: m.inc, Owners: append(slices.Clone(p.Owners), metadata.Owner{Incarnation: 7, Epoch: 1})}
		if _, err := r.admin.Txn(r.ctx, metadata.Txn{Then: []metadata.Op{metadata.Put(metadata.PartitionKey(tp), encode(next))}}); err != nil {
			t.Fatal(err)
		}
		r.eventually(time.Second, "a third claim, and led", func() bool {
			p, _, _ := r.view.PartitionEntry(tp)
			newest, _ := p.Newest()
			return newest == metadata.Owner{Incarnation: m.inc, Epoch: 2} && slices.Contains(r.bucket.leaders(tp), m.inc)
		})
	})
}

// A sealed incarnation that registers again, long after, is given nothing.
func TestSealedIncarnationIsNeverTrustedAgain(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		victim := r.other()
		victim.kill()
		r.eventually(time.Second, "taken over", func() bool { return r.led(topic)[victim.inc] == 0 })
		time.Sleep(2 * forgetAfter)
		back := metadata.Broker{ID: 9, Incarnation: victim.inc, Peer: victim.addr}
		if _, err := r.admin.Txn(r.ctx, metadata.Txn{Then: []metadata.Op{metadata.Put(metadata.BrokerKey(victim.inc), encode(back))}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // load would be levelled, and the silence not be noticed yet
		r.view.Partitions(func(tp metadata.TopicPartition, p *metadata.Partition) bool {
			if p.Preferred == victim.inc {
				t.Errorf("%v prefers the sealed incarnation", tp)
			}
			return true
		})
	})
}

// While a broker's fate is open, nothing is moved for balance.
func TestNoLevellingWhileInDoubt(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		victim := r.other()
		victim.client.SetUnavailable(true)
		time.Sleep(8 * time.Second) // absent by now
		newcomer := r.join()
		time.Sleep(4 * time.Second)
		if led := r.led(topic); led[newcomer.inc] != 0 || led[victim.inc] != 4 {
			t.Errorf("moved while a broker is absent: %v", led)
		}
		r.eventually(20*time.Second, "levelled afterwards", r.balanced(topic, 0, 4, 4, 4))
	})
}

func TestAskReleaseOfAGoneBrokerFailsAtOnce(t *testing.T) {
	inCluster(t, 2, func(r *rig) {
		time.Sleep(2 * time.Second)
		begun := time.Now()
		if _, err := r.controller().AskRelease(r.ctx, 12345, nil); err == nil || time.Since(begun) > 0 {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		victim, asker := r.other(), r.controller()
		r.net.hang(victim.addr, true)
		begun = time.Now()
		if _, err := asker.AskRelease(r.ctx, victim.inc, nil); err == nil || time.Since(begun) != askTimeout {
			t.Errorf("hung: %v after %v", err, time.Since(begun))
		}
	})
}

// A single broker seals every older incarnation before it leads anything.
func TestSingleSealsOlder(t *testing.T) {
	inCluster(t, 0, func(r *rig) {
		old := r.join()
		topic := r.topic("orders", 3)
		r.settle(topic, 3)
		old.kill()
		client := r.store.Client()
		session, err := metadata.Register(r.ctx, client, metadata.SessionConfig{Generation: 1})
		if err != nil {
			t.Fatal(err)
		}
		view := metadata.NewView(client, nil)
		r.wg.Go(func() { _ = view.Run(r.ctx) })
		log := newFakeLog(r.bucket, client, session.Incarnation())
		node, err := New(Config{
			Incarnation: session.Incarnation(), KV: client, View: view, Session: session, Log: log, Single: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		log.peers = node
		r.wg.Go(func() { _ = node.Run(r.ctx) })
		took := r.eventually(2*time.Second, "led by the new one", func() bool { return r.led(topic)[session.Incarnation()] == 3 })
		if took > 300*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if s := log.sealed(); len(s) == 0 || s[0] != old.inc {
			t.Errorf("sealed %v", s)
		}
	})
}

func TestFencedLogEndsTheRun(t *testing.T) {
	inCluster(t, 1, func(r *rig) {
		time.Sleep(time.Second)
		r.nodes[0].log.over()
		<-r.nodes[0].ended
		if err := r.nodes[0].err; !errors.Is(err, ErrIncarnationOver) {
			t.Error(err)
		}
	})
}

// TestStorm kills, adds, drains, hangs and cuts off brokers and loses answers
// of the store at random. The fake bucket checks that no partition is ever
// opened twice; afterwards everything must be led, evenly, by the living.
func TestStorm(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		inCluster(t, 3, func(r *rig) { storm(r, rand.New(rand.NewPCG(seed, 2))); t.Logf("seed %d done", seed) })
	}
}

func upTo(rnd *rand.Rand, d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d))) }

func storm(r *rig, rnd *rand.Rand) {
	topics := []*metadata.Topic{r.topic("a", 7), r.topic("b", 12)}
	for range 25 {
		var living []*member
		for _, m := range r.nodes {
			if m.alive() {
				living = append(living, m)
			}
		}
		var m *member
		if len(living) > 0 {
			m = living[rnd.IntN(len(living))]
		}
		switch k := rnd.IntN(7); {
		case len(living) < 2 || k == 0 && len(living) < 5:
			r.join()
		case k == 1:
			m.kill()
		case k == 2:
			r.wg.Go(func() { _ = m.Drain(r.ctx) })
		case k == 3:
			r.store.DropLease(m.session.Lease())
		case k == 4: // hangs for a while
			m.client.Pause()
			r.net.hang(m.addr, true)
			time.Sleep(upTo(rnd, 9*time.Second))
			m.client.Resume()
			r.net.mu.Lock()
			if e := r.net.ends[m.addr]; e != nil {
				e.hung = false
			}
			r.net.mu.Unlock()
		case k == 5: // loses answers
			own := rand.New(rand.NewPCG(rnd.Uint64(), 3))
			m.client.Inject(func(c mem.Call) (mem.Fault, bool) {
				if !c.Writes() || own.IntN(4) > 0 {
					return mem.Fault{}, false
				}
				return []mem.Fault{mem.FailAfter(), mem.FailBefore(), mem.FailLate(time.Second)}[own.IntN(3)], true
			})
			time.Sleep(upTo(rnd, 3*time.Second))
			m.client.Inject(nil)
		case k == 6:
			for _, m := range living {
				m.log.checkpointAll()
			}
		}
		time.Sleep(upTo(rnd, 2*time.Second))
	}
	for _, m := range r.nodes {
		m.client.Inject(nil)
	}
	r.join()
	defer func() {
		if r.t.Failed() {
			describe(r, topics)
		}
	}()
	r.eventually(40*time.Second, "everything led by the living, evenly", func() bool {
		for _, topic := range topics {
			led, lo, hi := r.led(topic), 1<<30, 0
			n := 0
			for _, m := range r.nodes {
				if m.alive() {
					lo, hi, n = min(lo, led[m.inc]), max(hi, led[m.inc]), n+led[m.inc]
				}
			}
			if n != int(topic.Partitions) || total(led) != n || hi-lo > 2 {
				return false
			}
		}
		return true
	})
}

// describe logs what a test that failed needs to be understood.
func describe(r *rig, topics []*metadata.Topic) {
	for _, m := range r.nodes {
		_, registered := r.view.Broker(m.inc)
		r.t.Logf("%s alive %v registered %v draining %v standings %v err %v", m.inc, m.alive(), registered, m.draining.Load(), m.detector.standings(), m.err)
	}
	c, _ := r.view.Controller()
	r.t.Logf("controller %+v, shards %v", c, r.shards())
	for _, topic := range topics {
		for p := range topic.Partitions {
			tp := metadata.TopicPartition{Topic: topic.ID, Partition: p}
			v, _, _ := r.view.PartitionEntry(tp)
			r.t.Logf("%s-%d led by %v: %+v", topic.Name, p, r.bucket.leaders(tp), v)
		}
	}
}

// A peer that asks while the log is being closed is answered when it is: nothing
// was released one by one, and nothing is refused.
func TestAskedWhileClosing(t *testing.T) {
	inCluster(t, 2, func(r *rig) {
		topic := r.topic("orders", 2)
		r.settle(topic, 1, 1)
		m, asker := r.other(), r.controller()
		tp := metadata.TopicPartition{Topic: topic.ID}
		if !slices.Contains(r.bucket.leaders(tp), m.inc) {
			tp.Partition = 1
		}
		closed := make(chan error, 1)
		begun := time.Now()
		go func() { closed <- m.log.Close(r.ctx) }()
		time.Sleep(putTime / 4)
		got, err := asker.AskRelease(r.ctx, m.inc, []tiering.Claim{{Partition: tp}})
		if err != nil || len(got) != 0 {
			t.Errorf("released %v, %v", got, err)
		}
		if took := time.Since(begun); took < putTime {
			t.Errorf("answered %v after the close began", took)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// A broker that leaves waits for those who are about to take over, however slow
// they are: everything is released, nothing is left to the end of the chain.
func TestDrainWaitsForSlowTakers(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		topic := r.topic("orders", 12)
		r.settle(topic, 4, 4, 4)
		leaver := r.other()
		r.refuseClaims(leaver, 2*drainIdle)
		if err := leaver.Drain(r.ctx); err != nil {
			t.Fatal(err)
		}
		r.bucket.mu.Lock()
		defer r.bucket.mu.Unlock()
		chain := r.bucket.chain[leaver.inc]
		if len(chain.opened) < 4 {
			t.Errorf("led %d", len(chain.opened))
		}
		for claim := range chain.opened {
			if _, ok := chain.released[claim]; !ok {
				t.Errorf("%v was not released", claim)
			}
		}
	})
}

// refuseClaims has the claims of all brokers but one fail for some time.
func (r *rig) refuseClaims(but *member, during time.Duration) {
	begun := time.Now()
	for _, m := range r.nodes {
		if m == but {
			continue
		}
		m.client.Inject(func(c mem.Call) (mem.Fault, bool) {
			claims := slices.ContainsFunc(c.Txn.Then, func(op metadata.Op) bool {
				var p metadata.Partition
				if json.Unmarshal(op.Value, &p) != nil {
					return false
				}
				newest, any := p.Newest()
				return any && newest.Incarnation == m.inc
			})
			return mem.FailBefore(), claims && time.Since(begun) < during
		})
	}
}

// However long the takers take, there is time left to close the chain.
func TestDrainLeavesTimeToClose(t *testing.T) {
	for _, within := range []time.Duration{time.Second, 3 * time.Second, time.Minute} {
		inCluster(t, 3, func(r *rig) {
			r.settle(r.topic("orders", 12), 4, 4, 4)
			leaver := r.other()
			r.refuseClaims(leaver, time.Hour)
			ctx, cancel := context.WithTimeout(r.ctx, within)
			defer cancel()
			begun := time.Now()
			if err := leaver.Drain(ctx); err != nil {
				t.Fatal(err)
			}
			took, want := time.Since(begun), min(max(within-closeMax, within/2), drainMax)
			if took < want || took > want+100*time.Millisecond {
				t.Errorf("within %v: took %v, want %v", within, took, want)
			}
		})
	}
}

// When nobody is about to take over, a broker that leaves does not wait for long.
func TestDrainWithoutController(t *testing.T) {
	inCluster(t, 3, func(r *rig) {
		r.settle(r.topic("orders", 12), 4, 4, 4)
		leaver := r.other()
		r.controller().client.Pause()
		begun := time.Now()
		if err := leaver.Drain(r.ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < drainIdle || took > 2*drainIdle {
			t.Errorf("took %v", took)
		}
	})
}
