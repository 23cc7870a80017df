package coordinator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

// A commit that was accepted in one generation is decided before the next one
// is stable.
func TestGenerationWaitsForCommitsBeforeIt(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		member, gen := a.stable("g")
		var mu sync.Mutex
		slow := true
		hits := writesOf(metadata.PrefixOffsets, 1, mem.FailBefore())
		a.kv.Inject(func(c mem.Call) (mem.Fault, bool) {
			mu.Lock()
			defer mu.Unlock()
			if _, hit := hits(c); hit {
				hits = writesOf(metadata.PrefixOffsets, 1, mem.FailBefore())
				return mem.FailBefore(), slow
			}
			return mem.Fault{}, false
		})
		committing := later(func() int16 {
			return a.commitAs("g", member, gen, "t", map[int32]int64{0: 1}).Topics[0].Partitions[0].ErrorCode
		})
		next := a.join("g", member).Generation
		syncing := later(func() *kmsg.SyncGroupResponse { return a.sync("g", member, next, member, "next") })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		select {
		case s := <-syncing:
			t.Fatalf("the next generation is stable (%+v) while a commit of the last is under way", s)
		default:
		}
		mu.Lock()
		slow = false
		mu.Unlock()
		wantCode(t, <-committing, nil)
		wantCode(t, (<-syncing).ErrorCode, nil)
	})
}

// ledger is what all members together know of a group's generations.
type ledger struct {
	mu     sync.Mutex
	stable int32
	owners map[string]string // generation and partition → member
	synced int
	commit int
}

// TestNoCommitOfAnOlderGeneration runs members of one group against two brokers
// under faults and moves of the shard (C14): once a member was told its
// assignment in a generation, no commit of an older one that is sent afterwards
// succeeds, and no generation gives a partition to two members.
func TestNoCommitOfAnOlderGeneration(t *testing.T) {
	total := 0
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *env) {
				rng := rand.New(rand.NewPCG(seed, 5))
				nodes := []*node{e.node(1), e.node(2)}
				e.assignAll(1)
				ctx, cancel := context.WithCancel(context.Background())
				l := &ledger{owners: map[string]string{}}
				var wg sync.WaitGroup
				for i := range 4 {
					m := &client{t: t, l: l, partition: int32(i * chunkPartitions), nodes: nodes, rng: rand.New(rand.NewPCG(seed, uint64(200+i))), gen: -1}
					wg.Go(func() { m.run(ctx) })
				}
				for range 40 {
					disturb(e, nodes, rng)
					if rng.IntN(3) == 0 {
						e.assign(metadata.Incarnation(1+rng.IntN(2)), ShardOf("g0"))
					}
					time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
				}
				for _, n := range nodes {
					n.kv.Inject(nil)
					n.kv.SetUnavailable(false)
					n.kv.Resume()
				}
				cancel()
				wg.Wait()
				total += l.synced + l.commit
			})
		})
	}
	if total < 2000 {
		t.Errorf("only %d syncs and commits succeeded: this proves little", total)
	}
}

// client is a member that follows the protocol, and now and then does not.
type client struct {
	t     *testing.T
	l     *ledger
	nodes []*node
	at    int
	// partition is in a chunk of its own: nobody else's commits get in the way.
	partition int32
	rng       *rand.Rand
	id        string
	gen       int32
	held      bool
	oldID     string
	oldGen    int32
}

func (c *client) node() *node {
	if c.rng.IntN(10) == 0 {
		c.at = c.rng.IntN(len(c.nodes))
	}
	return c.nodes[c.at]
}

// heed reacts to an error as clients do.
func (c *client) heed(code int16) {
	switch kerr.ErrorForCode(code) {
	case kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress:
		c.at = (c.at + 1) % len(c.nodes)
	case kerr.UnknownMemberID, kerr.IllegalGeneration:
		c.id, c.gen, c.held = "", -1, false
	case kerr.RebalanceInProgress:
		c.gen, c.held = -1, false
	}
}

func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		switch {
		case c.gen < 0 || c.rng.IntN(20) == 0:
			c.joinAndSync(ctx)
		case c.rng.IntN(3) == 0:
			c.heed(c.node().heartbeat("g0", c.id, c.gen))
		default:
			c.commit()
		}
		time.Sleep(time.Duration(c.rng.IntN(500)) * time.Millisecond)
	}
}

func (c *client) joinAndSync(ctx context.Context) {
	c.oldID, c.oldGen = c.id, c.gen
	c.held = false
	req := joinReq("g0", c.id)
	req.RebalanceTimeoutMillis = 8000
	j := c.node().JoinGroup(ctx, someone, req)
	if j.ErrorCode != 0 {
		c.gen = -1
		c.heed(j.ErrorCode)
		return
	}
	c.id, c.gen = j.MemberID, j.Generation
	var assignments []string
	for i, m := range j.Members {
		assignments = append(assignments, m.MemberID, fmt.Sprint(i))
	}
	s := c.node().sync("g0", c.id, c.gen, assignments...)
	if s.ErrorCode != 0 {
		c.gen = -1
		c.heed(s.ErrorCode)
		return
	}
	c.held = true
	c.l.told(c.t, c.id, c.gen, string(s.MemberAssignment))
}

func (l *ledger) told(t *testing.T, id string, gen int32, partition string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.synced++
	l.stable = max(l.stable, gen)
	if partition == "" {
		return
	}
	key := fmt.Sprint(gen, "/", partition)
	if was, ok := l.owners[key]; ok && was != id {
		t.Errorf("generation %d gives partition %s to %s and to %s", gen, partition, was, id)
	}
	l.owners[key] = id
}

func (c *client) commit() {
	id, gen := c.id, c.gen
	if c.oldID != "" && c.rng.IntN(4) == 0 {
		id, gen = c.oldID, c.oldGen // a straggler's
	}
	if gen < 0 {
		return
	}
	c.l.mu.Lock()
	stable := c.l.stable
	c.l.mu.Unlock()
	code := c.nodes[c.rng.IntN(len(c.nodes))].commitAs("g0", id, gen, "t", map[int32]int64{c.partition: 1}).Topics[0].Partitions[0].ErrorCode
	if id == c.id && gen == c.gen {
		c.heed(code)
	}
	if code != 0 {
		return
	}
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.commit++
	if gen < stable {
		c.t.Errorf("a commit of generation %d succeeded after %d was stable", gen, stable)
	}
}
