package chaos

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tidemark-io/tidemark/test/checker"
)

// replyMax is how long a write that waits in a stopped broker's socket may stay
// unanswered after it goes on.
const replyMax = 60 * time.Second

// zombie sends produce requests to one broker, whatever the metadata says, and
// tells the history of them: what it is told was written must be in the log.
type zombie struct {
	r    *rig
	cl   *kgo.Client
	told *checker.Producer
}

func (r *rig) dialZombie(i, n int) *zombie {
	r.t.Helper()
	cl := r.client(kgo.SeedBrokers(r.clients[i].Addr()), kgo.RequestRetries(0), kgo.RetryTimeout(time.Millisecond),
		kgo.RequestTimeoutOverhead(2*replyMax), kgo.MaxVersions(kversion.V2_8_0())) // produce by topic name
	return &zombie{r: r, cl: cl, told: r.history.PlainProducer(fmt.Sprintf("zombie-%d-%d", i, n))}
}

type reply struct {
	partition int32
	err       chan error
}

// produce sends n writes to each partition and does not wait for the answers.
func (z *zombie) produce(partitions []int32, n int) []reply {
	var replies []reply
	for range n {
		for _, p := range partitions {
			rep := reply{p, make(chan error, 1)}
			s := z.told.Send(topic, p)
			go func() { // ends with its answer, or with the test's client
				ctx, cancel := context.WithTimeout(context.Background(), 2*replyMax)
				defer cancel()
				offset, err := z.send(ctx, p, plainBatch(s.Bytes(64)))
				s.Done(offset, err)
				rep.err <- err
			}()
			replies = append(replies, rep)
		}
	}
	return replies
}

func (z *zombie) send(ctx context.Context, partition int32, batch []byte) (int64, error) {
	req := kmsg.NewPtrProduceRequest()
	req.Acks = -1
	req.TimeoutMillis = int32(replyMax.Milliseconds())
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = partition, batch
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.Partitions = topic, []kmsg.ProduceRequestTopicPartition{part}
	req.Topics = []kmsg.ProduceRequestTopic{rt}
	resp, err := z.cl.SeedBrokers()[0].Request(ctx, req)
	if err != nil {
		return -1, err
	}
	got := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return got.BaseOffset, kerr.ErrorForCode(got.ErrorCode)
}

// plainBatch is a record batch of one record from a producer without an id.
func plainBatch(value []byte) []byte {
	record := kmsg.Record{Value: value}
	body := record.AppendTo(nil)
	record.Length = int32(len(body) - 1) // the length itself took one byte, being 0
	now := time.Now().UnixMilli()
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: 1, Records: record.AppendTo(nil),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}
