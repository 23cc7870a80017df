package broker

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// TestProducerStateIsProven: a refusal that rests on a producer's state is the
// leader's to give.
func TestProducerStateIsProven(t *testing.T) {
	for _, tc := range []struct {
		name   string
		refuse error
		check  error
		want   *kerr.Error
		checks int
	}{
		{"out of order", tiering.ErrOutOfOrderSequence, nil, kerr.OutOfOrderSequenceNumber, 1},
		{"out of order, deposed", tiering.ErrOutOfOrderSequence, tiering.ErrFenced, kerr.NotLeaderForPartition, 1},
		{"out of order, nobody knows", tiering.ErrOutOfOrderSequence, tiering.ErrStoreUnavailable, kerr.KafkaStorageError, 1},
		{"no transaction", tiering.ErrInvalidTxnState, nil, kerr.InvalidTxnState, 1},
		{"no transaction, deposed", tiering.ErrInvalidTxnState, tiering.ErrFenced, kerr.NotLeaderForPartition, 1},
		{"an old epoch stays one", tiering.ErrInvalidProducerEpoch, tiering.ErrFenced, kerr.InvalidProducerEpoch, 0},
		{"nothing to prove", nil, tiering.ErrFenced, nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			topic, part := r.topic("t")
			part.refuse, r.log.check = tc.refuse, tc.check
			want := int16(0)
			if tc.want != nil {
				want = tc.want.Code
			}
			if got := r.dial().produceOne(9, topic, someBatch(1)); got.ErrorCode != want {
				t.Errorf("%v, want %v", kerr.ErrorForCode(got.ErrorCode), tc.want)
			}
			if len(r.log.checks) != tc.checks || slices.ContainsFunc(r.log.checks, func(age time.Duration) bool { return age != 0 }) {
				t.Errorf("checks of ages %v, want %d of 0", r.log.checks, tc.checks)
			}
		})
	}
}

// depose has another incarnation lead partition 0, of which the rig learns nothing.
func (x *txnRig) depose() {
	x.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	x.t.Cleanup(cancel)
	x.stack.fenced.Store(true)
	topic, ok := x.stack.view.Topic(x.topic)
	if !ok {
		x.t.Fatal("no topic")
	}
	heir := metadata.MakeIncarnation(1, 1<<40)
	if _, err := x.stack.kv.Txn(ctx, metadata.Txn{Then: []metadata.Op{metadata.Put(metadata.ChainKey(heir), []byte("{}"))}}); err != nil {
		x.t.Fatal(err)
	}
	log, err := tiering.Open(ctx, tiering.Config{Incarnation: heir, Cluster: wal.ClusterID{1}, Store: x.stack.store, Chains: tiering.NewChains(x.stack.kv)})
	if err != nil {
		x.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := log.Run(ctx); err != nil && !errors.Is(err, context.Canceled) && ctx.Err() == nil {
			x.t.Error(err)
		}
	}()
	x.t.Cleanup(func() { cancel(); <-done })
	tp := metadata.TopicPartition{Topic: topic.ID, Partition: 0}
	owners := []metadata.Owner{{Incarnation: metadata.MakeIncarnation(1, 1), Epoch: 0}, {Incarnation: heir, Epoch: 1}}
	for _, err := range log.Lead(ctx, []tiering.LeadRequest{{Partition: tp, Owners: owners}}) {
		x.t.Fatal(err)
	}
}

// TestDeposedLeaderKnowsNoProducers: what a leader that was deposed without
// noticing remembers of producers is old, and it tells nobody anything but that.
func TestDeposedLeaderKnowsNoProducers(t *testing.T) {
	begun := func(t *testing.T) (*txnRig, *client) {
		x := newTxnRig(t)
		c := x.dial()
		code, _ := x.produce(c, 11, 0, txnRecords(1, 0, 0, "a"))
		x.want(code, nil)
		return x, c
	}
	old := func() kmsg.WriteTxnMarkersRequestMarker { // of a transaction whose epoch does not grow
		m := markerOf(1, 0, true)
		m.TransactionVersion = 1
		return m
	}
	t.Run("the next batch", func(t *testing.T) {
		x, c := begun(t)
		x.depose() // and what is between is written there
		code, _ := x.produce(c, 11, 0, txnRecords(1, 0, 5, "f"))
		x.want(code, kerr.NotLeaderForPartition)
	})
	t.Run("a sequence number used again", func(t *testing.T) {
		x, c := begun(t)
		x.depose() // and the transaction is aborted there
		code, _ := x.produce(c, 11, 0, txnRecords(1, 0, 0, "b"))
		x.want(code, kerr.NotLeaderForPartition)
	})
	t.Run("the next transaction", func(t *testing.T) {
		x, c := begun(t)
		x.depose() // and the transaction ends there
		code, _ := x.produce(c, 12, 0, txnRecords(1, 1, 0, "b"))
		x.want(code, kerr.NotLeaderForPartition)
	})
	t.Run("the next marker", func(t *testing.T) {
		x, c := begun(t)
		x.ended(x.end(c, old(), 0), nil)
		x.ended(x.end(c, old(), 0), nil) // is there already
		x.depose()                       // and the next transaction is begun there
		x.ended(x.end(c, old(), 0), kerr.NotLeaderForPartition)
	})
}
