package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// Timestamps with a meaning of their own in ListOffsets.
const (
	latest          = -1
	earliest        = -2
	maxTimestamp    = -3
	earliestLocal   = -4
	latestTiered    = -5
	earliestPending = -6
)

// specialSince is the version that added each of them; below it Kafka answers
// UNSUPPORTED_VERSION for the partition.
var specialSince = map[int64]int16{latest: 1, earliest: 1, maxTimestamp: 7, earliestLocal: 8, latestTiered: 9, earliestPending: 11}

// listOffsetsWaitMax bounds the reads behind one request.
const listOffsetsWaitMax = 30 * time.Second

// lookupsMax bounds the lookups by time at work at once: each may read batches
// back and inflate one.
const lookupsMax = 4

type topicPartition struct {
	topic     string
	partition int32
}

func (s *Server) listOffsets(ctx context.Context, r *Request, req *kmsg.ListOffsetsRequest) kmsg.Response {
	wait := listOffsetsWaitMax
	if req.TimeoutMillis > 0 {
		wait = timeout(req.TimeoutMillis, listOffsetsWaitMax)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	open, cancelOpen := context.WithTimeout(ctx, openWait)
	defer cancelOpen()
	asked := map[topicPartition]int{}
	for i := range req.Topics {
		for _, p := range req.Topics[i].Partitions {
			asked[topicPartition{req.Topics[i].Topic, p.Partition}]++
		}
	}
	resp := kmsg.NewPtrListOffsetsResponse()
	for i := range req.Topics {
		t := kmsg.NewListOffsetsResponseTopic()
		t.Topic = req.Topics[i].Topic
		topic, err := s.resolve(false, metadata.TopicID{}, t.Topic)
		for j := range req.Topics[i].Partitions {
			p := &req.Topics[i].Partitions[j]
			var found tiering.TimestampOffset
			perr := err
			if asked[topicPartition{t.Topic, p.Partition}] > 1 {
				perr = refuse(kerr.InvalidRequest, "")
			}
			if perr == nil {
				found, perr = s.listOffset(ctx, open, req, topic, p)
			}
			out := kmsg.NewListOffsetsResponseTopicPartition()
			out.Partition, out.Offset, out.Timestamp, out.LeaderEpoch = p.Partition, -1, -1, -1
			if perr != nil {
				out.ErrorCode = r.code(perr)
			} else {
				out.Offset, out.Timestamp, out.LeaderEpoch = found.Offset, found.Timestamp, found.Epoch
			}
			t.Partitions = append(t.Partitions, out)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// listOffset answers for one partition, as its leader.
func (s *Server) listOffset(ctx, open context.Context, req *kmsg.ListOffsetsRequest, t *metadata.Topic, p *kmsg.ListOffsetsRequestTopicPartition) (tiering.TimestampOffset, error) {
	none := tiering.TimestampOffset{Offset: -1, Timestamp: -1, Epoch: -1}
	if since, special := specialSince[p.Timestamp]; p.Timestamp < 0 && (!special || req.Version < since) {
		return none, refuse(kerr.UnsupportedVersion, "")
	}
	part, err := s.partition(open, t, p.Partition, p.CurrentLeaderEpoch)
	if err != nil {
		return none, err
	}
	if err := s.cfg.Log.Check(ctx, authorityMax); err != nil {
		return none, err
	}
	o := part.Offsets()
	end := o.HighWatermark
	if req.IsolationLevel == 1 {
		end = o.LastStable
	}
	switch p.Timestamp {
	case latest:
		return tiering.TimestampOffset{Offset: end, Timestamp: -1, Epoch: part.LeaderEpoch()}, nil
	case earliest:
		return tiering.TimestampOffset{Offset: o.LogStart, Timestamp: -1, Epoch: epochAt(part, o, o.LogStart)}, nil
	case earliestLocal, earliestPending:
		// What is not tiered yet is what is local: it lies in write-ahead objects.
		return tiering.TimestampOffset{Offset: o.Tiered, Timestamp: -1, Epoch: epochAt(part, o, o.Tiered)}, nil
	case latestTiered:
		if o.Tiered <= o.LogStart {
			return none, nil
		}
		return tiering.TimestampOffset{Offset: o.Tiered - 1, Timestamp: -1, Epoch: epochAt(part, o, o.Tiered-1)}, nil
	}
	if err := s.lookups.Acquire(ctx, 1); err != nil {
		return none, err
	}
	defer s.lookups.Release(1)
	var found tiering.TimestampOffset
	if p.Timestamp == maxTimestamp {
		found, err = part.MaxTimestamp(ctx)
	} else {
		found, err = part.OffsetForTimestamp(ctx, p.Timestamp)
	}
	if err != nil || found.Offset < 0 || found.Offset >= end {
		return none, err
	}
	return found, nil
}

// epochAt is the epoch of the record at offset: a client that begins there must
// not believe it has read what later leaders wrote.
func epochAt(p Partition, o tiering.Offsets, offset int64) int32 {
	if offset < o.HighWatermark {
		if e := p.EpochOf(offset); e >= 0 {
			return e
		}
	}
	return p.LeaderEpoch()
}

func (s *Server) offsetForLeaderEpoch(ctx context.Context, r *Request, req *kmsg.OffsetForLeaderEpochRequest) kmsg.Response {
	open, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	for i := range req.Topics {
		t := kmsg.NewOffsetForLeaderEpochResponseTopic()
		t.Topic = req.Topics[i].Topic
		topic, err := s.resolve(false, metadata.TopicID{}, t.Topic)
		for j := range req.Topics[i].Partitions {
			p := &req.Topics[i].Partitions[j]
			out := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			out.Partition, out.LeaderEpoch, out.EndOffset = p.Partition, -1, -1
			end, perr := tiering.EpochEnd{Epoch: -1, End: -1}, err
			if perr == nil {
				end, perr = s.epochEnd(ctx, open, topic, p)
			}
			if perr != nil {
				out.ErrorCode = r.code(perr)
			} else {
				out.LeaderEpoch, out.EndOffset = end.Epoch, end.End
			}
			t.Partitions = append(t.Partitions, out)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// epochEnd answers for one partition. An epoch above the leader's own is
// unknown; a client that has one has met a newer leader.
func (s *Server) epochEnd(ctx, open context.Context, t *metadata.Topic, p *kmsg.OffsetForLeaderEpochRequestTopicPartition) (tiering.EpochEnd, error) {
	none := tiering.EpochEnd{Epoch: -1, End: -1}
	part, err := s.partition(open, t, p.Partition, p.CurrentLeaderEpoch)
	if err != nil {
		return none, err
	}
	if err := s.cfg.Log.Check(ctx, authorityMax); err != nil {
		return none, err
	}
	switch current := part.LeaderEpoch(); {
	case p.LeaderEpoch < 0 || p.LeaderEpoch > current:
		return none, nil
	case p.LeaderEpoch == current:
		return tiering.EpochEnd{Epoch: current, End: part.Offsets().HighWatermark}, nil
	}
	return part.EpochEnd(p.LeaderEpoch), nil
}
