package coordinator

import (
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/metadata"
)

// machine is what groups of both protocols have in common.
type machine interface {
	Vacant() bool
	Deadline() (time.Time, bool)
	Subscribed(topic string) bool
	OffsetExpired(now time.Time, topic string, committed, expires time.Time, retention time.Duration) bool
	DeleteOffsets() *kerr.Error
	Delete(now time.Time) *kerr.Error
	Undelete(now time.Time)
}

var (
	_ machine = (*group.Group)(nil)
	_ machine = (*consumer.Group)(nil)
)

func (e *entry) machine() machine {
	if e.k != nil {
		return e.k
	}
	return e.g
}

// dead tells that the group is being deleted.
func (e *entry) dead() bool {
	if e.k != nil {
		return e.k.State() == consumer.StateDead
	}
	return e.g.State() == group.Dead
}

// state is the group's state and type as tools know them.
func (e *entry) state() (state, kind string) {
	if e.k != nil {
		return string(e.k.State()), consumerType
	}
	return e.g.State().String(), typeClassic
}

func (e *entry) protocolType() string {
	if e.k != nil {
		return consumerType
	}
	return e.g.ProtocolType()
}

// handleConsumer carries out what an event of the consumer group e asks for. It
// returns the number of the newest snapshot, which contains all that a reply to
// the event reveals.
func (sh *shard) handleConsumer(e *entry, eff consumer.Effects) uint64 {
	sh.c.metrics.effects(group.Effects{Rebalances: eff.Rebalances, Completed: eff.Completed})
	if eff.Downgrade {
		return sh.downgrade(e)
	}
	if eff.Persist != 0 {
		e.issued++
		e.changed = true
	}
	if len(eff.Resolve) > 0 {
		term, k := sh.term, e.k
		sh.c.spawn(func() { sh.resolve(term, e, k, eff.Resolve) })
	}
	seq := e.issued
	sh.advance(e)
	sh.arm(e)
	return seq
}

// downgrade makes a classic group of a consumer group that has only classic
// members left.
func (sh *shard) downgrade(e *entry) uint64 {
	sh.c.log.Info("a consumer group becomes a classic group", slog.String(logGroup, e.id))
	g, eff := group.Adopt(e.id, &sh.c.cfg.Group, e.k.ToClassic(), time.Now())
	e.g, e.k, e.changed = g, nil, false
	return sh.handle(e, eff)
}

// upgrade makes a consumer group of a classic one, for a member of the new
// protocol that joins it.
func (sh *shard) upgrade(e *entry, img *consumer.Image, now time.Time) *kerr.Error {
	if e.g.State() == group.Dead {
		return kerr.CoordinatorNotAvailable
	}
	if e.g.State() == group.Empty {
		sh.reply(e.g.Unload(kerr.UnknownMemberID).Replies)
		e.g, e.k = nil, sh.c.newConsumerGroup(e.id, now)
		return nil
	}
	k, err := consumer.FromClassic(e.id, &sh.c.cfg.Consumer, sh.c.timing(e.id), img, e.g.Export(), now)
	if err != nil {
		return err
	}
	sh.c.log.Info("a classic group becomes a consumer group", slog.String(logGroup, e.id))
	// Its members join again, and learn from that what they have.
	sh.reply(e.g.Unload(kerr.RebalanceInProgress).Replies)
	e.g, e.k, e.queued = nil, k, nil
	return nil
}

func (c *Coordinator) newConsumerGroup(id string, now time.Time) *consumer.Group {
	return consumer.New(id, &c.cfg.Consumer, now)
}

// resolve matches regular expressions, which takes its time, without the lock.
func (sh *shard) resolve(term uint64, e *entry, k *consumer.Group, regexes []string) {
	img := sh.c.image()
	match := matcher(img)
	all := make([]consumer.Matches, 0, len(regexes))
	for _, regex := range regexes {
		all = append(all, match(regex))
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.term == term && sh.groups[e.id] == e && e.k == k {
		sh.handleConsumer(e, k.Resolved(time.Now(), img, all))
	}
}

// matcher matches expressions that were accepted before, each once.
func matcher(img *consumer.Image) func(string) consumer.Matches {
	known := map[string]consumer.Matches{}
	return func(regex string) consumer.Matches {
		m, ok := known[regex]
		if !ok {
			m, _ = img.Match(regex) // one that has become invalid matches nothing
			known[regex] = m
		}
		return m
	}
}

// images keeps the newest image of the topics.
type images struct {
	mu     sync.Mutex
	topics []*metadata.Topic
	image  *consumer.Image
}

// image is the view's topics. It is made when they have changed.
func (c *Coordinator) image() *consumer.Image {
	c.images.mu.Lock()
	defer c.images.mu.Unlock()
	topics := c.cfg.View.Topics() // under the lock, so that versions grow with time
	last := c.images.image
	if last != nil && sameSlice(topics, c.images.topics) {
		return last
	}
	version := uint64(1)
	if last != nil {
		version = last.Version() + 1
	}
	c.images.topics, c.images.image = topics, consumer.NewImage(version, c.withOffsets(topics))
	return c.images.image
}

// withOffsets adds the topic of offsets where it is yet to be made: it is listed
// to clients from the beginning, and those who ask for it, or for what matches,
// are to get it as soon as there is something to read.
func (c *Coordinator) withOffsets(topics []*metadata.Topic) []*metadata.Topic {
	at, made := slices.BinarySearchFunc(topics, metadata.OffsetsTopic, func(t *metadata.Topic, name string) int { return strings.Compare(t.Name, name) })
	if made || c.cfg.OffsetsLog == nil {
		return topics
	}
	return slices.Insert(slices.Clone(topics), at, &metadata.Topic{ID: offsetsTopicID, Name: metadata.OffsetsTopic, Partitions: metadata.GroupShards})
}

func sameSlice(a, b []*metadata.Topic) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// Group configs that change a group's timing.
const (
	configSession    = "consumer.session.timeout.ms"
	configHeartbeat  = "consumer.heartbeat.interval.ms"
	configAssignment = "consumer.assignment.interval.ms"
)

// timing is what a group's configs say, within the limits of the broker.
func (c *Coordinator) timing(id string) consumer.Timing {
	t := c.cfg.Consumer.Timing()
	configs := c.cfg.View.Config(metadata.ConfigGroup, id)
	if len(configs) == 0 {
		return t
	}
	for name, to := range map[string]*time.Duration{
		configSession: &t.SessionTimeout, configHeartbeat: &t.HeartbeatInterval, configAssignment: &t.AssignmentInterval,
	} {
		if ms, err := strconv.ParseInt(configs[name], 10, 32); err == nil {
			*to = time.Duration(ms) * time.Millisecond
		}
	}
	return c.cfg.Consumer.Bound(t)
}
