package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
)

// world is brokers with transactions, and the partitions that these are about.
type world struct {
	*env
	mu    sync.Mutex
	parts map[metadata.TopicPartition]*fakeLeader
	down  map[metadata.Incarnation]bool
	// refuse, when set, has leaders refuse markers.
	refuse *kerr.Error
	sent   int // requests with markers
	ids    int64
	now    *node // who coordinates
}

// fakeLeader is a partition as its leader keeps it.
type fakeLeader struct {
	open      map[int64]fakeTxn
	epochs    map[int64]int16
	committed []string
	aborted   []string
	markers   int
}

type fakeTxn struct {
	epoch  int16
	values []string
}

func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	inBubble(t, func(t *testing.T, e *env) {
		w := &world{env: e, parts: map[metadata.TopicPartition]*fakeLeader{}, down: map[metadata.Incarnation]bool{}}
		f(t, w)
	})
}

// broker starts a broker with transactions.
func (w *world) broker(inc metadata.Incarnation, edit ...func(*Config)) *node {
	w.t.Helper()
	n := w.node(inc, append(edit, func(c *Config) { c.Peers, c.ProducerIDs = w, w })...)
	n.view.change(func() {
		n.view.leaders = map[metadata.TopicPartition]metadata.Incarnation{}
		for _, topic := range w.topics {
			for p := range topic.Partitions {
				n.view.leaders[metadata.TopicPartition{Topic: topic.ID, Partition: p}] = 50 // none that coordinates
			}
		}
	})
	return n
}

// begin starts broker 1, which coordinates everything.
func (w *world) begin(edit ...func(*Config)) *node {
	w.t.Helper()
	w.now = w.broker(1, edit...)
	w.assignAll(1)
	return w.now
}

// move has another broker coordinate everything.
func (w *world) move(n *node) {
	w.t.Helper()
	w.now = n
	w.assignAll(n.inc)
}

func (w *world) Get(context.Context) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids++
	return 1000 + w.ids, nil
}

// Request implements Peers.
func (w *world) Request(ctx context.Context, to metadata.Broker, req kmsg.Request) (kmsg.Response, error) {
	w.mu.Lock()
	down := w.down[to.Incarnation]
	w.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.inc == to.Incarnation })
	switch req := req.(type) {
	case *kmsg.AddPartitionsToTxnRequest:
		return w.nodes[i].AddPartitionsToTxn(ctx, someone, req), nil
	case *kmsg.WriteTxnMarkersRequest:
		resp := kmsg.NewPtrWriteTxnMarkersResponse()
		w.mu.Lock()
		w.sent++
		w.mu.Unlock()
		for _, m := range req.Markers {
			rm := kmsg.NewWriteTxnMarkersResponseMarker()
			rm.ProducerID = m.ProducerID
			for _, t := range m.Topics {
				rt := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
				rt.Topic = t.Topic
				for _, p := range t.Partitions {
					rp := kmsg.NewWriteTxnMarkersResponseMarkerTopicPartition()
					rp.Partition = p
					if t.Topic == metadata.OffsetsTopic {
						rp.ErrorCode = fateCode(w.nodes[i].EndOffsets(int(p), OffsetsMarker{
							Producer: txn.Producer{ID: m.ProducerID, Epoch: m.ProducerEpoch}, CoordinatorEpoch: m.CoordinatorEpoch,
							Commit: m.Committed, Version: m.TransactionVersion,
						}))
					} else {
						rp.ErrorCode = code(w.mark(metadata.TopicPartition{Topic: w.topics[t.Topic].ID, Partition: p}, &m))
					}
					rt.Partitions = append(rt.Partitions, rp)
				}
				rm.Topics = append(rm.Topics, rt)
			}
			resp.Markers = append(resp.Markers, rm)
		}
		return resp, nil
	}
	return nil, fmt.Errorf("no answer to %T", req)
}

func fateCode(f *Fate) int16 {
	<-f.Done()
	if err := f.Err(); err != nil {
		return err.(*kerr.Error).Code
	}
	return 0
}

func (w *world) leader(tp metadata.TopicPartition) *fakeLeader {
	l := w.parts[tp]
	if l == nil {
		l = &fakeLeader{open: map[int64]fakeTxn{}, epochs: map[int64]int16{}}
		w.parts[tp] = l
	}
	return l
}

// mark ends a transaction in a partition, by the rules of the log.
func (w *world) mark(tp metadata.TopicPartition, m *kmsg.WriteTxnMarkersRequestMarker) *kerr.Error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	l := w.leader(tp)
	open, is := l.open[m.ProducerID]
	if m.ProducerEpoch < l.epochs[m.ProducerID] || is && open.epoch == m.ProducerEpoch && m.TransactionVersion >= 2 {
		return kerr.InvalidProducerEpoch
	}
	l.epochs[m.ProducerID] = m.ProducerEpoch
	l.markers++
	if !is {
		return nil
	}
	delete(l.open, m.ProducerID)
	if m.Committed {
		l.committed = append(l.committed, open.values...)
	} else {
		l.aborted = append(l.aborted, open.values...)
	}
	return nil
}

// write appends to a partition in a transaction that its coordinator confirms.
func (w *world) write(p *producer, topic string, partition int32, value string) *kerr.Error {
	w.t.Helper()
	tp := metadata.TopicPartition{Topic: w.topics[topic].ID, Partition: partition}
	err := w.retry(func(n *node) *kerr.Error {
		codes, err := n.AskTxn(context.Background(), TxnQuestion{
			TransactionalID: p.id, Producer: p.Producer, Add: p.version >= txn.V2, Partitions: []TxnTopicPartition{{topic, partition}},
		})
		if err != nil {
			return kerr.CoordinatorNotAvailable
		}
		return kerr.TypedErrorForCode(codes[0])
	})
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.leader(tp)
	open := l.open[p.ID]
	if p.Epoch < l.epochs[p.ID] || len(open.values) > 0 && open.epoch != p.Epoch {
		return kerr.InvalidProducerEpoch
	}
	l.epochs[p.ID] = p.Epoch
	l.open[p.ID] = fakeTxn{epoch: p.Epoch, values: append(open.values, value)}
	return nil
}

// retry repeats a request at whoever coordinates, as clients do.
func (w *world) retry(f func(n *node) *kerr.Error) *kerr.Error {
	for range 400 {
		switch err := f(w.now); err {
		case kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.ConcurrentTransactions:
			w.replace()
			time.Sleep(50 * time.Millisecond)
		default:
			return err
		}
	}
	return kerr.RequestTimedOut
}

// replace has broker 2 coordinate if the one that does is down.
func (w *world) replace() {
	w.mu.Lock()
	down := w.down[w.now.inc]
	w.mu.Unlock()
	if down && w.now != w.nodes[1] {
		w.move(w.nodes[1])
	}
}

// producer is a client with a transactional id.
type producer struct {
	w  *world
	id string
	txn.Producer
	version int8
}

func (w *world) producer(id string, version int8) *producer {
	w.t.Helper()
	p := &producer{w: w, id: id, Producer: txn.Nobody, version: version}
	if err := p.init(); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (p *producer) init() *kerr.Error {
	return p.w.retry(func(n *node) *kerr.Error {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 5, &p.id, 60_000
		req.ProducerID, req.ProducerEpoch = p.ID, p.Epoch
		resp := n.InitProducerID(context.Background(), someone, req)
		if resp.ErrorCode == 0 {
			p.Producer = txn.Producer{ID: resp.ProducerID, Epoch: resp.ProducerEpoch}
		}
		return kerr.TypedErrorForCode(resp.ErrorCode)
	})
}

// add takes partitions of a topic in, as clients of version 1 do.
func (p *producer) add(topic string, partitions ...int32) *kerr.Error {
	return p.w.retry(func(n *node) *kerr.Error {
		req := kmsg.NewPtrAddPartitionsToTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = 3, p.id, p.ID, p.Epoch
		t := kmsg.NewAddPartitionsToTxnRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		req.Topics = append(req.Topics, t)
		return kerr.TypedErrorForCode(n.AddPartitionsToTxn(context.Background(), someone, req).Topics[0].Partitions[0].ErrorCode)
	})
}

func (p *producer) addOffsets(groupID string) *kerr.Error {
	return p.w.retry(func(n *node) *kerr.Error {
		req := kmsg.NewPtrAddOffsetsToTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = 4, p.id, p.ID, p.Epoch, groupID
		return kerr.TypedErrorForCode(n.AddOffsetsToTxn(context.Background(), someone, req).ErrorCode)
	})
}

// commitOffset commits an offset in the transaction.
func (p *producer) commitOffset(groupID, topic string, partition int32, offset int64, edit ...func(*kmsg.TxnOffsetCommitRequest)) *kerr.Error {
	return p.w.retry(func(n *node) *kerr.Error {
		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.Version, req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = 4, p.id, groupID, p.ID, p.Epoch
		if p.version >= txn.V2 {
			req.Version = 5
		}
		t := kmsg.NewTxnOffsetCommitRequestTopic()
		t.Topic = topic
		tp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		tp.Partition, tp.Offset = partition, offset
		t.Partitions = append(t.Partitions, tp)
		req.Topics = append(req.Topics, t)
		for _, f := range edit {
			f(req)
		}
		return kerr.TypedErrorForCode(n.TxnOffsetCommit(context.Background(), someone, req).Topics[0].Partitions[0].ErrorCode)
	})
}

func (p *producer) end(commit bool) *kerr.Error {
	return p.w.retry(func(n *node) *kerr.Error {
		req := kmsg.NewPtrEndTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = 4, p.id, p.ID, p.Epoch, commit
		if p.version >= txn.V2 {
			req.Version = 5
		}
		resp := n.EndTxn(context.Background(), someone, req)
		if resp.ErrorCode == 0 && req.Version >= 5 {
			p.Producer = txn.Producer{ID: resp.ProducerID, Epoch: resp.ProducerEpoch}
		}
		return kerr.TypedErrorForCode(resp.ErrorCode)
	})
}

// settle waits until every transaction has ended everywhere.
func (w *world) settle() {
	w.t.Helper()
	for range 600 {
		if w.replace(); w.settled() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("transactions are still under way: %s", w.states())
}

func (w *world) states() string {
	resp := w.now.ListTransactions(context.Background(), someone, kmsg.NewPtrListTransactionsRequest())
	return fmt.Sprintf("%s %+v", codeName(resp.ErrorCode), resp.TransactionStates)
}

func (w *world) settled() bool {
	resp := w.now.ListTransactions(context.Background(), someone, kmsg.NewPtrListTransactionsRequest())
	if resp.ErrorCode != 0 {
		return false
	}
	for _, s := range resp.TransactionStates {
		if s.TransactionState != "CompleteCommit" && s.TransactionState != "CompleteAbort" && s.TransactionState != "Empty" {
			return false
		}
	}
	return true
}

func want(t *testing.T, got, want *kerr.Error) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// stableFetch is an OffsetFetch that asks for stable offsets.
func (n *node) stableFetch(groupID, topic string, partition int32) (int64, int16) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.RequireStable = 8, true
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = groupID
	rt := kmsg.NewOffsetFetchRequestGroupTopic()
	rt.Topic, rt.Partitions = topic, []int32{partition}
	g.Topics = append(g.Topics, rt)
	req.Groups = append(req.Groups, g)
	resp := n.OffsetFetch(context.Background(), someone, req)
	if code := resp.Groups[0].ErrorCode; code != 0 {
		return 0, code
	}
	p := resp.Groups[0].Topics[0].Partitions[0]
	return p.Offset, p.ErrorCode
}
