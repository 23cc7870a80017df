package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/internal/fetchsession"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/seeded"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

const (
	// fetchWaitMax bounds the wait a client may ask for.
	fetchWaitMax = 5 * time.Minute
	// authorityMax is how old the proof of leadership behind an answer "there
	// is nothing more" may be.
	authorityMax = time.Second
	// fetchFloor is what a fetch is content with when memory is short.
	fetchFloor = 1 << 20
	// fetchSlack is taken beyond what is estimated, as batches are read whole.
	fetchSlack = 64 << 10
)

// fetch is one fetch request at work.
type fetch struct {
	s    *Server
	r    *Request
	req  *kmsg.FetchRequest
	want []wanted
	// session is nil for requests before sessions (v7) and without one.
	session     *fetchsession.Session
	incremental bool
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
	atEnd     bool // nothing to read: the answer rests on being the leader
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

// budget takes memory for the response from what all fetches share. It returns
// the bytes that may be read.
func (f *fetch) budget(ctx context.Context) (int, error) {
	n := f.need(int64(max(0, min(f.req.MaxBytes, f.s.cfg.FetchBytesMax))))
	if f.s.fetchBytes.TryAcquire(n) {
		return int(n), nil
	}
	n = min(n, fetchFloor)
	return int(n), f.s.fetchBytes.Acquire(ctx, n)
}

// need is about how many bytes there are to read, at most limit. Memory is kept
// until the response is sent, so what a fetch may use at most would let a few
// slow readers keep out everybody who is at the end of the log.
func (f *fetch) need(limit int64) int64 {
	n := int64(fetchSlack)
	for i := range f.want {
		if w := &f.want[i]; w.err == nil && n < limit {
			n += f.available(w)
		}
	}
	return min(n, limit)
}

// readAll reads every partition in order until the response is full. The first
// that has anything yields at least one batch, so that a batch above the limits
// is not a dead end.
func (f *fetch) readAll(ctx context.Context) {
	granted, err := f.budget(ctx)
	if err != nil {
		for i := range f.want {
			f.want[i].err = err
		}
		return
	}
	left, first := granted, true
	for i := range f.want {
		w := &f.want[i]
		if w.err != nil {
			continue
		}
		w.err = f.readOne(ctx, w, left, first)
		if n := len(w.read.Records); n > 0 {
			left, first = max(0, left-n), false
		}
	}
	f.settle(ctx, int64(granted))
	f.prove(ctx)
}

// settle gives back what was taken and not used, and the rest when the response
// is gone. A first batch may exceed the limit; the overrun is not accounted.
func (f *fetch) settle(_ context.Context, granted int64) {
	var used int64
	for i := range f.want {
		used += int64(len(f.want[i].read.Records))
		f.r.hold(f.want[i].read.Release)
	}
	f.s.metrics.records.WithLabelValues("out").Add(float64(used))
	used = min(used, granted)
	f.s.fetchBytes.Release(granted - used)
	if used > 0 {
		f.r.hold(func() { f.s.fetchBytes.Release(used) })
	}
}

// readOne reads one partition: at most its own limit and what is left.
func (f *fetch) readOne(ctx context.Context, w *wanted, left int, first bool) error {
	w.offsets = w.part.Offsets()
	if f.diverges(w) {
		return f.divergence(ctx, w)
	}
	limit := min(int(max(w.MaxBytes, 0)), left)
	o := w.offsets
	if w.FetchOffset >= o.LogStart && w.FetchOffset <= o.HighWatermark && limit == 0 && !first {
		return nil
	}
	if w.FetchOffset >= f.end(o) && w.FetchOffset <= o.HighWatermark {
		w.atEnd = true
		return nil
	}
	read := w.part.Read
	if f.committed() {
		read = w.part.ReadCommitted
	}
	got, err := read(ctx, w.FetchOffset, limit)
	if errors.Is(err, tiering.ErrOffsetOutOfRange) {
		return f.outOfRange(ctx, err)
	}
	if err != nil {
		return err
	}
	w.offsets = got.Offsets
	w.atEnd = len(got.Records) == 0
	if len(got.Records) > limit && !first {
		if got.Release != nil {
			got.Release()
		}
		return nil // the next fetch begins with it
	}
	w.read = *got
	return nil
}

// outOfRange confirms that this broker may say so: clients reset their position
// on it, so a deposed leader must not.
func (f *fetch) outOfRange(ctx context.Context, err error) error {
	if seeded.OutOfRangeUnproven {
		return err
	}
	if unproven := f.s.cfg.Log.Check(ctx, 0); unproven != nil {
		return unproven
	}
	return err
}

// divergence tells the client where its log leaves ours.
func (f *fetch) divergence(ctx context.Context, w *wanted) error {
	end := w.part.EpochEnd(w.LastFetchedEpoch)
	if err := f.s.cfg.Log.Check(ctx, 0); err != nil {
		return err
	}
	if end.Epoch < 0 {
		return refuse(kerr.OffsetOutOfRange, "the end of epoch %d is not known", w.LastFetchedEpoch)
	}
	w.diverging = &end
	return nil
}

// prove makes sure that "there is nothing more" comes from the leader: a
// deposed one would keep consumers waiting at an old end.
func (f *fetch) prove(ctx context.Context) {
	var err error
	checked := false
	for i := range f.want {
		w := &f.want[i]
		if !w.atEnd || w.err != nil {
			continue
		}
		if !checked {
			err, checked = f.s.cfg.Log.Check(ctx, authorityMax), true
		}
		w.err = err
	}
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
