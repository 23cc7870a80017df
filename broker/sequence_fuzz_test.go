package broker

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
)

// FuzzSequence sends sequences of requests, mutated, to the real dispatch, log
// and groups over stores in memory, each on a broker of its own and on fake
// time. No request may panic, stay unanswered for ever on an open connection,
// leave a goroutine behind, or keep others from writing and reading.
func FuzzSequence(f *testing.F) {
	for i, requests := range sequences(f) {
		var r [sequenceLen][]byte
		copy(r[:], requests)
		script := everyBit(awaited | bound | resummed)
		if i%4 == 0 {
			script = 0 // all at once, as they are
		}
		f.Add(r[0], r[1], r[2], r[3], r[4], r[5], script)
	}
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g []byte, script uint64) {
		synctest.Test(t, func(t *testing.T) { playSequence(t, [][]byte{a, b, c, d, e, g}, script) })
	})
}

// everyBit is a script in which every request has the given bits.
func everyBit(bits uint64) (script uint64) {
	for i := range sequenceLen {
		script |= bits << (i * scriptBits)
	}
	return script
}

func playSequence(t *testing.T, requests [][]byte, script uint64) {
	ln := newPipes()
	registry := prometheus.NewRegistry()
	k := startStack(t, ln, "pipe", 1, func(cfg *Config) {
		cfg.FrameBytesMax, cfg.DecodeBytesMax, cfg.Logger, cfg.Registerer = 1<<20, 1<<20, slog.New(slog.DiscardHandler), registry
		cfg.TopicPartitionsMax = 50
	})
	defer k.stop()
	for i, name := range []string{"t", "traffic", "probed"} {
		putTopic(t, k.kv, metadata.TopicID{byte(i + 1)}, name)
	}
	synctest.Wait()
	p := newPlayer(ln.dial)
	for i, request := range requests {
		p.play(int32(i+1), request, script>>(i*scriptBits)&(1<<scriptBits-1))
	}
	for i, l := range p.conns {
		if l == nil {
			continue
		}
		for correlation := range int32(sequenceLen) {
			l.mu.Lock()
			req := l.asked[correlation+1]
			l.mu.Unlock()
			if produce, ok := req.(*kmsg.ProduceRequest); ok && produce.Acks == 0 {
				continue // never answered
			}
			if req != nil && !l.await(correlation+1) {
				t.Errorf("request %d, %s version %d, is neither answered nor its connection %d closed", correlation+1, kmsg.NameForKey(req.Key()), req.GetVersion(), i)
			}
		}
	}
	p.close()
	probe(t, ln, "probed")
	if n := panics(t, registry); n > 0 {
		t.Errorf("%v requests panicked", n)
	}
}

// putTopic makes a topic of two partitions with an id that is known beforehand.
func putTopic(t *testing.T, kv metadata.KV, id metadata.TopicID, name string) {
	t.Helper()
	topic := metadata.Topic{ID: id, Name: name, Partitions: 2, ReplicationFactor: 1, Created: time.Now()}
	ops := []metadata.Op{metadata.Put(metadata.TopicKey(id), toJSON(t, topic)), metadata.Put(metadata.TopicNameKey(name), toJSON(t, metadata.TopicName{ID: id}))}
	for p := range topic.Partitions {
		ops = append(ops, metadata.Put(metadata.PartitionKey(metadata.TopicPartition{Topic: id, Partition: p}), toJSON(t, metadata.Partition{})))
	}
	if _, err := kv.Txn(context.Background(), metadata.Txn{Then: ops}); err != nil {
		t.Fatal(err)
	}
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func panics(t *testing.T, g prometheus.Gatherer) (n float64) {
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "tidemark_panics_total" {
			for _, m := range family.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// sequences are what the fuzzer begins with: what clients do with a group, a
// topic and a producer, and what real clients did.
func sequences(f *testing.F) [][][]byte {
	var all [][][]byte
	for _, frames := range traffic(f) {
		for few := range slices.Chunk(frames, sequenceLen) {
			all = append(all, few)
		}
	}
	for _, version := range []int16{0, 2, 4, 7, 9, 12, 99} {
		var group, log, admin [][]byte
		for _, key := range []kmsg.Key{kmsg.FindCoordinator, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.LeaveGroup} {
			group = append(group, seed(key, version))
		}
		for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch, kmsg.Fetch} {
			log = append(log, seed(key, version))
		}
		for _, key := range []kmsg.Key{kmsg.CreateTopics, kmsg.CreatePartitions, kmsg.Metadata, kmsg.IncrementalAlterConfigs, kmsg.DescribeConfigs, kmsg.DeleteTopics} {
			admin = append(admin, seed(key, version))
		}
		all = append(all, group, log, admin)
	}
	return all
}

// seed is a request of a version, or of the newest there is.
func seed(key kmsg.Key, version int16) []byte {
	req := kmsg.RequestForKey(int16(key))
	req.SetVersion(min(version, req.MaxVersion()))
	fillRequest(req, [16]byte{1})
	fillSequence(req)
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("seed")).AppendRequest(nil, req, 1)[4:]
}

// fillSequence makes requests belong together: one group, one topic.
func fillSequence(req kmsg.Request) {
	switch q := req.(type) {
	case *kmsg.FindCoordinatorRequest:
		q.CoordinatorKey, q.CoordinatorKeys = "g", []string{"g"}
	case *kmsg.JoinGroupRequest:
		q.Group, q.SessionTimeoutMillis, q.RebalanceTimeoutMillis, q.ProtocolType = "g", 10_000, 10_000, "consumer"
		protocol := kmsg.NewJoinGroupRequestProtocol()
		protocol.Name, protocol.Metadata = "range", []byte{0, 0, 0, 0, 0, 1, 0, 1, 't', 0, 0, 0, 0}
		q.Protocols = append(q.Protocols, protocol)
	case *kmsg.SyncGroupRequest:
		q.Group = "g"
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberAssignment = []byte("all of it")
		q.GroupAssignment = append(q.GroupAssignment, a)
	case *kmsg.OffsetCommitRequest:
		q.Group = "g"
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Offset = 3
		q.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", TopicID: [16]byte{1}, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	case *kmsg.OffsetFetchRequest:
		q.Group = "g"
		q.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{0, 1}}}
		q.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", TopicID: [16]byte{1}, Partitions: []int32{0, 1}}}}}
	case *kmsg.LeaveGroupRequest:
		q.Group, q.Members = "g", []kmsg.LeaveGroupRequestMember{{}}
	case *kmsg.CreateTopicsRequest:
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = "made", 3, 1
		q.Topics, q.TimeoutMillis = append(q.Topics, t), 1000
	case *kmsg.CreatePartitionsRequest:
		t := kmsg.NewCreatePartitionsRequestTopic()
		t.Topic, t.Count = "made", 5
		q.Topics, q.TimeoutMillis = append(q.Topics, t), 1000
	case *kmsg.IncrementalAlterConfigsRequest:
		value := "1000"
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, "t"
		r.Configs = append(r.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: "retention.ms", Value: &value})
		q.Resources = append(q.Resources, r)
	case *kmsg.DeleteTopicsRequest:
		name := "made"
		q.TopicNames, q.TimeoutMillis = []string{name}, 1000
		q.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &name}}
	}
}
