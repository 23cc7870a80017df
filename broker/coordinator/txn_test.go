package coordinator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

// transact runs one transaction: a value to each of two partitions, and an offset.
// It returns how its end was answered.
func (p *producer) transact(value string, offset int64, commit bool) *kerr.Error {
	w := p.w
	if p.version < txn.V2 {
		if err := p.add("t", 0, 1); err != nil {
			return err
		}
		if err := p.addOffsets("group-" + p.id); err != nil {
			return err
		}
	}
	for partition := range int32(2) {
		if err := w.write(p, "t", partition, value); err != nil {
			return err
		}
	}
	if err := p.commitOffset("group-"+p.id, "u", 0, offset); err != nil {
		return err
	}
	return p.end(commit)
}

// outcomes checks that each value was committed in both partitions or in none, as
// decided says.
func (w *world) outcomes(decided map[string]bool) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var in [2][]string
	for i := range in {
		l := w.leader(metadata.TopicPartition{Topic: w.topics["t"].ID, Partition: int32(i)})
		if len(l.open) > 0 {
			w.t.Fatalf("partition %d has open transactions: %v", i, l.open)
		}
		in[i] = slices.Clone(l.committed)
		slices.Sort(in[i])
		if len(slices.Compact(slices.Clone(in[i]))) != len(in[i]) {
			w.t.Fatalf("partition %d has something twice: %v", i, in[i])
		}
	}
	if !slices.Equal(in[0], in[1]) {
		w.t.Fatalf("a torn transaction: %v and %v", in[0], in[1])
	}
	for value, committed := range decided {
		if slices.Contains(in[0], value) != committed {
			w.t.Fatalf("%s committed: %v, want %v", value, !committed, committed)
		}
	}
}

func bothVersions(t *testing.T, f func(t *testing.T, version int8)) {
	for _, v := range []int8{txn.V1, txn.V2} {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) { f(t, v) })
	}
}

func TestTxn(t *testing.T) {
	bothVersions(t, func(t *testing.T, version int8) {
		inWorld(t, func(t *testing.T, w *world) {
			a := w.begin()
			p := w.producer("p", version)
			want(t, p.transact("a", 5, true), nil)
			w.settle()
			wantFetch(t, a, "group-p", "u", 0, 5)
			want(t, p.transact("b", 9, false), nil)
			w.settle()
			wantFetch(t, a, "group-p", "u", 0, 5)
			w.outcomes(map[string]bool{"a": true, "b": false})
			b := w.broker(2)
			w.move(b)
			want(t, p.transact("c", 11, true), nil)
			w.settle()
			wantFetch(t, b, "group-p", "u", 0, 11)
			w.outcomes(map[string]bool{"a": true, "b": false, "c": true})
		})
	})
}

// Until its transaction has ended an offset is pending: invisible, and reason for
// who wants stable offsets to wait, also at the next coordinator.
func TestPendingOffsets(t *testing.T) {
	bothVersions(t, func(t *testing.T, version int8) {
		inWorld(t, func(t *testing.T, w *world) {
			a := w.begin()
			p := w.producer("p", version)
			wantCode(t, a.commit("g", "u", 0, 3), nil)
			if version < txn.V2 {
				want(t, p.commitOffset("g", "u", 0, 7), kerr.TransactionAbortable)
				want(t, p.addOffsets("g"), nil)
			}
			want(t, p.commitOffset("g", "u", 0, 7), nil)
			b := w.broker(2)
			w.move(b)
			wantFetch(t, b, "g", "u", 0, 3)
			_, c := b.stableFetch("g", "u", 0)
			wantCode(t, c, kerr.UnstableOffsetCommit)
			_, c = b.stableFetch("g", "u", 1)
			wantCode(t, c, nil)
			w.mu.Lock()
			w.down[2] = true // no markers get through
			w.mu.Unlock()
			want(t, p.end(true), nil)
			seconds(1)
			_, c = b.stableFetch("g", "u", 0)
			wantCode(t, c, kerr.UnstableOffsetCommit)
			w.mu.Lock()
			w.down[2] = false
			w.mu.Unlock()
			w.settle()
			if o, c := b.stableFetch("g", "u", 0); c != 0 || o != 7 {
				t.Fatal(o, codeName(c))
			}
		})
	})
}

// What was committed last counts, in whichever order transactions end.
func TestOrderOfCommits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		p, q := w.producer("p", txn.V2), w.producer("q", txn.V2)
		want(t, p.commitOffset("g", "u", 0, 1), nil)
		want(t, q.commitOffset("g", "u", 0, 2), nil)
		want(t, q.end(true), nil)
		w.settleOne("q")
		wantFetch(t, a, "g", "u", 0, 2)
		want(t, p.end(true), nil)
		w.settle()
		wantFetch(t, a, "g", "u", 0, 2)
		want(t, p.commitOffset("g", "u", 0, 3), nil)
		wantCode(t, a.commit("g", "u", 0, 4), nil)
		if o, c := a.stableFetch("g", "u", 0); c != 0 || o != 4 {
			t.Fatal(o, codeName(c))
		}
		want(t, p.end(true), nil)
		w.settle()
		wantFetch(t, a, "g", "u", 0, 4)
	})
}

func (w *world) settleOne(id string) {
	for range 100 {
		s := w.now.describeTxn(id)
		if s.State == "CompleteCommit" || s.State == "CompleteAbort" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.t.Fatalf("%s: %s", id, w.states())
}

// A member that was replaced commits nothing in its transaction (KIP-447).
func TestTxnOffsetsOfMembers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		p := w.producer("p", txn.V2)
		member, gen := a.stable("g")
		as := func(member string, gen int32) func(*kmsg.TxnOffsetCommitRequest) {
			return func(r *kmsg.TxnOffsetCommitRequest) { r.MemberID, r.Generation = member, gen }
		}
		want(t, p.commitOffset("g", "u", 0, 1, as(member, gen)), nil)
		want(t, p.commitOffset("g", "u", 0, 1, as(member, gen-1)), kerr.IllegalGeneration)
		want(t, p.commitOffset("g", "u", 0, 1, as("nobody", gen)), kerr.UnknownMemberID)
		want(t, p.commitOffset("g", "u", 0, 1, as("", -1)), nil) // as old producers do
		want(t, p.commitOffset("none", "u", 0, 1, as("x", 3)), kerr.IllegalGeneration)
		want(t, p.commitOffset("g", "v", 0, 1, as(member, gen)), kerr.UnknownTopicOrPartition)
		big := strings.Repeat("x", 5000)
		want(t, p.commitOffset("g", "u", 0, 1, func(r *kmsg.TxnOffsetCommitRequest) { r.Topics[0].Partitions[0].Metadata = &big }), kerr.OffsetMetadataTooLarge)
		want(t, p.commitOffset("g", "u", 0, 1, func(r *kmsg.TxnOffsetCommitRequest) { r.ProducerEpoch = 9 }), kerr.InvalidProducerEpoch)
		want(t, p.commitOffset("g", "u", 0, 1, func(r *kmsg.TxnOffsetCommitRequest) { r.ProducerID = 9 }), kerr.InvalidProducerIDMapping)
	})
}

// A marker that comes while the coordinator is asked voids the answer.
func TestMarkerDuringQuestion(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		p := w.producer("p", txn.V1)
		want(t, p.addOffsets("g"), nil)
		sh := a.shard("g")
		sh.mu.Lock()
		void := sh.pending.ask(p.ID)
		sh.mu.Unlock()
		wantCode(t, fateCode(a.EndOffsets(sh.id, OffsetsMarker{Producer: p.Producer, CoordinatorEpoch: 1, Version: 1})), nil)
		sh.mu.Lock()
		voided := *void
		sh.pending.asked(p.ID, void)
		left := len(sh.pending.asking)
		sh.mu.Unlock()
		if !voided || left != 0 {
			t.Fatal(voided, left)
		}
		wantCode(t, fateCode(a.EndOffsets(sh.id, OffsetsMarker{Producer: p.Producer, CoordinatorEpoch: 0, Version: 1})), kerr.TransactionCoordinatorFenced)
	})
}

// What a shard remembers of a producer ends with its transaction, also in a group
// that commits all the time.
func TestPendingIsForgotten(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		p := w.producer("p", txn.V2)
		wantCode(t, a.commit("g", "u", 0, 1), nil)
		sh := a.shard("g")
		busy := func(n int) {
			sh.mu.Lock()
			defer sh.mu.Unlock()
			sh.groups["g"].outstanding += n
		}
		busy(1) // the commit of somebody else
		want(t, p.commitOffset("g", "u", 0, 2), nil)
		want(t, p.end(true), nil)
		w.settle()
		busy(-1)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		if len(sh.pending.chunks) != 0 {
			t.Fatalf("still noted: %v", sh.pending.chunks)
		}
	})
}

// A late marker of the transaction before leaves the next one's offsets alone.
func TestLateMarkerOfOffsets(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		p := w.producer("p", txn.V2)
		want(t, p.commitOffset("g", "u", 0, 1), nil)
		want(t, p.end(true), nil)
		w.settle()
		want(t, p.commitOffset("g", "u", 0, 2), nil)
		late := OffsetsMarker{Producer: p.Producer, CoordinatorEpoch: 1, Commit: true, Version: 2}
		wantCode(t, fateCode(a.EndOffsets(ShardOf("g"), late)), nil)
		wantFetch(t, a, "g", "u", 0, 1)
		want(t, p.end(false), nil)
		w.settle()
		wantFetch(t, a, "g", "u", 0, 1)
	})
}

// A deposed coordinator of groups that has nothing pending says so of itself alone.
func TestMarkerAtADeposedCoordinator(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		p := w.producer("p", txn.V2)
		a.blind = true
		b := w.broker(2)
		w.move(b)
		want(t, p.commitOffset("g", "u", 0, 2), nil)
		m := OffsetsMarker{Producer: txn.Producer{ID: p.ID, Epoch: p.Epoch + 1}, CoordinatorEpoch: 2, Commit: true, Version: 2}
		wantCode(t, fateCode(a.EndOffsets(ShardOf("g"), m)), kerr.NotLeaderForPartition)
		wantFetch(t, b, "g", "u", 0, -1)
	})
}

// Nor does it answer about transactions from what it remembers.
func TestQuestionToADeposedCoordinator(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		p := w.producer("p", txn.V1)
		want(t, p.add("t", 0), nil)
		a.blind = true
		b := w.broker(2)
		w.move(b)
		want(t, p.end(true), nil)
		w.settle()
		for _, verify := range []bool{true, false} {
			q := askRequest(&TxnQuestion{TransactionalID: "p", Producer: p.Producer, Add: !verify, Partitions: []TxnTopicPartition{{"t", 0}}})
			got := a.AddPartitionsToTxn(context.Background(), someone, q).Transactions[0].Topics[0].Partitions[0].ErrorCode
			wantCode(t, got, kerr.NotCoordinator)
		}
	})
}

func TestTxnTimeout(t *testing.T) {
	bothVersions(t, func(t *testing.T, version int8) {
		inWorld(t, func(t *testing.T, w *world) {
			a := w.begin()
			p := w.producer("p", version)
			if version < txn.V2 {
				want(t, p.add("t", 0), nil)
			}
			want(t, w.write(p, "t", 0, "late"), nil)
			calls := a.calls()
			seconds(58)
			if n := calls.count(""); n > 0 {
				t.Fatalf("%d calls while nothing happens", n)
			}
			b := w.broker(2)
			w.move(b)
			seconds(3)
			w.settle()
			want(t, p.end(true), kerr.ProducerFenced)
			want(t, w.write(p, "t", 0, "later"), kerr.ProducerFenced)
			want(t, p.init(), kerr.ProducerFenced)
			if got := w.leader(metadata.TopicPartition{Topic: w.topics["t"].ID}).aborted; !slices.Equal(got, []string{"late"}) {
				t.Fatal(got)
			}
			q := w.producer("p", version)
			if q.ID != p.ID || q.Epoch != p.Epoch+2 {
				t.Fatalf("%+v after %+v", q.Producer, p.Producer)
			}
		})
	})
}

// A deleted topic's partition has nothing to end, and one without a leader is
// waited for.
func TestMarkersOfGoneTopics(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		p := w.producer("p", txn.V2)
		want(t, w.write(p, "t", 0, "a"), nil)
		want(t, w.write(p, "u", 0, "b"), nil)
		tID, uID := w.topics["t"].ID, w.topics["u"].ID
		a.view.change(func() {
			delete(a.view.topics, "t")
			delete(a.view.leaders, metadata.TopicPartition{Topic: uID})
		})
		want(t, p.end(true), nil)
		seconds(5)
		if s := a.describeTxn("p"); s.State != "PrepareCommit" {
			t.Fatal(s.State) // the view alone says that the topic is gone
		}
		if _, err := w.admin.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Delete(metadata.TopicKey(tID))}}); err != nil {
			t.Fatal(err)
		}
		seconds(5)
		if s := a.describeTxn("p"); s.State != "PrepareCommit" {
			t.Fatal(s.State)
		}
		a.view.change(func() { a.view.leaders[metadata.TopicPartition{Topic: uID}] = 50 })
		w.settle()
	})
}

// Whether a topic is gone is asked once for all its partitions, and after the
// markers that need no such question are on their way.
func TestQuestionsAboutGoneTopics(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		tID, uID := w.topics["t"].ID, w.topics["u"].ID
		a.view.change(func() { delete(a.view.topics, "t") })
		asked, before := 0, 0
		a.kv.Inject(func(c mem.Call) (mem.Fault, bool) {
			if c.Op != "get" || !slices.Contains(c.Keys, metadata.TopicKey(tID)) {
				return mem.Fault{}, false
			}
			asked++
			w.mu.Lock()
			before = w.sent
			w.mu.Unlock()
			return mem.FailBefore(), true
		})
		var all []metadata.TopicPartition
		for _, topic := range []metadata.TopicID{tID, uID, tID} {
			for p := range int32(2) {
				all = append(all, metadata.TopicPartition{Topic: topic, Partition: p})
			}
		}
		left := a.markers.send(t.Context(), marker{producer: txn.Producer{ID: 7, Epoch: 1}, epoch: 1, version: 2}, all)
		if asked != 1 || before != 1 || len(left) != 4 {
			t.Fatalf("asked %d times, after %d requests; %d partitions are left", asked, before, len(left))
		}
	})
}

func TestTransactionalIDsExpire(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin(func(c *Config) { c.TransactionalIDExpiration = time.Hour })
		p := w.producer("p", txn.V2)
		q := w.producer("q", txn.V2)
		want(t, p.transact("a", 1, true), nil)
		time.Sleep(50 * time.Minute)
		want(t, q.transact("b", 1, true), nil)
		time.Sleep(30 * time.Minute)
		wantCode(t, a.describeTxn("p").ErrorCode, kerr.TransactionalIDNotFound)
		wantCode(t, a.describeTxn("q").ErrorCode, nil)
		want(t, p.end(true), kerr.InvalidProducerIDMapping)
		entries, _, err := w.admin.Range(t.Context(), metadata.PrefixTxns)
		if err != nil || len(entries) != 1 {
			t.Fatal(entries, err)
		}
		if n := w.producer("p", txn.V2); n.ID == p.ID {
			t.Fatal("an id twice")
		}
	})
}

// Offsets of transactions keep a group, and the topic's others, from expiring.
func TestPendingOffsetsDoNotExpire(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin(func(c *Config) { c.OffsetsRetention = time.Minute; c.TransactionTimeoutMax = 24 * time.Hour })
		p := w.producer("p", txn.V2)
		wantCode(t, a.commit("g", "u", 0, 3), nil)
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 5, &p.id, 12*60*60*1000
		resp := a.InitProducerID(context.Background(), someone, req)
		p.Producer = txn.Producer{ID: resp.ProducerID, Epoch: resp.ProducerEpoch}
		want(t, p.commitOffset("g", "u", 0, 7), nil)
		want(t, p.commitOffset("h", "u", 0, 8), nil)
		time.Sleep(time.Hour)
		wantFetch(t, a, "g", "u", 0, 3)
		want(t, p.end(true), nil)
		w.settle()
		wantFetch(t, a, "g", "u", 0, 7)
		wantFetch(t, a, "h", "u", 0, 8)
		time.Sleep(time.Hour)
		wantFetch(t, a, "g", "u", 0, -1)
	})
}

func TestListAndDescribe(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		p, q := w.producer("p-1", txn.V2), w.producer("q-1", txn.V2)
		want(t, w.write(p, "t", 3, "a"), nil)
		want(t, w.write(p, "t", 1, "a"), nil)
		want(t, p.commitOffset("g", "u", 0, 1), nil)
		seconds(2)
		list := func(edit func(*kmsg.ListTransactionsRequest)) string {
			req := kmsg.NewPtrListTransactionsRequest()
			req.Version = 2
			edit(req)
			resp := a.ListTransactions(context.Background(), someone, req)
			var ids []string
			for _, s := range resp.TransactionStates {
				ids = append(ids, s.TransactionalID)
			}
			return fmt.Sprint(resp.ErrorCode, ids, resp.UnknownStateFilters)
		}
		pattern := func(s string) func(*kmsg.ListTransactionsRequest) {
			return func(r *kmsg.ListTransactionsRequest) { r.TransactionalIDPattern = &s }
		}
		for _, k := range []struct {
			edit func(*kmsg.ListTransactionsRequest)
			want string
		}{
			{func(*kmsg.ListTransactionsRequest) {}, "0 [p-1 q-1] []"},
			{func(r *kmsg.ListTransactionsRequest) { r.StateFilters = []string{"Ongoing", "Odd"} }, "0 [p-1] [Odd]"},
			{func(r *kmsg.ListTransactionsRequest) { r.ProducerIDFilters = []int64{q.ID} }, "0 [q-1] []"},
			{func(r *kmsg.ListTransactionsRequest) {
				r.DurationFilterMillis = 1000
				r.StateFilters = []string{"Ongoing"}
			}, "0 [p-1] []"},
			{func(r *kmsg.ListTransactionsRequest) {
				r.DurationFilterMillis = 5000
				r.StateFilters = []string{"Ongoing"}
			}, "0 [] []"},
			{pattern("p.*"), "0 [p-1] []"},
			{pattern("-1"), "0 [] []"},
			{pattern("("), fmt.Sprint(kerr.InvalidRegularExpression.Code, " [] []")},
		} {
			if got := list(k.edit); got != k.want {
				t.Errorf("%s, want %s", got, k.want)
			}
		}
		req := kmsg.NewPtrDescribeTransactionsRequest()
		req.TransactionalIDs = []string{"p-1", "none"}
		states := a.DescribeTransactions(context.Background(), someone, req).TransactionStates
		d := states[0]
		if d.State != "Ongoing" || d.ProducerID != p.ID || d.TimeoutMillis != 60_000 || d.StartTimestamp <= 0 ||
			fmt.Sprint(d.Topics[0].Topic, d.Topics[0].Partitions, d.Topics[1].Topic, d.Topics[1].Partitions) != fmt.Sprint("__consumer_offsets", []int32{int32(ShardOf("g"))}, "t", []int32{1, 3}) {
			t.Errorf("%+v", d)
		}
		wantCode(t, states[1].ErrorCode, kerr.TransactionalIDNotFound)
	})
}

// A transactional id that cannot be read is served to nobody and not overwritten.
func TestUnreadableTxn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := txnKey(ShardOf("p"), "p")
		w.put(key, map[string]any{"format": 9})
		a := w.begin()
		id := "p"
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 5, &id, 1000
		wantCode(t, a.InitProducerID(context.Background(), someone, req).ErrorCode, kerr.UnknownServerError)
		entries, _, err := w.admin.Get(t.Context(), key)
		if err != nil || string(entries[0].Value) != `{"format":9}` {
			t.Fatal(entries, err)
		}
	})
}

func TestInitRefusals(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.begin()
		id, long := "p", strings.Repeat("x", 40_000)
		for _, k := range []struct {
			id      *string
			millis  int32
			pid     int64
			version int16
			want    *kerr.Error
		}{
			{&id, 0, -1, 5, kerr.InvalidTransactionTimeout},
			{&id, 16 * 60 * 1000, -1, 5, kerr.InvalidTransactionTimeout},
			{&id, 1000, 7, 5, kerr.InvalidRequest},
			{&long, 1000, -1, 5, kerr.InvalidRequest},
			{&id, 1000, 7, 2, nil}, // the field began with v3
		} {
			req := kmsg.NewPtrInitProducerIDRequest()
			req.Version, req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID = k.version, k.id, k.millis, k.pid
			wantCode(t, a.InitProducerID(context.Background(), someone, req).ErrorCode, k.want)
		}
	})
}

// TestDeathAtEveryWrite ends the coordinator at each of its writes in turn, before
// and after it takes effect, and late, and has another go on.
func TestDeathAtEveryWrite(t *testing.T) {
	faults := map[string]mem.Fault{"before": mem.FailBefore(), "after": mem.FailAfter(), "late": mem.FailLate(20 * time.Second)}
	bothVersions(t, func(t *testing.T, version int8) {
		for name, fault := range faults {
			t.Run(name, func(t *testing.T) {
				died := true
				for nth := 1; died; nth++ {
					inWorld(t, func(t *testing.T, w *world) { died = deathAt(t, w, version, nth, fault) })
				}
			})
		}
	})
}

func deathAt(t *testing.T, w *world, version int8, nth int, fault mem.Fault) (died bool) {
	a := w.begin()
	w.broker(2)
	var mu sync.Mutex
	left := nth
	a.kv.Inject(func(c mem.Call) (mem.Fault, bool) {
		mu.Lock()
		defer mu.Unlock()
		if died {
			return mem.FailBefore(), true
		}
		if c.Op != "txn" {
			return mem.Fault{}, false
		}
		if left--; left > 0 {
			return mem.Fault{}, false
		}
		died = true
		w.mu.Lock()
		w.down[1] = true
		w.mu.Unlock()
		return fault, true
	})
	p := w.producer("p", version)
	want(t, p.transact("a", 5, true), nil)
	want(t, p.transact("b", 9, false), nil)
	want(t, p.transact("c", 11, true), nil)
	w.settle()
	seconds(30) // what was late has come
	w.settle()
	w.outcomes(map[string]bool{"a": true, "b": false, "c": true})
	wantFetch(t, w.now, "group-p", "u", 0, 11)
	if o, c := w.now.stableFetch("group-p", "u", 0); c != 0 || o != 11 {
		t.Fatal(o, codeName(c))
	}
	mu.Lock()
	defer mu.Unlock()
	return died
}

// TestTxnModel runs producers, of which new instances take over, while shards move
// and writes fail, and compares what was told with what became of it.
func TestTxnModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) { runModel(t, w, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func runModel(t *testing.T, w *world, r *rand.Rand) {
	w.begin()
	w.broker(2)
	var mu sync.Mutex
	for i, n := range w.nodes {
		faults := rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
		n.kv.Inject(func(c mem.Call) (mem.Fault, bool) {
			mu.Lock()
			defer mu.Unlock()
			if c.Op != "txn" || faults.IntN(12) > 0 {
				return mem.Fault{}, false
			}
			return []mem.Fault{mem.FailBefore(), mem.FailAfter(), mem.FailLate(time.Duration(faults.IntN(8000)) * time.Millisecond)}[faults.IntN(3)], true
		})
	}
	producers := map[string]*producer{}
	decided, offsets := map[string]bool{}, map[string]int64{}
	for i := range 40 {
		if r.IntN(4) == 0 {
			w.move(w.nodes[r.IntN(2)])
		}
		id := fmt.Sprintf("p%d", r.IntN(3))
		if p := producers[id]; p == nil || r.IntN(5) == 0 {
			if p != nil && r.IntN(2) == 0 { // the old instance was in the middle
				value := fmt.Sprintf("%s/%d/left", id, i)
				if p.version < txn.V2 {
					_ = p.add("t", 0, 1)
				}
				if w.write(p, "t", 0, value) == nil {
					decided[value] = false
				}
			}
			producers[id] = w.producer(id, int8(1+r.IntN(2)))
			if p != nil && p.version == txn.V2 {
				want(t, p.end(true), kerr.ProducerFenced)
			}
		}
		p, value, commit := producers[id], fmt.Sprintf("%s/%d", id, i), r.IntN(3) > 0
		switch err := p.transact(value, int64(i), commit); err {
		case nil:
			if decided[value] = commit; commit {
				offsets[id] = int64(i)
			}
		default:
			t.Fatalf("%s: %v", value, err) // one at a time, and none fences another
		}
	}
	for _, n := range w.nodes {
		n.kv.Inject(nil)
	}
	w.settle()
	seconds(20)
	w.settle()
	w.outcomes(decided)
	for id, offset := range offsets {
		wantFetch(t, w.now, "group-"+id, "u", 0, offset)
	}
}
