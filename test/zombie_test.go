package test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/harness"
)

const (
	// pastLease is well beyond the life of a broker's etcd session.
	pastLease = 20 * time.Second
	// hangAckMax is what a client may see after its leader fell silent.
	hangAckMax = 18 * time.Second
)

// TestPausedLeader stops a leader past its lease, queues writes in its sockets
// and lets it go on: it must refuse every one of them.
func TestPausedLeader(t *testing.T) {
	harness.System(t)
	c := harness.StartCluster(t, harness.Options{})
	createTopic(t, c, chaosTopic, chaosPartitions)
	adm := newAdmin(t, c)
	l := startLoad(t, c, chaosTopic, chaosPartitions, 2, 100)
	l.waitAcks(time.Now(), 20*time.Second)

	victim := c.Brokers[0]
	var f fault
	// A topic made while the brokers still learn of each other is levelled a
	// second later.
	harness.Eventually(t, 10*time.Second, "the broker to pause leads something", func() error {
		if f = faultOn(t, adm, victim); len(f.led) == 0 {
			return errors.New("it leads nothing")
		}
		return nil
	})
	zombie := dialZombie(t, victim, l.hist)
	for _, r := range zombie.produce(f.led, 1) {
		if err := r.await(t); err != nil {
			t.Fatalf("the leader refused a write before it was paused, so refusals would show nothing: %v", err)
		}
	}
	pause := l.hist.Fault("pause", checker.Minority, victim.Name)
	victim.Pause()
	f.at = time.Now()
	// Two waves: writes that were on their way when the leader stopped, and
	// writes sent when others had long taken over.
	replies := zombie.produce(f.led, 1)
	harness.Eventually(t, 2*pastLease, "others lead what the paused broker led", func() error {
		for _, p := range f.led {
			if _, ok := l.firstAck(p, f.at); !ok {
				return fmt.Errorf("partition %d", p)
			}
		}
		return nil
	})
	taken := l.recovery([]fault{f})
	figure(t, "silent stop to the next acknowledgement: p50 %v, max %v", middle(taken), slices.Max(taken))
	if slices.Max(taken) > hangAckMax {
		t.Errorf("after a silent stop: want max <= %v", hangAckMax)
	}
	time.Sleep(time.Until(f.at.Add(pastLease)))
	replies = append(replies, zombie.produce(f.led, 15)...)
	time.Sleep(500 * time.Millisecond) // the second wave reaches the zombie's sockets
	victim.Resume()
	pause.End()

	refused, commits := 0, 0
	for _, r := range replies {
		if err := r.await(t); err == nil {
			commits++
			t.Errorf("a deposed leader acknowledged a write to partition %d", r.partition)
			continue
		}
		refused++
	}
	figure(t, "writes to the resumed zombie: %d refused, %d acknowledged", refused, commits)
	if !victim.Running() {
		victim.Start()
	}
	victim.WaitReady()
	l.hist.Heal()
	l.waitAcks(time.Now(), 30*time.Second)
	l.finish()
}

// zombie sends produce requests to one broker, whatever the metadata says.
type zombie struct {
	t    *testing.T
	cl   *kgo.Client
	node int32
	name string
	p    *checker.Producer
}

func dialZombie(t *testing.T, b *harness.Broker, h *checker.History) *zombie {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr), kgo.RequestRetries(0), kgo.RequestTimeoutOverhead(90*time.Second),
		kgo.MaxVersions(kversion.V2_8_0())) // produce by topic name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	z := &zombie{t: t, cl: cl, node: -1, name: b.Name, p: h.PlainProducer("zombie")}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range meta.Brokers {
		if fmt.Sprintf("%s:%d", m.Host, m.Port) == b.Addr {
			z.node = m.NodeID
		}
	}
	return z
}

type reply struct {
	partition int32
	err       chan error
}

// await is nil when the write was acknowledged.
func (r reply) await(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.err:
		return err
	case <-time.After(60 * time.Second):
		t.Errorf("a write to partition %d was neither refused nor acknowledged", r.partition)
		return nil
	}
}

// produce sends n writes to each partition and does not wait for the answers.
func (z *zombie) produce(partitions []int32, n int) []reply {
	var replies []reply
	for range n {
		for _, p := range partitions {
			r := reply{p, make(chan error, 1)}
			s := z.p.Send(chaosTopic, p)
			s.At(z.name)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
				defer cancel()
				offset, err := z.send(ctx, p, plainBatch(s.Bytes(64)))
				s.Done(offset, err)
				r.err <- err
			}()
			replies = append(replies, r)
		}
	}
	return replies
}

func (z *zombie) send(ctx context.Context, partition int32, batch []byte) (int64, error) {
	req := kmsg.NewPtrProduceRequest()
	req.Acks = -1
	req.TimeoutMillis = 60_000
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = partition, batch
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = chaosTopic, []kmsg.ProduceRequestTopicPartition{part}
	req.Topics = []kmsg.ProduceRequestTopic{topic}
	resp, err := z.cl.Broker(int(z.node)).Request(ctx, req)
	if err != nil {
		return 0, err
	}
	got := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return got.BaseOffset, kerr.ErrorForCode(got.ErrorCode)
}

// plainBatch is a record batch of one record from a producer without an id.
func plainBatch(value []byte) []byte {
	record := kmsg.Record{Value: value}
	body := record.AppendTo(nil)
	record.Length = int32(len(body) - 1) // the length itself took one byte, being 0
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, FirstTimestamp: time.Now().UnixMilli(),
		MaxTimestamp: time.Now().UnixMilli(), ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		NumRecords: 1, Records: record.AppendTo(nil),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}
