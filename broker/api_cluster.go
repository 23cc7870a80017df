package broker

import (
	"cmp"
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
)

// describePartitionsMax bounds one DescribeTopicPartitions response (Kafka:
// max.request.partition.size.limit).
const describePartitionsMax = 2000

// endpointBrokers is the kind of endpoint that DescribeCluster is asked for.
const (
	endpointBrokers     = 1
	endpointControllers = 2
)

func (s *Server) describeCluster(_ context.Context, r *Request, req *kmsg.DescribeClusterRequest) kmsg.Response {
	resp := kmsg.NewPtrDescribeClusterResponse()
	resp.ClusterID, resp.ControllerID, resp.EndpointType = s.cfg.ClusterID, s.controllerID(), req.EndpointType
	resp.ClusterAuthorizedOperations = operations(req.IncludeClusterAuthorizedOperations, clusterOperations)
	switch {
	case req.Version < 1, req.EndpointType == endpointBrokers:
	case req.EndpointType == endpointControllers:
		resp.ErrorCode = r.note(kerr.MismatchedEndpointType.Code)
		return resp
	default:
		resp.ErrorCode = r.note(kerr.UnsupportedEndpointType.Code)
		return resp
	}
	for _, b := range s.cfg.View.Brokers() {
		e := kmsg.NewDescribeClusterResponseBroker()
		e.NodeID, e.Host, e.Port, e.Rack = b.ID, b.Host, b.Port, rack(b)
		resp.Brokers = append(resp.Brokers, e)
	}
	return resp
}

// describeTopicPartitions lists partitions in the order of topic names, from a
// cursor on, up to a limit, and says where to go on.
func (s *Server) describeTopicPartitions(_ context.Context, r *Request, req *kmsg.DescribeTopicPartitionsRequest) kmsg.Response {
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	var names []string
	for i := range req.Topics {
		names = append(names, req.Topics[i].Topic)
	}
	if len(names) == 0 {
		for _, t := range s.topics() {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	first := int32(0)
	if c := req.Cursor; c != nil {
		at, found := slices.BinarySearchFunc(names, c.Topic, cmp.Compare[string])
		if names = names[at:]; found {
			first = max(0, c.Partition)
		}
	}
	left := min(int(req.ResponsePartitionLimit), describePartitionsMax)
	for _, name := range names {
		t, ok := s.topic(name)
		if !ok {
			resp.Topics = append(resp.Topics, s.unknownPartitions(r, name))
			first = 0
			continue
		}
		if left <= 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: first}
			break
		}
		end := min(t.Partitions, first+int32(left))
		resp.Topics = append(resp.Topics, s.describePartitions(r, t, first, end))
		left -= int(max(0, end-first))
		if end < t.Partitions {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: end}
			break
		}
		first = 0
	}
	return resp
}

func (s *Server) unknownPartitions(r *Request, name string) kmsg.DescribeTopicPartitionsResponseTopic {
	out := kmsg.NewDescribeTopicPartitionsResponseTopic()
	out.Topic = &name
	out.AuthorizedOperations = operationsUnknown
	if err := metadata.CheckTopicName(name); err != nil {
		out.ErrorCode = r.code(err)
	} else {
		out.ErrorCode = r.code(errUnknownTopic)
	}
	return out
}

func (s *Server) describePartitions(r *Request, t *metadata.Topic, from, to int32) kmsg.DescribeTopicPartitionsResponseTopic {
	out := kmsg.NewDescribeTopicPartitionsResponseTopic()
	out.Topic, out.TopicID, out.IsInternal = &t.Name, t.ID, isInternal(t.Name)
	out.AuthorizedOperations = topicOperations
	for i := from; i < to; i++ {
		p := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		l := s.leaderOf(t, i)
		p.Partition, p.LeaderID, p.LeaderEpoch = i, -1, l.epoch
		p.Replicas, p.ISR, p.OfflineReplicas = []int32{}, []int32{}, []int32{}
		p.EligibleLeaderReplicas, p.LastKnownELR = []int32{}, []int32{}
		if l.live {
			p.LeaderID = l.broker.ID
			p.Replicas = append(p.Replicas, l.broker.ID)
			p.ISR = p.Replicas
		} else {
			p.ErrorCode = r.note(kerr.LeaderNotAvailable.Code)
		}
		out.Partitions = append(out.Partitions, p)
	}
	return out
}

// listPartitionReassignments has nothing to tell: moving leadership copies no
// data and is done at once.
func (s *Server) listPartitionReassignments(context.Context, *Request, *kmsg.ListPartitionReassignmentsRequest) kmsg.Response {
	return kmsg.NewPtrListPartitionReassignmentsResponse()
}

// Kinds of coordinators.
const (
	coordinatorGroup       = 0
	coordinatorTransaction = 1
)

func (s *Server) findCoordinator(_ context.Context, r *Request, req *kmsg.FindCoordinatorRequest) kmsg.Response {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	if req.Version < 4 {
		c := s.coordinator(r, req.CoordinatorType, req.CoordinatorKey)
		resp.ErrorCode, resp.ErrorMessage = c.ErrorCode, c.ErrorMessage
		resp.NodeID, resp.Host, resp.Port = c.NodeID, c.Host, c.Port
		return resp
	}
	for _, key := range req.CoordinatorKeys {
		resp.Coordinators = append(resp.Coordinators, s.coordinator(r, req.CoordinatorType, key))
	}
	return resp
}

func (s *Server) coordinator(r *Request, kind int8, key string) kmsg.FindCoordinatorResponseCoordinator {
	out := kmsg.NewFindCoordinatorResponseCoordinator()
	out.Key, out.NodeID, out.Port = key, -1, -1
	var b metadata.Broker
	var err error
	switch kind {
	case coordinatorGroup:
		b, err = s.cfg.Groups.Coordinator(key)
	case coordinatorTransaction:
		if err = errNoTransactions; s.cfg.Transactions != nil {
			b, err = s.cfg.Transactions.TxnCoordinator(key)
		}
	default:
		err = refuse(kerr.InvalidRequest, "this broker has no coordinators of type %d", kind)
	}
	if err != nil {
		out.ErrorCode, out.ErrorMessage = r.code(err), errorText(err)
		return out
	}
	none := ""
	out.NodeID, out.Host, out.Port, out.ErrorMessage = b.ID, b.Host, b.Port, &none
	return out
}
