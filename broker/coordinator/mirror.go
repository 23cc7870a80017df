package coordinator

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/broker/internal/offsetrecord"
	"github.com/tidemark-io/tidemark/metadata"
)

// OffsetsLog is the topic __consumer_offsets in the log, for those who read it.
type OffsetsLog interface {
	// Create makes the topic if it does not exist.
	Create(ctx context.Context) error
	// Led returns the epoch in which this broker leads the shard's partition.
	Led(shard int) (epoch int32, ok bool)
	// Append appends a record batch to it and does not wait for the commit.
	// After an error nothing was appended.
	Append(ctx context.Context, shard int, records []byte) error
}

const (
	// mirrorPendingMax bounds the records of a shard that wait to be copied.
	// Beyond, everything is copied instead.
	mirrorPendingMax = 4096
	// mirrorBatchBytes is how large the batches of a copy are.
	mirrorBatchBytes = 256 << 10
	// mirrorTimeout bounds one call to the log.
	mirrorTimeout = 10 * time.Second
)

// mirror copies what is committed into the OffsetsLog. The store is the truth
// and the log a copy: a commit is copied after it is durable, at most
// MirrorInterval later, the last one of a partition standing for those before
// it. Whenever a shard begins to be coordinated here, and again every
// MirrorRefresh, everything it has is copied once more. So whatever a failure
// kept from the log comes later, and a reader finds every offset in what the
// topic's retention keeps.
type mirror struct {
	c      *Coordinator
	poked  chan struct{}
	mu     sync.Mutex // taken after a shard's
	shards [metadata.GroupShards]mirrored
}

// mirrored is what is to be copied of one shard.
type mirrored struct {
	pending map[mirrorKey]mirrorValue
	order   []mirrorKey
	// whole: everything is to be copied.
	whole bool
	// term and epoch are the shard's and the partition's that the last whole
	// copy was made in, at the time wholeAt.
	term    uint64
	epoch   int32
	wholeAt time.Time
}

// mirrorKey names a partition's offset or, with the zero topic, a group.
type mirrorKey struct {
	group     string
	topic     metadata.TopicID
	name      string
	partition int32
}

// mirrorValue is an offset or a classic group; neither is a tombstone. Both are
// values that do not change.
type mirrorValue struct {
	offset *offset
	group  *group.Snapshot
}

func (m *mirror) on() bool { return m.c.cfg.OffsetsLog != nil }

// note has a change copied. The shard's lock is held.
func (m *mirror) note(shard int, k mirrorKey, v mirrorValue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.shards[shard]
	if s.whole {
		return
	}
	if s.pending == nil {
		s.pending = map[mirrorKey]mirrorValue{}
	}
	if _, again := s.pending[k]; !again {
		s.order = append(s.order, k)
	}
	if s.pending[k] = v; len(s.order) > mirrorPendingMax {
		s.pending, s.order, s.whole = nil, nil, true
	}
	m.poke()
}

// offsets notes a chunk's changes.
func (m *mirror) offsets(sh *shard, groupID string, topic metadata.TopicID, parts map[int32]*offset) {
	if !m.on() {
		return
	}
	t, ok := m.c.cfg.View.TopicByID(topic)
	if !ok {
		return
	}
	for p, o := range parts {
		m.note(sh.id, mirrorKey{group: groupID, topic: topic, name: t.Name, partition: p}, mirrorValue{offset: o})
	}
}

// group notes a group's new state, or nil for none: a consumer group has no
// record that old tools could read.
func (m *mirror) group(sh *shard, groupID string, s *group.Snapshot) {
	if m.on() {
		m.note(sh.id, mirrorKey{group: groupID}, mirrorValue{group: s})
	}
}

// gone notes that a group was deleted with everything it had.
func (m *mirror) gone(sh *shard, e *entry) {
	for id, ch := range e.chunks {
		parts := make(map[int32]*offset, len(ch.parts))
		for p, at := range ch.parts {
			if at.offset != nil {
				parts[p] = nil
			}
		}
		m.offsets(sh, e.id, id.topic, parts)
	}
	m.group(sh, e.id, nil)
}

// copyWhole has everything of the shards copied that due says.
func (m *mirror) copyWhole(due func(shard int, s *mirrored) bool) {
	if !m.on() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.shards {
		if s := &m.shards[i]; due(i, s) {
			s.pending, s.order, s.whole = nil, nil, true
			m.poke()
		}
	}
}

// began notes that a shard's groups have been loaded. Its lock is held.
func (m *mirror) began(sh *shard) {
	if len(sh.groups) > 0 {
		m.copyWhole(func(shard int, _ *mirrored) bool { return shard == sh.id })
	}
}

// refresh has old copies made again.
func (m *mirror) refresh(now time.Time) {
	m.copyWhole(func(_ int, s *mirrored) bool {
		return !s.wholeAt.IsZero() && now.Sub(s.wholeAt) >= m.c.cfg.MirrorRefresh
	})
}

func (m *mirror) poke() {
	select {
	case m.poked <- struct{}{}:
	default:
	}
}

// run copies until ctx ends. While nothing is committed it only waits.
func (m *mirror) run(ctx context.Context) {
	for {
		select {
		case <-m.poked:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(m.c.cfg.MirrorInterval):
		case <-ctx.Done():
			return
		}
		left := false
		for i := range m.shards {
			left = !m.copyShard(ctx, i) || left
		}
		if left {
			m.poke() // the partition is not led here yet, or the log is in trouble
		}
	}
}

// copyShard copies what there is to copy and reports whether nothing is left.
func (m *mirror) copyShard(ctx context.Context, shard int) bool {
	if !m.wanted(shard) {
		return true
	}
	log := m.c.cfg.OffsetsLog
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	epoch, led := log.Led(shard)
	if !led {
		if err := log.Create(ctx); err != nil {
			m.c.log.Warn("could not make the topic of offsets", slog.Any(logError, err))
		}
		return false
	}
	records, ok := m.take(shard, epoch)
	if !ok {
		return true
	}
	for _, b := range offsetrecord.Batches(records, mirrorBatchBytes) {
		if err := log.Append(ctx, shard, b); err != nil {
			m.c.log.Warn("could not copy offsets", slog.Int(logShard, shard), slog.Any(logError, err))
			m.copyWhole(func(i int, _ *mirrored) bool { return i == shard })
			return false
		}
	}
	m.c.metrics.mirrored.Add(float64(len(records)))
	return true
}

// wanted tells whether the shard has something to copy; what one has that is
// not coordinated here is dropped.
func (m *mirror) wanted(shard int) bool {
	sh := &m.c.shards[shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.shards[shard]
	if sh.state != shardActive {
		*s = mirrored{}
	}
	return s.whole || len(s.order) > 0
}

// take returns the records to append in the partition's epoch.
func (m *mirror) take(shard int, epoch int32) ([]offsetrecord.Record, bool) {
	sh := &m.c.shards[shard]
	sh.mu.Lock()
	m.mu.Lock()
	s := &m.shards[shard]
	if sh.state != shardActive {
		*s = mirrored{}
		m.mu.Unlock()
		sh.mu.Unlock()
		return nil, false
	}
	order, pending := s.order, s.pending
	if s.whole || s.term != sh.term || s.epoch != epoch {
		order, pending = sh.everything(order, pending)
		s.term, s.epoch, s.wholeAt = sh.term, epoch, time.Now()
	}
	s.order, s.pending, s.whole = nil, nil, false
	m.mu.Unlock()
	sh.mu.Unlock()
	records := make([]offsetrecord.Record, 0, len(order))
	for _, k := range order {
		records = append(records, k.record(pending[k]))
	}
	return records, true
}

// everything adds what the shard's groups have. The shard's lock is held.
func (sh *shard) everything(order []mirrorKey, all map[mirrorKey]mirrorValue) ([]mirrorKey, map[mirrorKey]mirrorValue) {
	if all == nil {
		all = map[mirrorKey]mirrorValue{}
	}
	put := func(k mirrorKey, v mirrorValue) {
		if _, known := all[k]; !known {
			order = append(order, k)
		}
		all[k] = v
	}
	for id, e := range sh.groups {
		if e.written != nil && e.written.classic != nil {
			put(mirrorKey{group: id}, mirrorValue{group: e.written.classic})
		}
		for cid, ch := range e.chunks {
			t, ok := sh.c.cfg.View.TopicByID(cid.topic)
			if !ok {
				continue
			}
			for p, at := range ch.parts {
				if at.offset != nil {
					put(mirrorKey{group: id, topic: cid.topic, name: t.Name, partition: p}, mirrorValue{offset: at.offset})
				}
			}
		}
	}
	return order, all
}

func (k mirrorKey) record(v mirrorValue) offsetrecord.Record {
	r := offsetrecord.Record{Time: time.Now()}
	if k.topic.IsZero() {
		r.Key = offsetrecord.GroupKey(k.group)
		if v.group != nil {
			r.Value = groupValue(v.group)
		}
		return r
	}
	r.Key = offsetrecord.OffsetKey(k.group, k.name, k.partition)
	if o := v.offset; o != nil {
		ro := offsetrecord.Offset{Offset: o.offset, LeaderEpoch: o.epoch, Metadata: o.metadata, Committed: o.at, Expires: o.expires}
		r.Value = ro.Value()
	}
	return r
}

func groupValue(s *group.Snapshot) []byte {
	v := kmsg.NewGroupMetadataValue()
	v.ProtocolType, v.Generation, v.Protocol = s.ProtocolType, s.Generation, s.Protocol
	v.CurrentStateTimestamp = s.Since.UnixMilli()
	if s.Leader != "" {
		v.Leader = &s.Leader
	}
	for i := range s.Members {
		m := &s.Members[i]
		vm := kmsg.NewGroupMetadataValueMember()
		vm.MemberID, vm.InstanceID, vm.ClientID, vm.ClientHost = m.ID, m.Instance, m.ClientID, m.ClientHost
		vm.RebalanceTimeoutMillis, vm.SessionTimeoutMillis = int32(m.RebalanceTimeout.Milliseconds()), int32(m.SessionTimeout.Milliseconds())
		vm.Assignment = m.Assignment
		for _, p := range m.Protocols {
			if s.Protocol != nil && p.Name == *s.Protocol {
				vm.Subscription = p.Metadata
			}
		}
		v.Members = append(v.Members, vm)
	}
	return offsetrecord.GroupValue(&v)
}
