package coordinator

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/metadata"
)

// ConsumerGroupHeartbeat handles a member of the new protocol (KIP-848). It
// answers when what the answer reveals is stored.
func (c *Coordinator) ConsumerGroupHeartbeat(ctx context.Context, client ClientInfo, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	resp.Version = req.Version
	reply, err := c.consumerHeartbeat(ctx, client, req)
	if err != nil {
		resp.ErrorCode = err.Code
		if err.Description != "" {
			resp.ErrorMessage = &err.Description
		}
		return resp
	}
	resp.MemberID, resp.MemberEpoch = &reply.MemberID, reply.Epoch
	resp.HeartbeatIntervalMillis = int32(reply.Interval.Milliseconds())
	if reply.Assigned {
		a := kmsg.NewConsumerGroupHeartbeatResponseAssignment()
		for _, tp := range reply.Assignment {
			n := len(a.Topics)
			if n == 0 || a.Topics[n-1].TopicID != tp.Topic {
				t := kmsg.NewConsumerGroupHeartbeatResponseAssignmentTopic()
				t.TopicID = tp.Topic
				a.Topics = append(a.Topics, t)
				n++
			}
			a.Topics[n-1].Partitions = append(a.Topics[n-1].Partitions, tp.Partition)
		}
		resp.Assignment = &a
	}
	return resp
}

func (c *Coordinator) consumerHeartbeat(ctx context.Context, client ClientInfo, req *kmsg.ConsumerGroupHeartbeatRequest) (consumer.Reply, *kerr.Error) {
	if n := ownedCount(req); n > ownedMax {
		return consumer.Reply{}, kerr.InvalidRequest
	}
	r := consumerRequest(client, req)
	if err := r.Validate(&c.cfg.Consumer, req.Version, req.Group, req.MemberID == ""); err != nil {
		return consumer.Reply{}, err
	}
	if err := checkGroupID(req.Group, false); err != nil {
		return consumer.Reply{}, err
	}
	img := c.image()
	if r.Regex != nil {
		var err *kerr.Error
		if r.Matches, err = img.Match(*r.Regex); err != nil {
			return consumer.Reply{}, err
		}
	}
	reply, durable, err := c.shard(req.Group).consumerHeartbeat(req.Group, img, r)
	if err != nil {
		return consumer.Reply{}, err
	}
	if err, ok := await(ctx, durable); err != nil || !ok {
		if err == nil {
			err = kerr.CoordinatorNotAvailable // nobody reads it
		}
		return consumer.Reply{}, err
	}
	return reply, nil
}

// ownedMax bounds the partitions that one member may say it has.
const ownedMax = 2 * metadata.MaxPartitions

func ownedCount(req *kmsg.ConsumerGroupHeartbeatRequest) int {
	n := 0
	for i := range req.Topics {
		n += len(req.Topics[i].Partitions)
	}
	return n
}

// consumerRequest translates a request. Strings and slices are the group's from
// here on; nothing else keeps the request.
func consumerRequest(client ClientInfo, req *kmsg.ConsumerGroupHeartbeatRequest) consumer.Request {
	r := consumer.Request{
		MemberID: req.MemberID, Epoch: req.MemberEpoch, Instance: req.InstanceID, Rack: req.RackID,
		ClientID: client.ID, ClientHost: client.host(), RebalanceTimeout: -1,
		Topics: req.SubscribedTopicNames, Regex: req.SubscribedTopicRegex, Assignor: req.ServerAssignor,
		OwnedSent: req.Topics != nil,
	}
	if r.MemberID == "" {
		r.MemberID = newMemberID(ClientInfo{}, nil)[1:]
	}
	if req.RebalanceTimeoutMillis >= 0 {
		r.RebalanceTimeout = millis(req.RebalanceTimeoutMillis)
	}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			r.Owned = append(r.Owned, metadata.TopicPartition{Topic: t.TopicID, Partition: p})
		}
	}
	r.Owned = consumer.SortPartitions(r.Owned)
	return r
}

func (sh *shard) consumerHeartbeat(id string, img *consumer.Image, r consumer.Request) (consumer.Reply, <-chan *kerr.Error, *kerr.Error) {
	now := time.Now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.consumerGroup(id, img, &r, now)
	if err != nil {
		return consumer.Reply{}, nil, err
	}
	e.k.SetTiming(sh.c.timing(id))
	reply, err, eff := e.k.Heartbeat(now, img, r)
	seq := sh.handleConsumer(e, eff)
	if err != nil {
		return consumer.Reply{}, nil, err
	}
	return reply, e.whenDurable(seq), nil
}

// consumerGroup finds the group, or makes it for a member that joins: new, or of
// a classic group.
func (sh *shard) consumerGroup(id string, img *consumer.Image, r *consumer.Request, now time.Time) (*entry, *kerr.Error) {
	e, err := sh.find(id)
	switch {
	case err != nil:
		return nil, err
	case e != nil && e.k != nil:
		return e, nil
	case r.Epoch < 0:
		return nil, kerr.GroupIDNotFound
	case r.Epoch > 0:
		// It was a member before the group was deleted or became a classic
		// one. Kafka says GROUP_ID_NOT_FOUND, which clients do not survive;
		// this has them join again.
		return nil, kerr.UnknownMemberID
	case e == nil:
		if e, err = sh.findOrCreate(id, now); err != nil {
			return nil, err
		}
		e.g, e.k = nil, sh.c.newConsumerGroup(id, now)
		return e, nil
	}
	return e, sh.upgrade(e, img, now)
}

// ConsumerGroupDescribe describes consumer groups of this broker.
func (c *Coordinator) ConsumerGroupDescribe(_ context.Context, _ ClientInfo, req *kmsg.ConsumerGroupDescribeRequest) *kmsg.ConsumerGroupDescribeResponse {
	resp := kmsg.NewPtrConsumerGroupDescribeResponse()
	resp.Version = req.Version
	for _, id := range req.Groups {
		g := kmsg.NewConsumerGroupDescribeResponseGroup()
		g.Group, g.AuthorizedOperations = id, noOperations
		d, err := c.shard(id).describeConsumer(id)
		if err != nil {
			g.ErrorCode = err.Code
			if err == kerr.GroupIDNotFound {
				message := "Group " + id + " not found."
				g.ErrorMessage = &message
			}
		} else {
			c.fillConsumerDescription(&g, d)
			if req.IncludeAuthorizedOperations {
				g.AuthorizedOperations = groupOperations
			}
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}

func (sh *shard) describeConsumer(id string) (consumer.Description, *kerr.Error) {
	if err := checkGroupID(id, false); err != nil {
		return consumer.Description{}, err
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.find(id)
	if err == nil && (e == nil || e.k == nil || e.dead()) {
		err = kerr.GroupIDNotFound
	}
	if err != nil {
		return consumer.Description{}, err
	}
	return e.k.Describe(), nil
}

// Types of members in descriptions (KIP-1099).
const (
	memberClassic  = 0
	memberConsumer = 1
)

func (c *Coordinator) fillConsumerDescription(g *kmsg.ConsumerGroupDescribeResponseGroup, d consumer.Description) {
	img := c.image()
	g.State, g.Epoch, g.AssignmentEpoch, g.AssignorName = string(d.State), d.Epoch, d.AssignmentEpoch, d.Assignor
	for _, m := range d.Members {
		dm := kmsg.NewConsumerGroupDescribeResponseGroupMember()
		dm.MemberID, dm.InstanceID, dm.RackID, dm.MemberEpoch = m.ID, m.Instance, m.Rack, m.Epoch
		dm.ClientID, dm.ClientHost = m.ClientID, m.ClientHost
		dm.SubscribedTopics = slices.Clone(m.Topics)
		if m.Regex != "" {
			dm.SubscribedTopicRegex = &m.Regex
		}
		dm.Assignment = describeAssignment(img, m.Partitions())
		dm.TargetAssignment = describeAssignment(img, m.Target)
		dm.MemberType = memberConsumer
		if m.Classic != nil {
			dm.MemberType = memberClassic
		}
		g.Members = append(g.Members, dm)
	}
}

// describeAssignment lists partitions of topics that still exist.
func describeAssignment(img *consumer.Image, set []metadata.TopicPartition) kmsg.Assignment {
	a := kmsg.NewAssignment()
	for _, tp := range set {
		topic, ok := img.TopicByID(tp.Topic)
		if !ok {
			continue
		}
		n := len(a.TopicPartitions)
		if n == 0 || a.TopicPartitions[n-1].TopicID != tp.Topic {
			t := kmsg.NewAssignmentTopicPartition()
			t.TopicID, t.Topic = tp.Topic, topic.Name
			a.TopicPartitions = append(a.TopicPartitions, t)
			n++
		}
		a.TopicPartitions[n-1].Partitions = append(a.TopicPartitions[n-1].Partitions, tp.Partition)
	}
	return a
}
