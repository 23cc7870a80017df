package coordinator

import (
	"context"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
)

// TxnCoordinator returns the broker that coordinates a transactional id.
func (c *Coordinator) TxnCoordinator(transactionalID string) (metadata.Broker, error) {
	return c.Coordinator(transactionalID)
}

// DescribeTransactions describes transactional ids of this broker.
func (c *Coordinator) DescribeTransactions(_ context.Context, _ ClientInfo, req *kmsg.DescribeTransactionsRequest) *kmsg.DescribeTransactionsResponse {
	resp := kmsg.NewPtrDescribeTransactionsResponse()
	resp.Version = req.Version
	for _, id := range req.TransactionalIDs {
		resp.TransactionStates = append(resp.TransactionStates, c.describeTxn(id))
	}
	return resp
}

func (c *Coordinator) describeTxn(id string) kmsg.DescribeTransactionsResponseTransactionState {
	resp := kmsg.NewDescribeTransactionsResponseTransactionState()
	resp.TransactionalID = id
	resp.ProducerID, resp.ProducerEpoch, resp.StartTimestamp = -1, -1, -1
	if id == "" || checkGroupID(id, false) != nil {
		resp.ErrorCode = kerr.InvalidRequest.Code
		return resp
	}
	sh := c.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.findTxn(id)
	if err == nil && (e == nil || e.rev == 0) {
		err = kerr.TransactionalIDNotFound
	}
	if err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	t := e.t
	resp.State, resp.TimeoutMillis = t.State.String(), int32(t.Timeout.Milliseconds())
	resp.ProducerID, resp.ProducerEpoch, resp.StartTimestamp = t.Producer.ID, t.Producer.Epoch, startedMillis(t)
	resp.Topics = c.describePartitions(t.Partitions)
	return resp
}

func startedMillis(t *txn.Txn) int64 {
	if t.Started.IsZero() {
		return -1
	}
	return t.Started.UnixMilli()
}

// describePartitions lists partitions by name, without those of deleted topics.
func (c *Coordinator) describePartitions(partitions txn.Partitions) []kmsg.DescribeTransactionsResponseTransactionStateTopic {
	byName := map[string][]int32{}
	for tp := range partitions {
		if tp.Topic == offsetsTopicID {
			byName[metadata.OffsetsTopic] = append(byName[metadata.OffsetsTopic], tp.Partition)
		} else if t, ok := c.cfg.View.TopicByID(tp.Topic); ok {
			byName[t.Name] = append(byName[t.Name], tp.Partition)
		}
	}
	var topics []kmsg.DescribeTransactionsResponseTransactionStateTopic
	for name, list := range byName {
		slices.Sort(list)
		t := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
		t.Topic, t.Partitions = name, list
		topics = append(topics, t)
	}
	sort.Slice(topics, func(i, j int) bool { return topics[i].Topic < topics[j].Topic })
	return topics
}

// ListTransactions lists the transactional ids of this broker's shards.
func (c *Coordinator) ListTransactions(_ context.Context, _ ClientInfo, req *kmsg.ListTransactionsRequest) *kmsg.ListTransactionsResponse {
	resp := kmsg.NewPtrListTransactionsResponse()
	resp.Version = req.Version
	if c.draining.Load() {
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
		return resp
	}
	l := txnLister{req: req, now: time.Now(), long: -1}
	for _, name := range req.StateFilters {
		if _, known := txn.ParseState(name); !known {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, name)
		}
	}
	if req.Version >= 1 {
		l.long = req.DurationFilterMillis
	}
	if p := req.TransactionalIDPattern; req.Version >= 2 && p != nil && *p != "" {
		var err error
		if l.pattern, err = regexp.Compile(`^(?:` + *p + `)$`); err != nil {
			resp.ErrorCode = kerr.InvalidRegularExpression.Code
			return resp
		}
	}
	for i := range c.shards {
		if err := c.shards[i].listTxns(&l, resp); err != nil {
			resp.ErrorCode, resp.TransactionStates = err.Code, nil
			return resp
		}
	}
	sort.Slice(resp.TransactionStates, func(i, j int) bool {
		return resp.TransactionStates[i].TransactionalID < resp.TransactionStates[j].TransactionalID
	})
	return resp
}

type txnLister struct {
	req     *kmsg.ListTransactionsRequest
	now     time.Time
	long    int64 // milliseconds; negative: whatever their duration
	pattern *regexp.Regexp
}

func (l *txnLister) wants(e *txnEntry) bool {
	t := e.t
	switch {
	case e.corrupt || e.rev == 0:
	case len(l.req.ProducerIDFilters) > 0 && !slices.Contains(l.req.ProducerIDFilters, t.Producer.ID):
	case len(l.req.StateFilters) > 0 && !slices.ContainsFunc(l.req.StateFilters, func(s string) bool { return strings.EqualFold(s, t.State.String()) }):
	case l.long >= 0 && l.now.UnixMilli()-startedMillis(t) <= l.long:
	case l.pattern != nil && !l.pattern.MatchString(e.id):
	default:
		return true
	}
	return false
}

func (sh *shard) listTxns(l *txnLister, resp *kmsg.ListTransactionsResponse) *kerr.Error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch sh.serving() {
	case nil:
	case kerr.CoordinatorLoadInProgress:
		return kerr.CoordinatorLoadInProgress
	default:
		return nil // listed by its own coordinator
	}
	for id, e := range sh.txns {
		if !l.wants(e) {
			continue
		}
		s := kmsg.NewListTransactionsResponseTransactionState()
		s.TransactionalID, s.ProducerID, s.TransactionState = id, e.t.Producer.ID, e.t.State.String()
		resp.TransactionStates = append(resp.TransactionStates, s)
	}
	return nil
}
