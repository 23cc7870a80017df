package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
)

// Peers is how the brokers of the cluster are asked in Kafka's protocol, this one
// among them.
type Peers interface {
	// Request sends a request of the version it names and returns the answer.
	// After an error it may have been carried out, or may be later.
	Request(ctx context.Context, to metadata.Broker, req kmsg.Request) (kmsg.Response, error)
}

const (
	// markerTimeout bounds one request with markers. Their fate is then unknown,
	// and they are sent again: a marker that is there already is not written twice.
	markerTimeout = 10 * time.Second
	// markerRequests go to a broker at a time. What comes meanwhile shares the
	// next, up to so many partitions.
	markerRequests      = 2
	markerPartitionsMax = 4096
)

// marker is the end of a transaction, wherever it is told.
type marker struct {
	producer txn.Producer
	epoch    int32 // of the coordinator
	commit   bool
	version  int8
}

// markers sends markers to the leaders of partitions, those of many transactions
// in one request.
type markers struct {
	c *Coordinator

	mu    sync.Mutex
	dests map[metadata.Incarnation]*markerDest
}

// markerDest is a broker that markers are being sent to.
type markerDest struct {
	broker   metadata.Broker
	queue    []*markerItem
	inflight int
}

// markerItem is a transaction's marker for some partitions of one leader.
type markerItem struct {
	marker     marker
	topics     map[string][]metadata.TopicPartition
	partitions int
	left       []metadata.TopicPartition // valid once done is closed
	done       chan struct{}
}

// send sends a marker to every partition and returns those that may not have it.
func (m *markers) send(ctx context.Context, mk marker, partitions []metadata.TopicPartition) []metadata.TopicPartition {
	var left []metadata.TopicPartition
	missing := map[metadata.TopicID][]metadata.TopicPartition{}
	items := map[metadata.Incarnation]*markerItem{}
	brokers := map[metadata.Incarnation]metadata.Broker{}
	for _, tp := range partitions {
		name, b, err := m.c.leader(tp)
		switch {
		case errors.Is(err, errNoTopic):
			missing[tp.Topic] = append(missing[tp.Topic], tp)
			continue
		case err != nil:
			left = append(left, tp)
			continue
		}
		it := items[b.Incarnation]
		if it == nil {
			it = &markerItem{marker: mk, topics: map[string][]metadata.TopicPartition{}, done: make(chan struct{})}
			items[b.Incarnation], brokers[b.Incarnation] = it, b
		}
		it.topics[name] = append(it.topics[name], tp)
		it.partitions++
	}
	for inc, it := range items {
		m.enqueue(brokers[inc], it)
	}
	for _, it := range items {
		<-it.done // closed within markerTimeout of its turn
		left = append(left, it.left...)
	}
	for topic, list := range missing { // last: the store may not answer
		if !m.c.gone(ctx, topic) {
			left = append(left, list...)
		}
	}
	return left
}

var (
	errNoTopic  = errors.New("the view has no such topic")
	errNoLeader = errors.New("no leader")
)

// leader tells a partition's topic and who leads it, as far as the view knows.
func (c *Coordinator) leader(tp metadata.TopicPartition) (string, metadata.Broker, error) {
	var owner metadata.Incarnation
	name := metadata.OffsetsTopic
	if tp.Topic == offsetsTopicID {
		o, _, ok := c.cfg.View.Coordinator(int(tp.Partition))
		if !ok {
			return "", metadata.Broker{}, errNoLeader
		}
		owner = o.Incarnation
	} else {
		t, ok := c.cfg.View.TopicByID(tp.Topic)
		if !ok {
			return "", metadata.Broker{}, errNoTopic
		}
		p, ok := c.cfg.View.Partition(tp)
		if !ok {
			return "", metadata.Broker{}, errNoLeader
		}
		o, ok := p.Newest()
		if !ok {
			return "", metadata.Broker{}, errNoLeader
		}
		name, owner = t.Name, o.Incarnation
	}
	b, ok := c.cfg.View.Broker(owner)
	if !ok {
		return "", metadata.Broker{}, errNoLeader
	}
	return name, b, nil
}

// gone tells whether a topic that the view does not have was deleted: that is the
// store's word, for the view may be behind.
func (c *Coordinator) gone(ctx context.Context, topic metadata.TopicID) bool {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
	defer cancel()
	entries, _, err := c.cfg.KV.Get(ctx, metadata.TopicKey(topic))
	return err == nil && !entries[0].Exists()
}

func (m *markers) enqueue(b metadata.Broker, it *markerItem) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dests[b.Incarnation]
	if d == nil {
		d = &markerDest{broker: b}
		m.dests[b.Incarnation] = d
	}
	d.queue = append(d.queue, it)
	m.start(d)
}

func (m *markers) start(d *markerDest) {
	for d.inflight < markerRequests && len(d.queue) > 0 {
		n, partitions := 0, 0
		for n < len(d.queue) && (n == 0 || partitions+d.queue[n].partitions <= markerPartitionsMax) {
			partitions += d.queue[n].partitions
			n++
		}
		items := d.queue[:n:n]
		if d.queue = d.queue[n:]; len(d.queue) == 0 {
			d.queue = nil
		}
		if !m.c.spawn(func() { m.request(d, items) }) {
			for _, it := range items {
				it.give()
			}
			continue
		}
		d.inflight++
	}
	if d.inflight == 0 && len(d.queue) == 0 {
		delete(m.dests, d.broker.Incarnation)
	}
}

// give tells that no partition is known to have the marker.
func (it *markerItem) give() {
	it.left = nil
	for _, list := range it.topics {
		it.left = append(it.left, list...)
	}
	close(it.done)
}

// request sends one request and tells its items.
func (m *markers) request(d *markerDest, items []*markerItem) {
	codes, err := m.ask(d.broker, items)
	for _, it := range items {
		if err != nil {
			it.give()
			continue
		}
		for name, list := range it.topics {
			for _, tp := range list {
				if !m.told(d.broker, it, name, tp, codes) {
					it.left = append(it.left, tp)
				}
			}
		}
		close(it.done)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d.inflight--
	m.start(d)
}

// markedKey is a partition in the answer to markers: each producer has one
// transaction.
type markedKey struct {
	producer  int64
	topic     string
	partition int32
}

func (m *markers) ask(to metadata.Broker, items []*markerItem) (map[markedKey]int16, error) {
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	req.Version = 2
	for _, it := range items {
		mk := kmsg.NewWriteTxnMarkersRequestMarker()
		mk.ProducerID, mk.ProducerEpoch, mk.Committed = it.marker.producer.ID, it.marker.producer.Epoch, it.marker.commit
		mk.CoordinatorEpoch, mk.TransactionVersion = it.marker.epoch, it.marker.version
		for name, list := range it.topics {
			t := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
			t.Topic = name
			for _, tp := range list {
				t.Partitions = append(t.Partitions, tp.Partition)
			}
			mk.Topics = append(mk.Topics, t)
		}
		req.Markers = append(req.Markers, mk)
	}
	ctx, cancel := context.WithTimeout(m.c.life.ctx, markerTimeout)
	defer cancel()
	m.c.metrics.markerRequests.Inc()
	resp, err := m.c.cfg.Peers.Request(ctx, to, req)
	if err != nil {
		m.c.log.Debug("markers were not answered", slog.Int("broker", int(to.ID)), slog.Any(logError, err))
		return nil, err
	}
	r, ok := resp.(*kmsg.WriteTxnMarkersResponse)
	if !ok {
		return nil, errors.New("an answer to something else")
	}
	codes := map[markedKey]int16{}
	for _, mk := range r.Markers {
		for _, t := range mk.Topics {
			for _, p := range t.Partitions {
				codes[markedKey{mk.ProducerID, t.Topic, p.Partition}] = p.ErrorCode
			}
		}
	}
	return codes, nil
}

// told reports whether the partition has nothing left of the transaction.
func (m *markers) told(by metadata.Broker, it *markerItem, name string, tp metadata.TopicPartition, codes map[markedKey]int16) bool {
	code, answered := codes[markedKey{it.marker.producer.ID, name, tp.Partition}]
	err := kerr.ErrorForCode(code)
	switch {
	case !answered:
		return false
	case err == nil:
		m.c.metrics.markers.WithLabelValues("ok").Inc()
		return true
	case errors.Is(err, kerr.InvalidProducerEpoch):
		// The producer writes under a higher epoch there, which a partition lets it
		// only when nothing of a lower one is open. If this broker is not the
		// coordinator any more, it cannot store what it concludes.
		m.c.metrics.markers.WithLabelValues("passed").Inc()
		return true
	}
	m.c.metrics.markers.WithLabelValues("error").Inc()
	m.c.log.Debug("a marker was refused", slog.Int("broker", int(by.ID)), slog.String("topic", name),
		slog.Int("partition", int(tp.Partition)), slog.Int64(logProducer, it.marker.producer.ID), slog.Any(logError, err))
	return false
}
