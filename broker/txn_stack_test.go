package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// txnStack is a stack with a topic, for clients with transactions.
type txnStack struct {
	*stack
	t    *testing.T
	ctx  context.Context
	addr string
}

func newTxnStack(t *testing.T, topics ...string) *txnStack {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := startStack(t, ln, "127.0.0.1", int32(ln.Addr().(*net.TCPAddr).Port), nil)
	t.Cleanup(k.stop)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	x := &txnStack{stack: k, t: t, ctx: ctx, addr: ln.Addr().String()}
	cl := x.client()
	if _, err := kadm.NewClient(cl).CreateTopics(ctx, 3, 1, nil, topics...); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *txnStack) client(opts ...kgo.Opt) *kgo.Client {
	x.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(x.addr)}, opts...)...)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(cl.Close)
	return cl
}

// transact writes records in one transaction and ends it.
func (x *txnStack) transact(cl *kgo.Client, topic string, commit kgo.TransactionEndTry, values ...string) error {
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Topic: topic, Key: []byte(v), Value: []byte(v)})
	}
	if err := cl.ProduceSync(x.ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	return cl.EndTransaction(x.ctx, commit)
}

// committed reads what a reader of committed records sees of a topic.
func (x *txnStack) committed(topic string, n int) []string {
	x.t.Helper()
	cl := x.client(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	var got []string
	for len(got) < n {
		fs := cl.PollFetches(x.ctx)
		if err := fs.Err0(); err != nil {
			x.t.Fatalf("%v after %d of %d records", err, len(got), n)
		}
		fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	// Nothing more comes: everything ended, so the last stable offsets are at the end.
	adm := kadm.NewClient(cl)
	deadline := time.Now().Add(10 * time.Second)
	for {
		stable, err := adm.ListCommittedOffsets(x.ctx, topic)
		if err != nil {
			x.t.Fatal(err)
		}
		ends, err := adm.ListEndOffsets(x.ctx, topic)
		if err != nil {
			x.t.Fatal(err)
		}
		behind := int64(0)
		ends.Each(func(o kadm.ListedOffset) {
			s, _ := stable.Lookup(topic, o.Partition)
			behind += o.Offset - s.Offset
		})
		if behind == 0 {
			break
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("the last stable offsets of %s stay %d behind", topic, behind)
		}
		time.Sleep(10 * time.Millisecond)
	}
	short, cancel := context.WithTimeout(x.ctx, 300*time.Millisecond)
	defer cancel()
	cl.PollFetches(short).EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	return got
}

// versions are clients of both protocols: with EndTxn below 5 no epoch is raised.
func versions() map[string][]kgo.Opt {
	old := kversion.V3_7_0()
	return map[string][]kgo.Opt{"v2": nil, "v1": {kgo.MaxVersions(old)}}
}

func TestTransactions(t *testing.T) {
	for name, opts := range versions() {
		t.Run(name, func(t *testing.T) {
			x := newTxnStack(t, "out")
			cl := x.client(append(opts, kgo.TransactionalID("writer"), kgo.RequestRetries(20))...)
			const rounds = 20
			want := map[string]bool{}
			for i := range rounds {
				var values []string
				for j := range 5 {
					values = append(values, fmt.Sprintf("%d/%d", i, j))
				}
				commit := kgo.TransactionEndTry(i%3 != 1)
				if err := x.transact(cl, "out", commit, values...); err != nil {
					t.Fatal(i, err)
				}
				for _, v := range values {
					want[v] = bool(commit)
				}
			}
			n := 0
			for _, committed := range want {
				if committed {
					n++
				}
			}
			got := x.committed("out", n)
			for _, v := range got {
				if !want[v] {
					t.Fatalf("%q was read: twice, or aborted", v)
				}
				want[v] = false
			}
			if len(got) != n {
				t.Fatalf("%d records, want %d", len(got), n)
			}
		})
	}
}

func TestZombieIsFenced(t *testing.T) {
	for name, opts := range versions() {
		t.Run(name, func(t *testing.T) {
			x := newTxnStack(t, "out")
			opts = append(opts, kgo.TransactionalID("writer"))
			zombie := x.client(opts...)
			if err := x.transact(zombie, "out", kgo.TryCommit, "a"); err != nil {
				t.Fatal(err)
			}
			if err := zombie.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := zombie.ProduceSync(x.ctx, &kgo.Record{Topic: "out", Value: []byte("lost")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := x.transact(x.client(opts...), "out", kgo.TryCommit, "b"); err != nil {
				t.Fatal(err)
			}
			err := zombie.EndTransaction(x.ctx, kgo.TryCommit)
			if !errors.Is(err, kerr.ProducerFenced) && !errors.Is(err, kerr.InvalidProducerEpoch) && !errors.Is(err, kerr.InvalidProducerIDMapping) {
				t.Errorf("the zombie's commit: %v", err)
			}
			got := x.committed("out", 2)
			if len(got) != 2 || got[0] == "lost" || got[1] == "lost" {
				t.Fatal(got)
			}
		})
	}
}

// TestReadProcessWrite copies a topic exactly once, through a group whose offsets
// are committed in the transactions, some of which are aborted.
func TestReadProcessWrite(t *testing.T) {
	for name, opts := range versions() {
		t.Run(name, func(t *testing.T) {
			x := newTxnStack(t, "in", "out")
			const records = 300
			in := x.client(kgo.DefaultProduceTopic("in"))
			for i := range records {
				if err := in.ProduceSync(x.ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			s, err := kgo.NewGroupTransactSession(append(opts, kgo.SeedBrokers(x.addr), kgo.TransactionalID("copier"), kgo.ConsumerGroup("copiers"),
				kgo.ConsumeTopics("in"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.DefaultProduceTopic("out"))...)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for copied, round := 0, 0; copied < records; round++ {
				fs := s.PollRecords(x.ctx, 30)
				if err := fs.Err0(); err != nil {
					t.Fatal(err)
				}
				if err := s.Begin(); err != nil {
					t.Fatal(err)
				}
				n := 0
				fs.EachRecord(func(r *kgo.Record) {
					n++
					s.Produce(x.ctx, kgo.StringRecord(string(r.Value)), nil)
				})
				ok, err := s.End(x.ctx, kgo.TransactionEndTry(round%4 != 2))
				if err != nil {
					t.Fatal(err)
				}
				if ok {
					copied += n
				}
			}
			seen := map[string]bool{}
			for _, v := range x.committed("out", records) {
				if seen[v] {
					t.Fatalf("%s twice", v)
				}
				seen[v] = true
			}
			if len(seen) != records {
				t.Fatalf("%d records, want %d", len(seen), records)
			}
			lag, err := kadm.NewClient(in).Lag(x.ctx, "copiers")
			if err != nil || lag["copiers"].Lag.Total() != 0 {
				t.Errorf("lag %d, %v", lag["copiers"].Lag.Total(), err)
			}
		})
	}
}
