package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// table is what is served: every API with its range of versions. Produce is
// advertised from 0 because librdkafka reads the range to choose compression;
// versions 0 to 2 are answered with UNSUPPORTED_VERSION, as Kafka 4 does.
func (s *Server) table() map[int16]*api {
	rows := []*api{
		{key: 0, min: 0, max: 13, start: s.produce, bound: true},
		{key: 1, min: 4, max: 18, lane: fetches, start: later(s.fetch), bound: true},
		{key: 2, min: 1, max: 11, start: later(s.listOffsets), bound: true},
		{key: 3, min: 0, max: 13, start: later(s.metadata), bound: true},
		{key: 10, min: 0, max: 6, start: later(s.findCoordinator), bound: true},
		{key: 18, min: 0, max: 5, start: s.apiVersions, bound: true},
		{key: 19, min: 2, max: 7, lane: changes, start: later(s.createTopics)},
		{key: 20, min: 1, max: 6, lane: changes, start: later(s.deleteTopics)},
		{key: 21, min: 0, max: 2, lane: changes, start: later(s.deleteRecords)},
		{key: 22, min: 0, max: 5, lane: changes, start: later(s.initProducerID)},
		{key: 23, min: 2, max: 4, start: later(s.offsetForLeaderEpoch), bound: true},
		{key: 32, min: 1, max: 4, start: later(s.describeConfigs), bound: true},
		{key: 33, min: 0, max: 2, lane: changes, start: later(s.alterConfigs)},
		{key: 37, min: 0, max: 3, lane: changes, start: later(s.createPartitions)},
		{key: 44, min: 0, max: 1, lane: changes, start: later(s.incrementalAlterConfigs)},
		{key: 46, min: 0, max: 0, start: later(s.listPartitionReassignments), bound: true},
		{key: 60, min: 0, max: 2, start: later(s.describeCluster), bound: true},
		{key: 61, min: 0, max: 0, start: later(s.describeProducers), bound: true},
		{key: 75, min: 0, max: 0, start: later(s.describeTopicPartitions), bound: true},
	}
	if s.cfg.Txns != nil {
		rows = append(rows, &api{key: 27, min: 1, max: 2, start: s.writeTxnMarkers})
	}
	rows = append(rows, s.groupTable()...)
	rows = append(rows, s.txnTable()...)
	out := make(map[int16]*api, len(rows))
	for _, a := range rows {
		out[a.key] = a
	}
	return out
}

// groupTable is the part of the table that the group coordinator serves. Join
// and sync wait for other members, so they end when their client hangs up or
// the server drains; the others run to their end.
func (s *Server) groupTable() []*api {
	g := s.cfg.Groups
	return []*api{
		{key: 8, min: 2, max: 10, lane: changes, start: grouped(g.OffsetCommit)},
		{key: 9, min: 1, max: 10, lane: changes, start: grouped(g.OffsetFetch), bound: true},
		{key: 11, min: 0, max: 9, lane: changes, start: s.untilDrain(grouped(g.JoinGroup)), bound: true},
		{key: 12, min: 0, max: 4, lane: changes, start: grouped(g.Heartbeat), bound: true},
		{key: 13, min: 0, max: 5, lane: changes, start: grouped(g.LeaveGroup)},
		{key: 14, min: 0, max: 5, lane: changes, start: s.untilDrain(grouped(g.SyncGroup)), bound: true},
		{key: 15, min: 0, max: 6, start: grouped(g.DescribeGroups), bound: true},
		{key: 16, min: 0, max: 5, start: grouped(g.ListGroups), bound: true},
		{key: 42, min: 0, max: 3, lane: changes, start: grouped(g.DeleteGroups)},
		{key: 47, min: 0, max: 0, lane: changes, start: grouped(g.OffsetDelete)},
		{key: 68, min: 0, max: 1, lane: changes, start: grouped(g.ConsumerGroupHeartbeat)},
		{key: 69, min: 0, max: 1, start: grouped(g.ConsumerGroupDescribe), bound: true},
	}
}

// grouped makes a start of a coordinator's method.
func grouped[Req kmsg.Request, Resp kmsg.Response](h func(context.Context, ClientInfo, Req) Resp) func(context.Context, *Request) finish {
	return later(func(ctx context.Context, r *Request, req Req) kmsg.Response {
		resp := h(ctx, *r.Client, req)
		r.note(topError(resp))
		return resp
	})
}

// topError is the error of a group response as a whole, for the metrics.
func topError(resp kmsg.Response) int16 {
	switch r := resp.(type) {
	case *kmsg.JoinGroupResponse:
		return r.ErrorCode
	case *kmsg.SyncGroupResponse:
		return r.ErrorCode
	case *kmsg.HeartbeatResponse:
		return r.ErrorCode
	case *kmsg.LeaveGroupResponse:
		return r.ErrorCode
	case *kmsg.OffsetFetchResponse:
		return r.ErrorCode
	case *kmsg.ListGroupsResponse:
		return r.ErrorCode
	case *kmsg.OffsetDeleteResponse:
		return r.ErrorCode
	case *kmsg.ConsumerGroupHeartbeatResponse:
		return r.ErrorCode
	case *kmsg.AddOffsetsToTxnResponse:
		return r.ErrorCode
	case *kmsg.EndTxnResponse:
		return r.ErrorCode
	case *kmsg.ListTransactionsResponse:
		return r.ErrorCode
	}
	return 0
}

// untilDrain has the context of a finish end when the server drains.
func (s *Server) untilDrain(start func(context.Context, *Request) finish) func(context.Context, *Request) finish {
	return func(ctx context.Context, r *Request) finish {
		f := start(ctx, r)
		return func(ctx context.Context) (kmsg.Response, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(s.drain, cancel)()
			return f(ctx)
		}
	}
}

// answer is a finish that has its response.
func answer(resp kmsg.Response) finish {
	return func(context.Context) (kmsg.Response, error) { return resp, nil }
}
