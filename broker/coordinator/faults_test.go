package coordinator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

// writesOf makes the nth write to keys beginning with prefix meet a fault.
func writesOf(prefix string, nth int, f mem.Fault) func(mem.Call) (mem.Fault, bool) {
	var mu sync.Mutex
	return func(c mem.Call) (mem.Fault, bool) {
		mu.Lock()
		defer mu.Unlock()
		for _, op := range c.Txn.Then {
			if strings.HasPrefix(op.Key, prefix) {
				nth--
				return f, nth == 0
			}
		}
		return mem.Fault{}, false
	}
}

func TestAmbiguousCommit(t *testing.T) {
	for name, fault := range map[string]mem.Fault{
		"applied":     mem.FailAfter(),
		"not applied": mem.FailBefore(),
		"late":        mem.FailLate(10 * time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *env) {
				a := e.owned()
				wantCode(t, a.commit("g", "t", 0, 1), nil)
				a.kv.Inject(writesOf(metadata.PrefixOffsets, 1, fault))
				wantCode(t, a.commit("g", "t", 0, 2), nil)
				wantFetch(t, a, "g", "t", 0, 2)
				wantCode(t, a.commit("g", "t", 0, 3), nil)
				seconds(20) // the late one has come: it must not rewind
				wantFetch(t, a, "g", "t", 0, 3)
				b := e.node(2)
				e.assignAll(2)
				wantFetch(t, b, "g", "t", 0, 3)
			})
		})
	}
}

func TestUnknownFate(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		wantCode(t, a.commit("g", "t", 0, 1), nil)
		// The write goes out, nobody answers for long, and it is applied at
		// the worst of times: after its commit was given up.
		first := true
		a.kv.Inject(func(c mem.Call) (mem.Fault, bool) {
			if first && c.Op == "txn" {
				first = false
				return mem.FailLate(10 * time.Second), true
			}
			return mem.FailBefore(), c.Op == "txn"
		})
		wantCode(t, a.commit("g", "t", 0, 2), kerr.CoordinatorNotAvailable)
		wantCode(t, a.commit("g", "t", 0, 3), kerr.CoordinatorLoadInProgress)
		a.kv.Inject(nil)
		seconds(3) // loaded again
		wantFetch(t, a, "g", "t", 0, 1)
		seconds(20)
		wantFetch(t, a, "g", "t", 0, 1)
		b := e.node(2)
		e.assignAll(2)
		wantFetch(t, b, "g", "t", 0, 1) // and in the store as well
	})
}

func TestAmbiguousGroupWrite(t *testing.T) {
	for name, fault := range map[string]mem.Fault{
		"applied":     mem.FailAfter(),
		"not applied": mem.FailBefore(),
		"late":        mem.FailLate(time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *env) {
				a := e.owned()
				a.kv.Inject(writesOf(metadata.PrefixGroups, 1, fault))
				member, gen := a.stable("g")
				j := a.join("g", member)
				wantCode(t, a.sync("g", member, j.Generation, member, "second").ErrorCode, nil)
				seconds(5)
				b := e.node(2)
				e.assignAll(2)
				wantCode(t, b.heartbeat("g", member, gen), kerr.IllegalGeneration)
				if s := b.sync("g", member, j.Generation); string(s.MemberAssignment) != "second" {
					t.Fatalf("assignment is %q", s.MemberAssignment)
				}
			})
		})
	}
}

func TestAmbiguousDelete(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		wantCode(t, a.commit("g", "t", 0, 1), nil)
		a.kv.Inject(writesOf(metadata.PrefixGroups, 1, mem.FailLate(5*time.Second)))
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{"g"}
		// The fate is unknown, and must stay without effect on what follows.
		if c := a.DeleteGroups(context.Background(), someone, req).Groups[0].ErrorCode; c == 0 {
			t.Fatal("deleted, it says")
		}
		seconds(1)
		wantCode(t, a.commit("g", "t", 0, 2), nil)
		seconds(10)
		wantFetch(t, a, "g", "t", 0, 2)
		b := e.node(2)
		e.assignAll(2)
		wantFetch(t, b, "g", "t", 0, 2)
	})
}

func TestOneMovedShardDoesNotHurtTheOthers(t *testing.T) {
	for name, fault := range map[string]mem.Fault{"": {}, "after an ambiguous attempt": mem.FailAfter()} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *env) {
				a := e.owned()
				b := e.node(2)
				a.blind = true
				e.assign(2, ShardOf("moved"))
				a.kv.Inject(writesOf(metadata.PrefixOffsets, 1, fault))
				moved := later(func() int16 { return a.commit("moved", "t", 0, 1) })
				stays := later(func() int16 { return a.commit("stays", "t", 0, 1) })
				wantCode(t, <-moved, kerr.NotCoordinator)
				wantCode(t, <-stays, nil)
				wantFetch(t, a, "stays", "t", 0, 1)
				wantFetch(t, b, "moved", "t", 0, -1)
			})
		})
	}
}

func TestCommitsShareTransactions(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		calls := a.calls()
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				wantCode(t, a.commit(fmt.Sprint("group-", i%200), "t", 0, int64(i)), nil)
			})
		}
		wg.Wait()
		// Four would do for 400 operations; the order in which commits arrive
		// makes it some more. One by one it would be 400.
		if n := calls.count("txn"); n < 3 || n > 20 {
			t.Errorf("400 commits of 200 groups took %d transactions", n)
		}
		for i := range 200 {
			if got, _ := a.fetch(fmt.Sprint("group-", i), "t", 0); got != int64(i) && got != int64(i+200) {
				t.Fatalf("group %d has %d", i, got)
			}
		}
	})
}

func TestFetchesShareAnOwnershipCheck(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		calls := a.calls()
		a.kv.Pause()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { wantFetch(t, a, fmt.Sprint("g", i), "t", 0, -1) })
		}
		synctest.Wait()
		a.kv.Resume()
		wg.Wait()
		// The first had begun when the others came; they share the second.
		if n := calls.count("get"); n > 2 {
			t.Errorf("100 fetches took %d reads", n)
		}
	})
}

func TestLargeCommitIsSplit(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		e.addTopic("wide", 20_000)
		offsets := map[int32]int64{}
		for p := range int32(20_000) {
			offsets[p] = int64(p)
		}
		for _, p := range a.commitAs("g", "", -1, "wide", offsets).Topics[0].Partitions {
			wantCode(t, p.ErrorCode, nil)
		}
		b := e.node(2)
		e.assignAll(2)
		wantFetch(t, b, "g", "wide", 0, 0)
		wantFetch(t, b, "g", "wide", 19_999, 19_999)
	})
}

func TestOffsetMetadata(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		commit := func(metadata string, partitions int32) *kmsg.OffsetCommitResponse {
			req := kmsg.NewPtrOffsetCommitRequest()
			req.Version, req.Group, req.Generation = 8, "g", -1
			rt := kmsg.NewOffsetCommitRequestTopic()
			rt.Topic = "t"
			for p := range partitions {
				rp := kmsg.NewOffsetCommitRequestTopicPartition()
				rp.Partition, rp.Offset, rp.Metadata = p, 1, &metadata
				rt.Partitions = append(rt.Partitions, rp)
			}
			req.Topics = append(req.Topics, rt)
			return a.OffsetCommit(context.Background(), someone, req)
		}
		for name, tc := range map[string]struct {
			metadata string
			want     *kerr.Error
		}{
			"fits":          {strings.Repeat("x", 4096), nil},
			"fits in UTF16": {strings.Repeat("é", 4096), nil},
			"too long":      {strings.Repeat("x", 4097), kerr.OffsetMetadataTooLarge},
			"pairs":         {strings.Repeat("😀", 2049), kerr.OffsetMetadataTooLarge},
			"escaped":       {strings.Repeat("\x01\"", 2048), nil},
			"not UTF-8":     {strings.Repeat("\xff", 4096), nil},
		} {
			for _, p := range commit(tc.metadata, 24).Topics[0].Partitions {
				if p.ErrorCode != code(tc.want) {
					t.Fatalf("%s: partition %d: %s", name, p.Partition, codeName(p.ErrorCode))
				}
			}
			if tc.want == nil {
				sh := a.shard("g")
				e.assign(1, sh.id) // load it again
				sh.mu.Lock()
				got := sh.groups["g"].chunks[chunkOf(e.topics["t"].ID, 0)].parts[23].offset.metadata
				sh.mu.Unlock()
				if got != tc.metadata {
					t.Fatalf("%s: metadata was changed", name)
				}
			}
		}
		// What no transaction could hold is refused, not stuck.
		for _, p := range commit(strings.Repeat("語", 4096), 64).Topics[0].Partitions {
			wantCode(t, p.ErrorCode, kerr.OffsetMetadataTooLarge)
		}
	})
}

// bigGroup makes a stable group of n members with the given metadata and
// assignment sizes.
func bigGroup(t *testing.T, n *node, size, metadataBytes, assignmentBytes int) []string {
	t.Helper()
	joins := make([]<-chan *kmsg.JoinGroupResponse, size)
	for i := range joins {
		joins[i] = later(func() *kmsg.JoinGroupResponse {
			return n.join("big", "", func(r *kmsg.JoinGroupRequest) {
				r.Protocols[0].Metadata = make([]byte, metadataBytes)
				r.RebalanceTimeoutMillis = 60_000
			})
		})
	}
	var leader string
	var ids, assignments []string
	for _, j := range joins {
		r := <-j
		wantCode(t, r.ErrorCode, nil)
		ids = append(ids, r.MemberID)
		leader = r.LeaderID
		assignments = append(assignments, r.MemberID, r.MemberID+strings.Repeat("a", assignmentBytes))
	}
	syncs := make([]<-chan *kmsg.SyncGroupResponse, size)
	for i, id := range ids {
		syncs[i] = later(func() *kmsg.SyncGroupResponse {
			if id == leader {
				return n.sync("big", id, 1, assignments...)
			}
			return n.sync("big", id, 1)
		})
	}
	for i, s := range syncs {
		r := <-s
		wantCode(t, r.ErrorCode, nil)
		if !strings.HasPrefix(string(r.MemberAssignment), ids[i]) {
			t.Fatal("assignment of another member")
		}
	}
	return ids
}

func TestLargeGroups(t *testing.T) {
	for _, tc := range []struct{ members, metadata, assignment int }{{1000, 200, 300}, {3, 900 << 10, 1000 << 10}} {
		t.Run(fmt.Sprint(tc.members), func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *env) {
				a := e.owned(func(c *Config) { c.Group.InitialRebalanceDelay = 3 * time.Second })
				ids := bigGroup(t, a, tc.members, tc.metadata, tc.assignment)
				b := e.node(2)
				e.assignAll(2)
				for _, id := range ids {
					if r := b.sync("big", id, 1); r.ErrorCode != 0 || len(r.MemberAssignment) != len(id)+tc.assignment {
						t.Fatalf("%s after the takeover: %s", id, codeName(r.ErrorCode))
					}
				}
				// One leaves: what stays the same is not written again.
				for range 3 {
					seconds(60)
				}
				left, _, _ := e.admin.Range(context.Background(), groupPrefix(ShardOf("big"), "big"))
				if len(left) != 1 {
					t.Fatalf("%d keys of an empty group", len(left))
				}
			})
		})
	}
}

func TestHalfWrittenGenerationIsNotBelieved(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(func(c *Config) { c.Group.InitialRebalanceDelay = 3 * time.Second })
		ids := bigGroup(t, a, 300, 10, 10)
		// The next generation's write breaks off after its first transaction.
		b := e.node(2)
		writes := 0
		a.kv.Inject(func(c mem.Call) (mem.Fault, bool) {
			if c.Op == "txn" {
				writes++
				return mem.FailBefore(), writes > 1
			}
			return mem.Fault{}, false
		})
		joins := make([]<-chan *kmsg.JoinGroupResponse, len(ids))
		for i, id := range ids {
			joins[i] = later(func() *kmsg.JoinGroupResponse { return a.join("big", id) })
		}
		var leader string
		for _, j := range joins {
			leader = (<-j).LeaderID
		}
		stuck := later(func() *kmsg.SyncGroupResponse { return a.sync("big", leader, 2) })
		if writes < 2 {
			t.Fatalf("%d writes", writes)
		}
		e.assignAll(2)
		wantCode(t, (<-stuck).ErrorCode, kerr.NotCoordinator)
		wantCode(t, b.heartbeat("big", ids[7], 1), nil)
		if s := b.sync("big", ids[7], 1); !strings.HasPrefix(string(s.MemberAssignment), ids[7]) {
			t.Fatal("the first generation's assignment is lost")
		}
		// What was left is cleaned up with the next write.
		seconds(60)
		left, _, _ := e.admin.Range(context.Background(), groupPrefix(ShardOf("big"), "big"))
		if len(left) != 1 {
			t.Fatalf("%d keys of an empty group", len(left))
		}
	})
}

func TestUnchangedMembersAreNotWrittenAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned(func(c *Config) { c.Group.InitialRebalanceDelay = 3 * time.Second })
		instance := "i"
		static := func(r *kmsg.JoinGroupRequest) { r.Version, r.InstanceID = 9, &instance }
		follower := later(func() *kmsg.JoinGroupResponse { return a.join("g", "", static) })
		other := later(func() *kmsg.JoinGroupResponse { return a.join("g", "") })
		jf, jo := <-follower, <-other
		later(func() int16 { return a.sync("g", jo.MemberID, 1).ErrorCode })
		wantCode(t, a.sync("g", jf.MemberID, 1, jf.MemberID, "x", jo.MemberID, "y").ErrorCode, nil)
		calls := a.calls()
		again := a.join("g", "", static) // restarts, without a rebalance
		wantCode(t, again.ErrorCode, nil)
		if again.Generation != 1 || again.MemberID == jf.MemberID || !again.SkipAssignment {
			t.Fatalf("joined again as %+v", again)
		}
		puts := 0
		for _, op := range calls.all[0].Txn.Then {
			if !op.Delete {
				puts++
			}
		}
		if puts != 2 { // the header and the member
			t.Fatalf("%d keys were put for one changed member", puts)
		}
		b := e.node(2)
		e.assignAll(2)
		if s := b.sync("g", again.MemberID, 1); string(s.MemberAssignment) != "x" {
			t.Fatalf("assignment is %q", s.MemberAssignment)
		}
	})
}

func TestStoreOutOfSpace(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		member, gen := a.stable("g")
		full := &fullKV{KV: a.kv}
		a.cfg.KV = full
		full.on.Store(true)
		wantCode(t, a.commitAs("g", member, gen, "t", map[int32]int64{0: 1}).Topics[0].Partitions[0].ErrorCode, kerr.CoordinatorNotAvailable)
		wantCode(t, a.heartbeat("g", member, gen), nil) // membership goes on
		full.on.Store(false)
		wantCode(t, a.commitAs("g", member, gen, "t", map[int32]int64{0: 1}).Topics[0].Partitions[0].ErrorCode, nil)
	})
}

// TestOffsetsNeverRewind lets consumers commit ascending offsets through faults,
// moves and pauses, and checks that a fetch never shows less than was
// acknowledged before it, nor what nobody sent (C13).
func TestOffsetsNeverRewind(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *env) {
				rng := rand.New(rand.NewPCG(seed, 2))
				nodes := []*node{e.node(1), e.node(2)}
				e.assignAll(1)
				ctx, cancel := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				for i := range 8 {
					crng := rand.New(rand.NewPCG(seed, uint64(100+i)))
					wg.Go(func() { keepOffsets(ctx, t, nodes, crng, fmt.Sprint("g", i%4), int32(i)) })
				}
				for range 60 {
					disturb(e, nodes, rng)
					time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
				}
				for _, n := range nodes {
					n.kv.Inject(nil)
					n.kv.SetUnavailable(false)
					n.kv.Resume()
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

func disturb(e *env, nodes []*node, rng *rand.Rand) {
	n := nodes[rng.IntN(len(nodes))]
	switch rng.IntN(8) {
	case 0:
		e.assign(metadata.Incarnation(1+rng.IntN(2)), rng.IntN(50))
	case 1:
		owner := metadata.Incarnation(1 + rng.IntN(2))
		for i := range 4 {
			e.assign(owner, ShardOf(fmt.Sprint("g", i)))
		}
	case 2:
		n.kv.Pause()
		time.AfterFunc(time.Duration(rng.IntN(8000))*time.Millisecond, n.kv.Resume)
	case 3:
		n.kv.SetUnavailable(true)
		time.AfterFunc(time.Duration(rng.IntN(9000))*time.Millisecond, func() { n.kv.SetUnavailable(false) })
	case 4:
		// A view that hears of a move long after it.
		n.blind = !n.blind
	default:
		chance, seed := rng.IntN(4), rng.Uint64()
		var mu sync.Mutex
		frng := rand.New(rand.NewPCG(seed, 3))
		n.kv.Inject(func(c mem.Call) (mem.Fault, bool) {
			mu.Lock()
			defer mu.Unlock()
			faults := []mem.Fault{mem.FailAfter(), mem.FailBefore(), mem.FailLate(time.Duration(frng.IntN(15_000)) * time.Millisecond)}
			return faults[frng.IntN(3)], frng.IntN(8) < chance
		})
	}
}

// keepOffsets owns one partition of a group and commits ascending offsets to
// whichever broker takes them.
func keepOffsets(ctx context.Context, t *testing.T, nodes []*node, rng *rand.Rand, groupID string, partition int32) {
	var sent, acked int64 = -1, -1
	for ctx.Err() == nil {
		n := nodes[rng.IntN(len(nodes))]
		if rng.IntN(2) == 0 {
			sent++
			if n.commit(groupID, "t", partition, sent) == 0 {
				acked = sent
			}
		} else if got, c := n.fetch(groupID, "t", partition); c == 0 {
			if got < acked || got > sent {
				t.Errorf("fetched %d after %d was acknowledged and %d sent", got, acked, sent)
				return
			}
			// What was seen once is seen ever after.
			acked = got
		}
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
	}
}
