package broker

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetched is a fetch response of partitions with records each.
func fetched(partitions, bytes int) *kmsg.FetchResponse {
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(17)
	topic := kmsg.NewFetchResponseTopic()
	for p := range partitions {
		part := kmsg.NewFetchResponseTopicPartition()
		part.Partition, part.RecordBatches = int32(p), make([]byte, bytes)
		topic.Partitions = append(topic.Partitions, part)
	}
	resp.Topics = append(resp.Topics, topic)
	return resp
}

// A fetch response finds room for all of it at once.
func TestFetchResponsesAreNotGrown(t *testing.T) {
	for _, version := range []int16{4, 11, 12, 13, 17} {
		for _, c := range []struct{ partitions, bytes int }{{0, 0}, {1, 0}, {1, 1 << 20}, {16, 300_000}, {500, 7}} {
			resp := fetched(c.partitions, c.bytes)
			resp.SetVersion(version)
			hint, took := sizeHint(resp), len(appendResponse(nil, 1, resp))
			if took > hint || hint > took+responseOverhead+topicOverhead+c.partitions*partitionOverhead {
				t.Errorf("version %d, %v: %d bytes expected, %d written", version, c, hint, took)
			}
		}
	}
}

func BenchmarkAppendFetchResponse(b *testing.B) {
	for _, c := range []struct{ partitions, bytes int }{{1, 1 << 20}, {16, 1 << 20}, {16, 4096}} {
		b.Run(fmt.Sprintf("%dx%d", c.partitions, c.bytes), func(b *testing.B) {
			resp := fetched(c.partitions, c.bytes)
			b.SetBytes(int64(c.partitions * c.bytes))
			b.ReportAllocs()
			for b.Loop() {
				appendResponse(nil, 1, resp)
			}
		})
	}
}
