package broker

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

const (
	offsetsTopic      = metadata.OffsetsTopic
	transactionsTopic = metadata.TransactionsTopic
)

// internalTopics stand for the internal topics while the log has none of the
// name: they are listed, led by the coordinators, and cannot be read.
var internalTopics = []*metadata.Topic{internalTopic(offsetsTopic), internalTopic(transactionsTopic)}

func internalTopic(name string) *metadata.Topic {
	return &metadata.Topic{ID: metadata.InternalTopicID(name), Name: name, Partitions: metadata.GroupShards, ReplicationFactor: 1,
		Configs: map[string]string{"cleanup.policy": "compact"}}
}

// virtual tells whether t only stands for an internal topic.
func virtual(t *metadata.Topic) bool { return slices.Contains(internalTopics, t) }

func isInternal(name string) bool { return name == offsetsTopic || name == transactionsTopic }

// topic finds a topic by name.
func (s *Server) topic(name string) (*metadata.Topic, bool) {
	if t, ok := s.cfg.View.Topic(name); ok {
		return t, true
	}
	return standIn(func(t *metadata.Topic) bool { return t.Name == name })
}

func (s *Server) topicByID(id metadata.TopicID) (*metadata.Topic, bool) {
	if t, ok := s.cfg.View.TopicByID(id); ok {
		return t, true
	}
	return standIn(func(t *metadata.Topic) bool { return t.ID == id })
}

func standIn(is func(*metadata.Topic) bool) (*metadata.Topic, bool) {
	for _, t := range internalTopics {
		if is(t) {
			return t, true
		}
	}
	return nil, false
}

// topics lists every topic by name.
func (s *Server) topics() []*metadata.Topic {
	out := slices.Clone(s.cfg.View.Topics())
	for _, t := range internalTopics {
		if _, ok := s.cfg.View.Topic(t.Name); !ok {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *metadata.Topic) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// resolve finds a topic by id when the request carries ids, else by name.
func (s *Server) resolve(useID bool, id metadata.TopicID, name string) (*metadata.Topic, error) {
	if useID {
		if t, ok := s.topicByID(id); ok {
			return t, nil
		}
		return nil, errUnknownTopicID
	}
	if t, ok := s.topic(name); ok {
		return t, nil
	}
	return nil, errUnknownTopic
}

var (
	errUnknownTopic   = &codeError{code: kerr.UnknownTopicOrPartition}
	errUnknownTopicID = &codeError{code: kerr.UnknownTopicID}
)

// leadership is who leads a partition, as far as the view knows.
type leadership struct {
	broker metadata.Broker
	epoch  int32
	live   bool // broker is registered
	owned  bool // somebody claimed the partition
}

// leaderOf tells a partition's newest owner.
func (s *Server) leaderOf(t *metadata.Topic, partition int32) leadership {
	var owner metadata.Owner
	if virtual(t) {
		c, _, ok := s.cfg.View.Coordinator(int(partition))
		if !ok {
			return leadership{epoch: -1}
		}
		owner = metadata.Owner(c)
	} else {
		p, ok := s.cfg.View.Partition(metadata.TopicPartition{Topic: t.ID, Partition: partition})
		if !ok {
			return leadership{epoch: -1}
		}
		if owner, ok = p.Newest(); !ok {
			return leadership{epoch: -1}
		}
	}
	b, live := s.cfg.View.Broker(owner.Incarnation)
	return leadership{broker: b, epoch: owner.Epoch, live: live, owned: true}
}

// partition returns the partition to serve a request from, or why not. epoch is
// the leader epoch that the client knows, -1 for none. open, one for the whole
// request, ends the wait for partitions that are about to be led here.
func (s *Server) partition(open context.Context, t *metadata.Topic, partition, epoch int32) (Partition, error) {
	// Of a topic that the log does not have, as far as is known here, nobody can say
	// where it begins and ends: it may have been created elsewhere meanwhile.
	if partition < 0 || partition >= t.Partitions || virtual(t) {
		return nil, errUnknownTopic
	}
	p, err := s.led(open, t, partition)
	if err != nil {
		return nil, s.stale(t, partition, epoch, err)
	}
	switch current := p.LeaderEpoch(); {
	case epoch < 0 || epoch == current:
		return p, nil
	case epoch < current:
		return nil, refuse(kerr.FencedLeaderEpoch, "")
	default:
		return nil, refuse(kerr.UnknownLeaderEpoch, "")
	}
}

// stale makes of "not the leader" the epoch error that tells the client more:
// Kafka compares epochs first.
func (s *Server) stale(t *metadata.Topic, partition, epoch int32, err error) error {
	if epoch < 0 || !errors.Is(err, tiering.ErrNotLeader) {
		return err
	}
	if l := s.leaderOf(t, partition); l.owned && epoch < l.epoch {
		return refuse(kerr.FencedLeaderEpoch, "")
	}
	return err
}

// openWait is how long a request waits for a partition whose owner list names
// this broker but which is not open yet. Clients that are told "not leader"
// instead look for a leader elsewhere, and some of them only every five seconds.
// Produce requests wait on their connection's reading goroutine, so after a wait
// in vain there is none for a while.
const openWait = time.Second

func (s *Server) led(open context.Context, t *metadata.Topic, partition int32) (Partition, error) {
	tp := metadata.TopicPartition{Topic: t.ID, Partition: partition}
	p, err := s.cfg.Log.Partition(tp)
	if errors.Is(err, tiering.ErrNotLeader) && s.unopened.worth() && s.leaderOf(t, partition).broker.Incarnation == s.cfg.Self {
		if p, err = s.cfg.Log.Await(open, tp); err != nil {
			s.unopened.ended(open)
		}
	}
	return p, err
}

// hint is the leader to name in an answer of NOT_LEADER_OR_FOLLOWER or
// FENCED_LEADER_EPOCH (KIP-951), when it is known to be somebody else.
func (s *Server) hint(t *metadata.Topic, partition int32, code int16) (leadership, bool) {
	if t == nil || code != kerr.NotLeaderForPartition.Code && code != kerr.FencedLeaderEpoch.Code {
		return leadership{}, false
	}
	l := s.leaderOf(t, partition)
	return l, l.live && l.broker.Incarnation != s.cfg.Self
}

// operationsUnknown is what is answered when authorized operations were not
// asked for.
const operationsUnknown = math.MinInt32

// Without an authorizer everything is allowed: bit n is Kafka's AclOperation n.
const (
	topicOperations   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	clusterOperations = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)

func operations(asked bool, all int32) int32 {
	if asked {
		return all
	}
	return operationsUnknown
}
