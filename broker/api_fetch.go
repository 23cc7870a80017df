package broker

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/semaphore"

	"github.com/tidemark-io/tidemark/broker/internal/fetchsession"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// fetchWaitMax bounds the wait a client may ask for.
const fetchWaitMax = 5 * time.Minute

// fetch is one fetch request at work.
type fetch struct {
	s    *Server
	r    *Request
	req  *kmsg.FetchRequest
	want []wanted
	// session is nil for requests before sessions (v7) and without one.
	session     *fetchsession.Session
	incremental bool
	shares      []*semaphore.Weighted // that the memory of the response was taken from
}

// wanted is a partition to fetch, and what came of it.
type wanted struct {
	fetchsession.Partition
	topic *metadata.Topic // nil: unknown
	part  Partition
	err   error

	offsets   tiering.Offsets
	read      tiering.ReadResult
	diverging *tiering.EpochEnd
	atEnd     bool  // nothing to read: the answer rests on being the leader
	expected  int64 // about how many bytes there are to read
	behind    bool  // what is asked for has left memory
	large     bool  // the first batch was too large for what was left
}

// fetch serves Fetch: find the session, wait until there is enough, read.
func (s *Server) fetch(ctx context.Context, r *Request, req *kmsg.FetchRequest) kmsg.Response {
	resp := kmsg.NewPtrFetchResponse()
	f := &fetch{s: s, r: r, req: req}
	if err := f.open(); err != nil {
		resp.ErrorCode = r.note(kafkaCode(err))
		return resp
	}
	if f.session != nil {
		resp.SessionID = f.session.ID
		if f.session.ID != 0 {
			defer s.sessions.End(f.session)
		}
		s.metrics.sessions.Set(float64(s.sessions.Len()))
	}
	f.resolve(ctx)
	begin := time.Now()
	f.wait(ctx)
	s.metrics.fetch.WithLabelValues("wait").Observe(since(begin))
	begin = time.Now()
	f.readAll(ctx)
	s.metrics.fetch.WithLabelValues("read").Observe(since(begin))
	f.respond(resp)
	return resp
}

// open finds the partitions to fetch: those of the request, or of its session.
func (f *fetch) open() error {
	req := f.req
	asked := f.asked()
	cache := f.s.sessions
	switch {
	case req.Version < 7:
		f.adopt(asked)
	case req.SessionEpoch == fetchsession.EpochFinal:
		cache.Remove(req.SessionID)
		f.adopt(asked)
	case req.SessionEpoch == fetchsession.EpochInitial:
		cache.Remove(req.SessionID)
		f.session = cache.Create(req.Version >= 13, asked)
		f.adopt(f.session.Partitions())
	default:
		s, err := cache.Begin(req.SessionID, req.SessionEpoch, req.Version >= 13)
		if err != nil {
			return err
		}
		f.session, f.incremental = s, true
		f.forget()
		for _, p := range asked {
			s.Set(p)
		}
		f.adopt(s.Partitions())
	}
	return nil
}

// asked lists the partitions that the request itself names.
func (f *fetch) asked() []fetchsession.Partition {
	var out []fetchsession.Partition
	for i := range f.req.Topics {
		t := &f.req.Topics[i]
		for _, p := range t.Partitions {
			out = append(out, fetchsession.Partition{
				Key:                fetchsession.Key{ID: t.TopicID, Name: t.Topic, Partition: p.Partition},
				MaxBytes:           p.PartitionMaxBytes,
				FetchOffset:        p.FetchOffset,
				CurrentLeaderEpoch: p.CurrentLeaderEpoch,
				LastFetchedEpoch:   p.LastFetchedEpoch,
			})
		}
	}
	return out
}

func (f *fetch) forget() {
	for i := range f.req.ForgottenTopics {
		t := &f.req.ForgottenTopics[i]
		for _, p := range t.Partitions {
			f.session.Forget(fetchsession.Key{ID: t.TopicID, Name: t.Topic, Partition: p})
		}
	}
}

func (f *fetch) adopt(parts []fetchsession.Partition) {
	f.want = make([]wanted, len(parts))
	for i, p := range parts {
		f.want[i].Partition = p
	}
}

// resolve finds each partition, or the error to answer for it.
func (f *fetch) resolve(ctx context.Context) {
	open, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	for i := range f.want {
		w := &f.want[i]
		w.part = nil
		if w.topic, w.err = f.s.resolve(f.req.Version >= 13, w.ID, w.Name); w.err != nil {
			continue
		}
		w.part, w.err = f.s.partition(open, w.topic, w.Key.Partition, w.CurrentLeaderEpoch)
	}
}

// wait returns when there is enough to answer with, an error to tell, or no
// more time. It is woken by commits alone.
func (f *fetch) wait(ctx context.Context) {
	wait := timeout(f.req.MaxWaitMillis, fetchWaitMax)
	if wait <= 0 || len(f.want) == 0 || f.ready() {
		return
	}
	wake := make(chan struct{}, 1)
	for i := range f.want {
		defer f.want[i].part.Subscribe(wake)()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for !f.ready() { // looked at again after subscribing: nothing is missed
		select {
		case <-wake:
		case <-timer.C:
			return
		case <-f.s.drain.Done():
			return
		case <-ctx.Done():
			return
		}
		before := slices.Clone(f.want)
		f.resolve(ctx) // leadership may have moved
		for i := range before {
			if before[i].part != f.want[i].part {
				return // led anew: the subscription is to what was before
			}
		}
	}
}

// ready reports whether an answer would carry min bytes, or news of another
// kind.
func (f *fetch) ready() bool {
	var sum int64
	for i := range f.want {
		w := &f.want[i]
		if w.err != nil {
			return true
		}
		o := w.part.Offsets()
		if w.FetchOffset < o.LogStart || w.FetchOffset > o.HighWatermark || f.diverges(w) {
			return true
		}
		if w.FetchOffset < f.end(o) {
			sum += f.available(w)
		}
	}
	return sum >= int64(f.req.MinBytes)
}

// end is the offset up to which this fetch may read.
func (f *fetch) end(o tiering.Offsets) int64 {
	if f.committed() {
		return o.LastStable
	}
	return o.HighWatermark
}

// committed reports whether the client reads committed records alone.
func (f *fetch) committed() bool { return f.req.IsolationLevel == 1 }

// available is about how many bytes there are to read, as far as they are asked for.
func (f *fetch) available(w *wanted) int64 {
	limit := int64(max(w.MaxBytes, 0))
	if f.committed() {
		return w.part.AvailableCommitted(w.FetchOffset, limit)
	}
	return w.part.Available(w.FetchOffset, limit)
}

// diverges reports whether the client's log, as its last fetched epoch tells,
// is not a prefix of ours (KIP-595).
func (f *fetch) diverges(w *wanted) bool {
	if f.req.Version < 12 || w.LastFetchedEpoch < 0 {
		return false
	}
	if w.LastFetchedEpoch == w.part.LeaderEpoch() {
		return false
	}
	end := w.part.EpochEnd(w.LastFetchedEpoch)
	return end.Epoch < w.LastFetchedEpoch || end.End < w.FetchOffset
}

// respond fills in the response, leaving out what an incremental one need not
// repeat.
func (f *fetch) respond(resp *kmsg.FetchResponse) {
	var ends endpoints
	index := map[fetchsession.Key]int{} // of topics; Partition is 0
	for i := range f.want {
		w := &f.want[i]
		p := f.partition(w, &ends)
		if f.session != nil {
			news := f.session.Told(w.Key, fetchsession.Answer{Failed: p.ErrorCode != 0, Diverging: w.diverging != nil,
				Bytes: len(p.RecordBatches), HighWatermark: p.HighWatermark, LogStart: p.LogStartOffset})
			if f.incremental && !news {
				continue
			}
		}
		k := fetchsession.Key{ID: w.ID, Name: w.Name}
		at, ok := index[k]
		if !ok {
			at = len(resp.Topics)
			index[k] = at
			t := kmsg.NewFetchResponseTopic()
			t.Topic, t.TopicID = w.Name, w.ID
			resp.Topics = append(resp.Topics, t)
		}
		resp.Topics[at].Partitions = append(resp.Topics[at].Partitions, p)
	}
	if f.req.Version >= 16 {
		for _, b := range ends.brokers {
			e := kmsg.NewFetchResponseBroker()
			e.NodeID, e.Host, e.Port, e.Rack = b.ID, b.Host, b.Port, rack(b)
			resp.Brokers = append(resp.Brokers, e)
		}
	}
}

// abortedIn lists aborted transactions, never as null: none were.
func abortedIn(list []wal.AbortedTxn) []kmsg.FetchResponseTopicPartitionAbortedTransaction {
	out := make([]kmsg.FetchResponseTopicPartitionAbortedTransaction, len(list))
	for i, t := range list {
		out[i].ProducerID, out[i].FirstOffset = t.ProducerID, t.First
	}
	return out
}

// partition makes one partition of the response. Without records the field is
// empty, not null: some clients take null for a broken length.
func (f *fetch) partition(w *wanted, ends *endpoints) kmsg.FetchResponseTopicPartition {
	p := kmsg.NewFetchResponseTopicPartition()
	p.Partition = w.Key.Partition
	p.PreferredReadReplica = -1
	p.RecordBatches = []byte{}
	p.HighWatermark, p.LastStableOffset, p.LogStartOffset = -1, -1, -1
	if w.err != nil {
		p.ErrorCode = f.r.code(w.err)
		if l, ok := f.s.hint(w.topic, p.Partition, p.ErrorCode); ok && f.req.Version >= 12 {
			p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = l.broker.ID, l.epoch
			ends.add(l.broker)
		}
		return p
	}
	p.HighWatermark = w.offsets.HighWatermark
	p.LastStableOffset = w.offsets.LastStable
	p.LogStartOffset = w.offsets.LogStart
	if f.committed() {
		p.AbortedTransactions = abortedIn(w.read.Aborted)
	}
	if w.diverging != nil {
		p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = w.diverging.Epoch, w.diverging.End
		return p
	}
	if len(w.read.Records) > 0 {
		p.RecordBatches = w.read.Records
	}
	return p
}
