package broker

import (
	"context"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// trimsMax bounds the partitions of one request that are at work at once.
const trimsMax = 64

// deleteRecords raises log start offsets. Like Kafka it answers for each partition
// by itself, with the log start offset that is committed.
func (s *Server) deleteRecords(ctx context.Context, r *Request, req *kmsg.DeleteRecordsRequest) kmsg.Response {
	ctx, cancel := adminTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	open, cancelOpen := context.WithTimeout(ctx, openWait)
	defer cancelOpen()
	type answer struct {
		low int64
		err error
	}
	answers := make([][]answer, len(req.Topics))
	var work sync.WaitGroup
	slots := make(chan struct{}, trimsMax)
	for i := range req.Topics {
		asked := req.Topics[i].Partitions
		answers[i] = make([]answer, len(asked))
		topic, err := s.recordsDeletable(req.Topics[i].Topic)
		for j := range asked {
			a := &answers[i][j]
			if a.low, a.err = -1, err; err != nil {
				continue
			}
			slots <- struct{}{} // each ends with ctx at the latest
			work.Go(func() {
				defer func() { <-slots }()
				a.low, a.err = s.deleteBelow(ctx, open, topic, asked[j].Partition, asked[j].Offset)
			})
		}
	}
	work.Wait()
	resp := kmsg.NewPtrDeleteRecordsResponse()
	for i := range req.Topics {
		t := kmsg.NewDeleteRecordsResponseTopic()
		t.Topic = req.Topics[i].Topic
		for j, a := range answers[i] {
			p := kmsg.NewDeleteRecordsResponseTopicPartition()
			p.Partition, p.LowWatermark, p.ErrorCode = req.Topics[i].Partitions[j].Partition, a.low, r.code(a.err)
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// recordsDeletable finds a topic whose records clients may delete, as far as its name
// says.
func (s *Server) recordsDeletable(name string) (*metadata.Topic, error) {
	if isInternal(name) {
		return nil, refuse(kerr.InvalidTopicException, "Cannot delete records of internal topic %s.", name)
	}
	return s.resolve(false, metadata.TopicID{}, name)
}

// deleteBelow deletes the records of one partition below offset, as its leader,
// and returns where it begins then.
func (s *Server) deleteBelow(ctx, open context.Context, t *metadata.Topic, partition int32, offset int64) (int64, error) {
	p, err := s.partition(open, t, partition, -1)
	if err != nil {
		return -1, err
	}
	if !(topicConfig{s, t}).deletes() {
		return -1, refuse(kerr.PolicyViolation, "Records of partition %s-%d can not be deleted due to the configured policy.", t.Name, partition)
	}
	low, err := p.DeleteRecords(ctx, offset)
	// That an offset is out of range, or reached already, is for the leader to say: a
	// deposed one knows neither of what came since nor of what went. After a commit
	// that is known.
	age := authorityMax
	if errors.Is(err, tiering.ErrOffsetOutOfRange) {
		age = 0
	}
	if err == nil || age == 0 {
		if unproven := s.cfg.Log.Check(ctx, age); unproven != nil {
			return -1, unproven
		}
	}
	if err != nil {
		return -1, err
	}
	return low, nil
}
