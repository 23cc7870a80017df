package metadata

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// View is a local copy of the brokers, the controller, topics, partitions,
// coordinators and dynamic configs, kept by list and watch. It is a hint, late
// by at least a round trip: whatever must be right is read again, or guarded by
// the revision the View gives.
//
// What readers may rely on: the changes of one prefix (topics, or partitions,
// ...) are applied in the store's order, and those of one transaction at once.
// Between prefixes there is no order, so a topic may be seen before its
// partitions, or an assignment before the broker it names; WaitRevision is the
// way to see everything up to a revision. What accessors return is immutable.
//
// A change costs time in proportion to the change, not to the cluster.
type View struct {
	kv  KV
	log *slog.Logger

	// mu guards everything below. It is never held across a call to the store
	// or to a subscriber.
	mu    sync.RWMutex
	parts []*viewPart
	// moved is closed and replaced when a part's revision moves.
	moved chan struct{}
	ready chan struct{} // closed once every part has been listed

	brokers      map[Incarnation]*Broker
	brokerOrder  []Broker // by id; nil: to be built
	controller   *Controller
	topics       map[TopicID]*Topic
	topicNames   map[string]*Topic
	topicOrder   []*Topic // by name; nil: to be built
	partitions   map[TopicPartition]partitionEntry
	coordinators map[int]coordinatorEntry
	configs      map[string]map[string]string // by key

	subscribers map[chan struct{}]bool
	changes     map[*PartitionChanges]bool
}

type partitionEntry struct {
	p   *Partition
	rev int64
}

type coordinatorEntry struct {
	c   Coordinator
	rev int64
}

// NewView returns an empty View; Run fills it.
func NewView(kv KV, log *slog.Logger) *View {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	v := &View{
		kv: kv, log: log,
		moved: make(chan struct{}), ready: make(chan struct{}),
		brokers:      make(map[Incarnation]*Broker),
		topics:       make(map[TopicID]*Topic),
		topicNames:   make(map[string]*Topic),
		partitions:   make(map[TopicPartition]partitionEntry),
		coordinators: make(map[int]coordinatorEntry),
		configs:      make(map[string]map[string]string),
		subscribers:  make(map[chan struct{}]bool),
		changes:      make(map[*PartitionChanges]bool),
	}
	v.parts = v.newParts()
	return v
}

// WaitReady returns once everything has been listed once.
func (v *View) WaitReady(ctx context.Context) error {
	select {
	case <-v.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Revision returns the revision up to which every change has been applied. It
// lags where nothing changes; WaitRevision asks.
func (v *View) Revision() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.revisionLocked()
}

func (v *View) revisionLocked() int64 {
	rev := v.parts[0].revision
	for _, p := range v.parts[1:] {
		rev = min(rev, p.revision)
	}
	return rev
}

// WaitRevision returns once the View has applied everything up to rev, which
// must be a revision the store has reached.
func (v *View) WaitRevision(ctx context.Context, rev int64) error {
	const askAgain = 200 * time.Millisecond // a watch not yet in step ignores the first question
	var asked time.Time
	for {
		v.mu.RLock()
		reached, moved := v.revisionLocked() >= rev, v.moved
		v.mu.RUnlock()
		if reached {
			return nil
		}
		if time.Since(asked) >= askAgain {
			asked = time.Now()
			_ = v.kv.Progress(ctx) // asked again soon
		}
		if err := v.waitMoved(ctx, moved, askAgain); err != nil {
			return err
		}
	}
}

func (v *View) waitMoved(ctx context.Context, moved <-chan struct{}, atMost time.Duration) error {
	t := time.NewTimer(atMost)
	defer t.Stop()
	select {
	case <-moved:
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Brokers returns the registered brokers by id.
func (v *View) Brokers() []Broker {
	v.mu.RLock()
	order := v.brokerOrder
	v.mu.RUnlock()
	if order == nil {
		v.mu.Lock()
		if v.brokerOrder == nil {
			v.brokerOrder = v.sortBrokersLocked()
		}
		order = v.brokerOrder
		v.mu.Unlock()
	}
	return slices.Clone(order)
}

func (v *View) sortBrokersLocked() []Broker {
	order := make([]Broker, 0, len(v.brokers))
	for _, b := range v.brokers {
		order = append(order, *b)
	}
	slices.SortFunc(order, func(a, b Broker) int { return int(a.ID) - int(b.ID) })
	return order
}

// Broker returns a registered broker.
func (v *View) Broker(i Incarnation) (Broker, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	b, ok := v.brokers[i]
	if !ok {
		return Broker{}, false
	}
	return *b, true
}

// BrokerByID returns the registered broker with this id. Should two show up for
// a moment, because one took over the other's id, it is the younger one.
func (v *View) BrokerByID(id int32) (Broker, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var found *Broker
	for _, b := range v.brokers {
		if b.ID == id && (found == nil || b.Incarnation > found.Incarnation) {
			found = b
		}
	}
	if found == nil {
		return Broker{}, false
	}
	return *found, true
}

// Controller returns the elected controller, if there is one.
func (v *View) Controller() (Controller, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.controller == nil {
		return Controller{}, false
	}
	return *v.controller, true
}

// Topic returns a topic by name.
func (v *View) Topic(name string) (*Topic, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	t, ok := v.topicNames[name]
	return t, ok
}

// TopicByID returns a topic by id.
func (v *View) TopicByID(id TopicID) (*Topic, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	t, ok := v.topics[id]
	return t, ok
}

// Topics returns all topics by name. The caller must not change the slice.
func (v *View) Topics() []*Topic {
	v.mu.RLock()
	order := v.topicOrder
	v.mu.RUnlock()
	if order != nil {
		return order
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.topicOrder == nil {
		v.topicOrder = slices.AppendSeq(make([]*Topic, 0, len(v.topicNames)), maps.Values(v.topicNames))
		slices.SortFunc(v.topicOrder, func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
	}
	return v.topicOrder
}

// Partition returns a partition.
func (v *View) Partition(tp TopicPartition) (*Partition, bool) {
	p, _, ok := v.PartitionEntry(tp)
	return p, ok
}

// PartitionEntry returns a partition and the revision it was last modified at,
// for the guard of a transaction.
func (v *View) PartitionEntry(tp TopicPartition) (p *Partition, modRevision int64, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	e, ok := v.partitions[tp]
	return e.p, e.rev, ok
}

// Partitions calls f with every partition, in no order, until it returns false.
// It is the state of one moment; f may call the View.
func (v *View) Partitions(f func(tp TopicPartition, p *Partition) bool) {
	type pair struct {
		tp TopicPartition
		p  *Partition
	}
	v.mu.RLock()
	all := make([]pair, 0, len(v.partitions))
	for tp, e := range v.partitions {
		all = append(all, pair{tp, e.p})
	}
	v.mu.RUnlock()
	for _, it := range all {
		if !f(it.tp, it.p) {
			return
		}
	}
}

// Coordinator returns the owner of a coordinator shard and the revision of its
// key, which guards what the owner writes.
func (v *View) Coordinator(shard int) (c Coordinator, modRevision int64, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	e, ok := v.coordinators[shard]
	return e.c, e.rev, ok
}

// Config returns the dynamic configs of a resource, nil when there are none.
// The map is immutable.
func (v *View) Config(kind, name string) map[string]string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.configs[ConfigKey(kind, name)]
}
