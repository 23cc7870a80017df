package franz

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/checker"
)

// TestTransactionsAreTold has a transactional client commit and abort by turns,
// and looks whether the history has all of it and is a good one.
func TestTransactionsAreTold(t *testing.T) {
	addr := startBroker(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := checker.NewHistory()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID("x"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	c := h.Consumer("reader", checker.ReadCommitted, checker.Assigned, checker.Epochs)
	reader, err := kgo.NewClient(append(Assign(c, topic, partitions), kgo.SeedBrokers(addr), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	p := h.RetryingProducer("producer")
	const transactions = 6
	for n := range transactions {
		x, commit := p.Begin(), n%2 == 0
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i := range int32(partitions) {
			Send(ctx, cl, x.Send(topic, i), topic, i, 100, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		if err := cl.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		waiting, enough := context.WithTimeout(ctx, 20*time.Millisecond)
		PollIn(waiting, reader, c, x, 100)
		enough()
		end := x.End(commit, "", nil)
		if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
			t.Fatal(err)
		}
		end.OK()
	}
	for { // until no transaction is open
		ends, err := List(ctx, reader, h, "lister", topic, Ends)
		if err != nil {
			t.Fatal(err)
		}
		stable, err := List(ctx, reader, h, "lister", topic, Stable)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(ends) == fmt.Sprint(stable) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for i := range 2 {
		if err := Scan(ctx, h, fmt.Sprint("scan-", i), "broker-1", addr, topic); err != nil {
			t.Error(err)
		}
	}
	if err := ScanCommitted(ctx, h, "scan-2", "broker-1", addr, topic); err != nil {
		t.Error(err)
	}
	c.Close()
	v := h.Check(checker.Rules{Nodes: []string{"broker-1"}})
	if !v.OK() {
		t.Errorf("%v: %v", v, v.Violations)
	}
	if v.Transactions != transactions || v.Commits != transactions/2 || v.Aborts != transactions/2 || v.Scans != 3*partitions ||
		v.Counts.Read < (2*transactions+transactions/2)*partitions {
		t.Errorf("not everything was told: %v", v)
	}
}
