package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/coordinator"
	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/batch"
)

// markersWait bounds how long a coordinator waits for its markers to be durable.
// After that their fate is unknown to it, and it sends them again.
const markersWait = 30 * time.Second

// writeTxnMarkers ends transactions in the partitions that this broker leads. The
// coordinator sends it, and Kafka's tool that aborts hanging transactions. The
// markers are appended in the order in which requests come; the finish waits
// until they are durable.
func (s *Server) writeTxnMarkers(ctx context.Context, r *Request) finish {
	req := r.Body.(*kmsg.WriteTxnMarkersRequest)
	deadline := time.Now().Add(markersWait)
	parts := s.appendMarkers(ctx, req, deadline)
	return func(ctx context.Context) (kmsg.Response, error) {
		s.commit(ctx, parts, deadline, true)
		return markersWritten(req, parts, r.code), nil
	}
}

// writeOwnMarkers is writeTxnMarkers for this broker's own coordinator.
func (s *Server) writeOwnMarkers(ctx context.Context, req *kmsg.WriteTxnMarkersRequest) kmsg.Response {
	deadline := time.Now().Add(markersWait)
	parts := s.appendMarkers(ctx, req, deadline)
	s.commit(ctx, parts, deadline, true)
	return markersWritten(req, parts, kafkaCode)
}

func markersWritten(req *kmsg.WriteTxnMarkersRequest, parts [][]produced, code func(error) int16) kmsg.Response {
	resp := kmsg.NewPtrWriteTxnMarkersResponse()
	resp.Version = req.Version
	n := 0 // parts has an entry for each topic of each marker
	for i := range req.Markers {
		m := kmsg.NewWriteTxnMarkersResponseMarker()
		m.ProducerID = req.Markers[i].ProducerID
		for j := range req.Markers[i].Topics {
			t := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
			t.Topic = req.Markers[i].Topics[j].Topic
			for k := range parts[n] {
				p := kmsg.NewWriteTxnMarkersResponseMarkerTopicPartition()
				p.Partition = parts[n][k].partition
				p.ErrorCode = code(parts[n][k].err)
				t.Partitions = append(t.Partitions, p)
			}
			m.Topics = append(m.Topics, t)
			n++
		}
		resp.Markers = append(resp.Markers, m)
	}
	return resp
}

func (s *Server) appendMarkers(ctx context.Context, req *kmsg.WriteTxnMarkersRequest, deadline time.Time) (parts [][]produced) {
	count := 0
	for i := range req.Markers {
		for j := range req.Markers[i].Topics {
			count += len(req.Markers[i].Topics[j].Partitions)
		}
	}
	admitted, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	release, refusal := s.cfg.Log.Admit(admitted, count*batch.MarkerLen)
	if refusal == nil {
		defer release()
	}
	open, cancelOpen := context.WithTimeout(ctx, openWait)
	defer cancelOpen()
	for i := range req.Markers {
		m := &req.Markers[i]
		for j := range m.Topics {
			topic, err := s.resolve(false, metadata.TopicID{}, m.Topics[j].Topic)
			switch {
			case refusal != nil:
				err = refusal
			case err == nil && isInternal(topic.Name) && !s.offsets(topic):
				err = refuse(kerr.InvalidTopicException, "The topic %s is internal.", topic.Name)
			}
			list := make([]produced, len(m.Topics[j].Partitions))
			for k, p := range m.Topics[j].Partitions {
				list[k] = produced{topic: topic, partition: p, err: err}
				if err == nil {
					list[k].appended, list[k].err = s.appendMarker(open, topic, p, m)
				}
			}
			parts = append(parts, list)
		}
	}
	return parts
}

// offsets tells whether markers of a topic are for the coordinator of the groups.
func (s *Server) offsets(t *metadata.Topic) bool {
	return t.Name == offsetsTopic && s.cfg.Transactions != nil
}

// appendMarker writes one marker to one partition.
func (s *Server) appendMarker(open context.Context, t *metadata.Topic, partition int32, m *kmsg.WriteTxnMarkersRequestMarker) (Appended, error) {
	if m.ProducerID < 0 || m.ProducerEpoch < 0 {
		return Appended{}, refuse(kerr.InvalidRequest, "a marker of producer %d at epoch %d", m.ProducerID, m.ProducerEpoch)
	}
	if s.offsets(t) {
		// The coordinator of the groups has what such a marker ends.
		return Appended{Commit: s.cfg.Transactions.EndOffsets(int(partition), coordinator.OffsetsMarker{
			Producer:         txn.Producer{ID: m.ProducerID, Epoch: m.ProducerEpoch},
			CoordinatorEpoch: m.CoordinatorEpoch, Commit: m.Committed, Version: m.TransactionVersion,
		})}, nil
	}
	part, err := s.partition(open, t, partition, -1)
	if err != nil {
		return Appended{}, err
	}
	marker := tiering.TxnMarker{
		Marker: batch.Marker{
			ProducerID: m.ProducerID, ProducerEpoch: m.ProducerEpoch, CoordinatorEpoch: m.CoordinatorEpoch, Commit: m.Committed,
		},
		TransactionVersion: m.TransactionVersion,
	}
	return part.AppendMarker(marker, time.Now().UnixMilli(), topicConfig{s, t}.text("message.timestamp.type") == "LogAppendTime")
}
