package broker

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
)

// autoCreateMax bounds the time that one request may spend creating topics.
const autoCreateMax = 10 * time.Second

type askedTopic struct {
	id   metadata.TopicID
	name string
}

func (s *Server) metadata(ctx context.Context, r *Request, req *kmsg.MetadataRequest) kmsg.Response {
	resp := kmsg.NewPtrMetadataResponse()
	defer func() { // last: waiting for leaders may have changed who is there
		for _, b := range s.cfg.View.Brokers() {
			e := kmsg.NewMetadataResponseBroker()
			e.NodeID, e.Host, e.Port, e.Rack = b.ID, b.Host, b.Port, rack(b)
			resp.Brokers = append(resp.Brokers, e)
		}
		resp.ControllerID = s.controllerID()
	}()
	resp.ClusterID = &s.cfg.ClusterID
	resp.AuthorizedOperations = operations(req.IncludeClusterAuthorizedOperations, clusterOperations)
	resp.Topics = []kmsg.MetadataResponseTopic{}
	// Version 0 says "all" with an empty list, later ones with null.
	if req.Topics == nil || req.Version == 0 && len(req.Topics) == 0 {
		for _, t := range s.topics() {
			resp.Topics = append(resp.Topics, s.topicMetadata(r, req, t))
		}
		return resp
	}
	ctx, cancel := context.WithTimeout(ctx, autoCreateMax)
	defer cancel()
	asked := map[askedTopic]bool{} // once each: an answer may be far larger than a name
	for i := range req.Topics {
		t := &req.Topics[i]
		k := askedTopic{id: t.TopicID}
		if t.Topic != nil {
			k.name = *t.Topic
		}
		if !asked[k] {
			asked[k] = true
			resp.Topics = append(resp.Topics, s.askedMetadata(ctx, r, req, t))
		}
	}
	return resp
}

// controllerID is the broker to send changes to. Every broker takes them, so
// any live one will do when the controller is not known.
func (s *Server) controllerID() int32 {
	if c, ok := s.cfg.View.Controller(); ok {
		if b, ok := s.cfg.View.Broker(c.Incarnation); ok {
			return b.ID
		}
	}
	return s.id()
}

// askedMetadata answers for one topic of the request, which it may create.
func (s *Server) askedMetadata(ctx context.Context, r *Request, req *kmsg.MetadataRequest, asked *kmsg.MetadataRequestTopic) kmsg.MetadataResponseTopic {
	byID := asked.TopicID != [16]byte{}
	name := ""
	if asked.Topic != nil {
		name = *asked.Topic
	}
	t, err := s.resolve(byID, asked.TopicID, name)
	if err == nil {
		s.awaitLeaders(ctx, t)
		return s.topicMetadata(r, req, t)
	}
	if !byID {
		if bad := metadata.CheckTopicName(name); bad != nil {
			err = bad
		} else if s.cfg.AutoCreateTopics && (req.AllowAutoTopicCreation || req.Version < 4) {
			if t, err = s.autoCreate(ctx, name); err == nil {
				s.awaitLeaders(ctx, t)
				return s.topicMetadata(r, req, t)
			}
		}
	}
	out := kmsg.NewMetadataResponseTopic()
	out.Topic, out.TopicID = asked.Topic, asked.TopicID
	if out.Topic == nil && req.Version < 12 {
		out.Topic = &name // not nullable there
	}
	out.ErrorCode = r.code(err)
	out.AuthorizedOperations = operationsUnknown
	return out
}

// autoCreate makes a topic with the defaults, because a client asked about it.
func (s *Server) autoCreate(ctx context.Context, name string) (*metadata.Topic, error) {
	if err := s.collision(name); err != nil {
		return nil, err
	}
	t, err := s.create(ctx, metadata.TopicSpec{Name: name, Partitions: s.cfg.DefaultPartitions, ReplicationFactor: s.cfg.DefaultReplicationFactor})
	if errors.Is(err, metadata.ErrTopicExists) { // somebody else's is on its way to our view
		return nil, refuse(kerr.LeaderNotAvailable, "")
	}
	return t, err
}

func (s *Server) topicMetadata(r *Request, req *kmsg.MetadataRequest, t *metadata.Topic) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.Topic, out.TopicID, out.IsInternal = &t.Name, t.ID, isInternal(t.Name)
	out.AuthorizedOperations = operations(req.IncludeTopicAuthorizedOperations, topicOperations)
	out.Partitions = make([]kmsg.MetadataResponseTopicPartition, t.Partitions)
	for i := range out.Partitions {
		p := &out.Partitions[i]
		p.Default()
		l := s.leaderOf(t, int32(i))
		p.Partition, p.Leader, p.LeaderEpoch = int32(i), -1, l.epoch
		p.Replicas, p.ISR, p.OfflineReplicas = []int32{}, []int32{}, []int32{}
		if !l.live {
			p.ErrorCode = r.note(kerr.LeaderNotAvailable.Code)
			continue
		}
		p.Leader = l.broker.ID
		p.Replicas = append(p.Replicas, l.broker.ID)
		p.ISR = p.Replicas
	}
	return out
}
