package broker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark-io/tidemark/broker/internal/configdef"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
)

const (
	// produceWaitMax bounds the timeout a client may ask for.
	produceWaitMax = 5 * time.Minute
	// weakWaitMin is the least that acks=0 and acks=1 wait: Kafka does not
	// apply the timeout to them, so clients may send any, even 0.
	weakWaitMin = 10 * time.Second
	// inflatedMax bounds what a batch of a compacted topic may inflate to when
	// its keys are checked, inflatingMax how many are inflated at once.
	inflatedMax  = 64 << 20
	inflatingMax = 4
	// zstdVersion is the first version of Produce that may carry zstd (KIP-110).
	zstdVersion = 7
)

// produced is the state of one partition of a produce request.
type produced struct {
	topic     *metadata.Topic
	partition int32
	appended  Appended
	err       error
}

// produce appends the batches of a request, in the order the connection sent
// them; the finish it returns waits for their commit.
func (s *Server) produce(ctx context.Context, r *Request) finish {
	req := r.Body.(*kmsg.ProduceRequest)
	wait := timeout(req.TimeoutMillis, produceWaitMax)
	if req.Acks >= 0 {
		wait = max(wait, weakWaitMin)
	}
	deadline := time.Now().Add(wait)
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = req.Version
	parts := s.appendAll(ctx, r, req, deadline)
	return func(ctx context.Context) (kmsg.Response, error) {
		if req.Acks == 0 {
			return nil, lost(parts)
		}
		s.commit(ctx, parts, deadline, req.TransactionID != nil)
		if err := failpoint.Hit(failpoint.BeforeReply); err != nil {
			return nil, err
		}
		s.producedTopics(r, req, resp, parts)
		return resp, nil
	}
}

// timeout turns a client's milliseconds into a duration of at most limit.
func timeout(millis int32, limit time.Duration) time.Duration {
	return max(0, min(time.Duration(millis)*time.Millisecond, limit))
}

// lost makes an acks=0 client notice an error the only way there is: Kafka
// closes the connection, so that it refreshes its metadata.
func lost(parts [][]produced) error {
	for _, topic := range parts {
		for i := range topic {
			if topic[i].err != nil {
				return fmt.Errorf("produce without acknowledgement: %w", topic[i].err)
			}
		}
	}
	return nil
}

// appendAll appends every partition's batch that passes. The result has the
// shape of the request.
func (s *Server) appendAll(ctx context.Context, r *Request, req *kmsg.ProduceRequest, deadline time.Time) [][]produced {
	parts := make([][]produced, len(req.Topics))
	txn := s.enlist(ctx, req, deadline) // before room is taken: it asks another broker
	defer txn.release()
	release, refusal := s.admit(ctx, req, deadline)
	defer release()
	open, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	begin := time.Now()
	for i := range req.Topics {
		t := &req.Topics[i]
		parts[i] = make([]produced, len(t.Partitions))
		topic, err := s.resolve(req.Version >= 13, t.TopicID, t.Topic)
		if refusal != nil {
			err = refusal
		} else if err == nil && isInternal(topic.Name) {
			err = refuse(kerr.InvalidTopicException, "The topic %s is internal.", topic.Name)
		}
		var rules batch.Rules
		if err == nil {
			rules = s.rules(topic)
		}
		for j := range t.Partitions {
			p := &parts[i][j]
			*p = produced{topic: topic, partition: t.Partitions[j].Partition, err: err}
			if err == nil {
				p.appended, p.err = s.append(ctx, open, req, topic, &t.Partitions[j], rules, txn.at(i, j))
			}
			t.Partitions[j].Records = nil // the log's now, or nobody's
		}
	}
	s.metrics.produce.WithLabelValues("append").Observe(since(begin))
	return parts
}

// admit checks what concerns the request as a whole, and waits for room.
func (s *Server) admit(ctx context.Context, req *kmsg.ProduceRequest, deadline time.Time) (release func(), refusal error) {
	release = func() {}
	switch {
	case req.Version < 3:
		// Advertised for librdkafka's sake, which reads the range to choose
		// compression; Kafka 4 refuses them in the same way.
		return release, refuse(kerr.UnsupportedVersion, "")
	case req.Acks < -1 || req.Acks > 1:
		return release, refuse(kerr.InvalidRequiredAcks, "")
	case req.TransactionID != nil && s.cfg.Txns == nil:
		return release, errNoTransactions
	}
	total := 0
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			total += len(req.Topics[i].Partitions[j].Records)
		}
	}
	begin := time.Now()
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	got, err := s.cfg.Log.Admit(ctx, total)
	s.metrics.produce.WithLabelValues("admit").Observe(since(begin))
	trace.SpanFromContext(ctx).SetAttributes(attribute.Int("messaging.message.body.size", total))
	if err != nil {
		return release, err
	}
	s.metrics.records.WithLabelValues("in").Add(float64(total))
	return got, nil
}

// errNoTransactions is final for clients: a retriable code would have them wait
// for something that does not come.
var errNoTransactions = refuse(kerr.TransactionalIDAuthorizationFailed, "transactions are not supported by this broker")

// rules are what a topic's configs ask of a batch.
func (s *Server) rules(t *metadata.Topic) batch.Rules {
	c := topicConfig{s, t}
	now := time.Now().UnixMilli()
	r := batch.Rules{
		BytesMax:      int(min(c.number("max.message.bytes"), configdef.MaxMessageBytes)),
		LogAppendTime: c.text("message.timestamp.type") == "LogAppendTime",
		Keys:          c.compacted(),
		InflatedMax:   inflatedMax,
		TimestampMax:  math.MaxInt64,
	}
	if after := c.number("message.timestamp.after.max.ms"); after < math.MaxInt64-now {
		r.TimestampMax = now + after
	}
	r.TimestampMin = max(0, now-c.number("message.timestamp.before.max.ms"))
	return r
}

// append validates one partition's batch and gives it its offset.
func (s *Server) append(ctx, open context.Context, req *kmsg.ProduceRequest, t *metadata.Topic, p *kmsg.ProduceRequestTopicPartition, rules batch.Rules, txn *enlisted) (Appended, error) {
	if txn != nil && txn.err != nil {
		return Appended{}, txn.err
	}
	var part Partition
	var err error
	if txn != nil { // the guard is this one's, whoever leads by now
		part = txn.part
	} else if part, err = s.partition(open, t, p.Partition, -1); err != nil {
		return Appended{}, err
	}
	h, err := s.validate(ctx, p.Records, rules)
	switch {
	case err != nil:
		return Appended{}, err
	case h.Codec() == batch.Zstd && req.Version < zstdVersion:
		return Appended{}, refuse(kerr.UnsupportedCompressionType, "Produce requests with version %d are not allowed to use ZStandard compression", req.Version)
	case h.Transactional() && s.cfg.Txns == nil:
		return Appended{}, errNoTransactions
	case h.Transactional() && req.TransactionID == nil:
		return Appended{}, refuse(kerr.TransactionalIDAuthorizationFailed, "a transactional batch needs a transactional id")
	}
	a, err := part.AppendTxn(p.Records, h, time.Now().UnixMilli(), rules.LogAppendTime, txn.held())
	if err != nil {
		return Appended{}, err
	}
	if failpoint.Hit(failpoint.AfterAppend) != nil {
		return Appended{}, errUndecided
	}
	return a, nil
}

// validate is batch.Validate with a bound on how many batches inflate at once.
func (s *Server) validate(ctx context.Context, records []byte, rules batch.Rules) (batch.Header, error) {
	if len(records) == 0 {
		return batch.Header{}, fmt.Errorf("%w: no record batch", batch.ErrInvalid)
	}
	if rules.Keys {
		if err := s.inflating.Acquire(ctx, 1); err != nil {
			return batch.Header{}, err
		}
		defer s.inflating.Release(1)
	}
	return batch.Validate(records, rules)
}

// commit waits until the fate of every append is known or the time is up. An
// append without a known fate has timed out: it may still be committed. txn: they
// are of transactions, or end them.
func (s *Server) commit(ctx context.Context, parts [][]produced, deadline time.Time, txn bool) {
	begin := time.Now()
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for i := range parts {
		for j := range parts[i] {
			p := &parts[i][j]
			if p.err != nil {
				continue
			}
			select {
			case <-p.appended.Commit.Done():
				p.err = p.appended.Commit.Err()
				continue
			default:
			}
			select {
			case <-p.appended.Commit.Done():
				p.err = p.appended.Commit.Err()
			case <-ctx.Done():
				p.err = errUndecided
			}
		}
	}
	s.prove(ctx, parts, txn)
	s.metrics.produce.WithLabelValues("commit").Observe(since(begin))
	linkFlushes(trace.SpanFromContext(ctx), parts)
}

var errUndecided = refuse(kerr.RequestTimedOut, "the batch was not committed in time; it may still be")

// linkFlushes leads from a request's trace to the flushes that carried it, which
// it shares with others.
func linkFlushes(span trace.Span, parts [][]produced) {
	if !span.IsRecording() {
		return
	}
	seen := make(map[trace.SpanID]bool)
	for i := range parts {
		for j := range parts[i] {
			c, ok := parts[i][j].appended.Commit.(interface{ Trace() trace.SpanContext })
			if !ok {
				continue
			}
			if flush := c.Trace(); flush.IsValid() && !seen[flush.SpanID()] {
				seen[flush.SpanID()] = true
				span.AddLink(trace.Link{SpanContext: flush})
			}
		}
	}
}

// producedTopics fills in the response.
func (s *Server) producedTopics(r *Request, req *kmsg.ProduceRequest, resp *kmsg.ProduceResponse, parts [][]produced) {
	var ends endpoints
	for i := range req.Topics {
		t := kmsg.NewProduceResponseTopic()
		t.Topic, t.TopicID = req.Topics[i].Topic, req.Topics[i].TopicID
		for j := range parts[i] {
			t.Partitions = append(t.Partitions, s.producedPartition(r, &parts[i][j], &ends))
		}
		resp.Topics = append(resp.Topics, t)
	}
	if req.Version >= 10 {
		for _, b := range ends.brokers {
			e := kmsg.NewProduceResponseBroker()
			e.NodeID, e.Host, e.Port, e.Rack = b.ID, b.Host, b.Port, rack(b)
			resp.Brokers = append(resp.Brokers, e)
		}
	}
}

func (s *Server) producedPartition(r *Request, p *produced, ends *endpoints) kmsg.ProduceResponseTopicPartition {
	out := kmsg.NewProduceResponseTopicPartition()
	out.Partition = p.partition
	out.BaseOffset, out.LogAppendTime, out.LogStartOffset = -1, -1, -1
	if p.err == nil {
		out.BaseOffset = p.appended.BaseOffset
		out.LogAppendTime = p.appended.LogAppendTime
		out.LogStartOffset = p.appended.LogStart
		return out
	}
	out.ErrorCode = r.code(p.err)
	out.ErrorMessage = errorText(p.err)
	var rejected *batch.RejectedError
	if errors.As(p.err, &rejected) {
		for _, re := range rejected.Records {
			e := kmsg.NewProduceResponseTopicPartitionErrorRecord()
			e.RelativeOffset, e.ErrorMessage = re.Index, &re.Reason
			out.ErrorRecords = append(out.ErrorRecords, e)
		}
	}
	if l, ok := s.hint(p.topic, p.partition, out.ErrorCode); ok && r.Version >= 10 {
		out.CurrentLeader.LeaderID, out.CurrentLeader.LeaderEpoch = l.broker.ID, l.epoch
		ends.add(l.broker)
	}
	return out
}

// endpoints collects the brokers named in an answer, once each (KIP-951).
type endpoints struct{ brokers []metadata.Broker }

func (e *endpoints) add(b metadata.Broker) {
	for i := range e.brokers {
		if e.brokers[i].ID == b.ID {
			return
		}
	}
	e.brokers = append(e.brokers, b)
}

// rack is a broker's rack, nil when it has none.
func rack(b metadata.Broker) *string {
	if b.Rack == "" {
		return nil
	}
	return &b.Rack
}
