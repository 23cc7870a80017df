package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

const (
	trafficTopic = "traffic"
	trafficMax   = 1 << 20 // bytes of the corpus
)

// TestRecordTraffic records what real clients send while they create, produce,
// consume in groups and look around, as the corpus that the request fuzzers
// begin with. It is run by hand when a client or an API is new:
//
//	TIDEMARK_RECORD=broker/testdata/traffic go test -run TestRecordTraffic ./test
//
// Without that variable it records into a directory that is thrown away, and
// shows that the clients still speak.
func TestRecordTraffic(t *testing.T) {
	harness.System(t)
	dir := t.TempDir()
	if to := os.Getenv("TIDEMARK_RECORD"); to != "" {
		dir = filepath.Join(harness.Root(t), to)
	}
	rec := newRecorder(t)
	c := harness.StartEmbedded(t, "--advertise", rec.ln.Addr().String())
	c.Brokers[0].Advertised = rec.ln.Addr().String()
	rec.mu.Lock()
	rec.broker = c.Brokers[0].Addr
	rec.mu.Unlock()

	rec.as("franz-go")
	createTopic(t, c, trafficTopic, 2)
	ids := franzTraffic(t, c)
	k := &tools{t: t, c: c}
	rec.as("kcat")
	kcatTraffic(k)
	rec.as("java")
	javaTraffic(k)
	total := rec.save(dir, ids)
	if total > trafficMax {
		t.Errorf("the corpus has %d bytes, more than %d", total, trafficMax)
	}
	clients := make(map[string]int)
	rec.mu.Lock()
	for _, line := range rec.lines {
		clients[line.client] += len(line.frames)
	}
	rec.mu.Unlock()
	figure(t, "recorded %v requests, kept %d bytes of them in %s", clients, total, dir)
	for _, client := range []string{"franz-go", "kcat", "java"} {
		if clients[client] < 20 {
			t.Errorf("%d requests of %s were recorded", clients[client], client)
		}
	}
}

// franzTraffic returns the ids of the topics it made, and what to call them.
func franzTraffic(t *testing.T, c *harness.Cluster) map[[16]byte][16]byte {
	t.Helper()
	adm := newAdmin(t, c)
	ctx := t.Context()
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		cl := newClient(t, c, kgo.ProducerBatchCompression(codec), kgo.DefaultProduceTopic(trafficTopic))
		for j := range 3 {
			r := &kgo.Record{Key: fmt.Appendf(nil, "key-%d", j), Value: bytes.Repeat([]byte("value "), 20), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{byte(i)}}}}
			if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		cl.Close()
	}
	cl := newClient(t, c, kgo.ConsumeTopics(trafficTopic), kgo.ConsumerGroup("franz"), kgo.DisableAutoCommit())
	for n := 0; n < 15; {
		n += len(cl.PollFetches(ctx).Records())
	}
	if err := cl.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	for _, try := range []func() error{
		func() error { _, err := adm.Lag(ctx, "franz"); return err },
		func() error { _, err := adm.DescribeGroups(ctx, "franz"); return err },
		func() error { _, err := adm.ListGroups(ctx); return err },
		func() error { _, err := adm.ListOffsetsAfterMilli(ctx, 1, trafficTopic); return err },
		func() error { _, err := adm.DescribeTopicConfigs(ctx, trafficTopic); return err },
		func() error { _, err := adm.CreateTopic(ctx, 1, -1, nil, "passing"); return err },
		func() error { _, err := adm.CreatePartitions(ctx, 2, "passing"); return err },
		func() error { _, err := adm.DeleteTopics(ctx, "passing"); return err },
	} {
		if err := try(); err != nil {
			t.Fatal(err)
		}
	}
	listed, err := adm.ListTopics(ctx, trafficTopic)
	if err != nil {
		t.Fatal(err)
	}
	return map[[16]byte][16]byte{listed[trafficTopic].ID: {2}}
}

func kcatTraffic(k *tools) {
	k.t.Helper()
	produce := harness.Kcat(k.t, "-b", k.c.Bootstrap(), "-P", "-t", trafficTopic, "-X", "enable.idempotence=true", "-z", "lz4")
	produce.Stdin = bytes.NewBufferString("one\ntwo\nthree\n")
	k.judge("kcat -P", produce)
	k.kcat("-L")
	k.kcat("-Q", "-t", trafficTopic+":0:0", "-t", trafficTopic+":1:-1")
	k.kcat("-C", "-t", trafficTopic, "-o", "beginning", "-e", "-q")
	// kcat says on standard error how its membership goes.
	group := harness.Kcat(k.t, "-b", k.c.Bootstrap(), "-G", "kcat", "-c", "10", "-q", "-X", "auto.offset.reset=earliest", trafficTopic)
	if _, err := group.Run(); err != nil {
		k.t.Fatal(err)
	}
}

func javaTraffic(k *tools) {
	k.t.Helper()
	k.run(topicsTool, "--create", "--topic", "java-made", "--partitions", "2")
	k.run(topicsTool, "--alter", "--topic", "java-made", "--partitions", "3")
	k.run(topicsTool, "--describe")
	k.input(bytes.NewBufferString("a\nb\nc\n"), producerTool, "--topic", trafficTopic)
	k.run(consumerTool, "--topic", trafficTopic, "--group", "java", "--from-beginning", "--max-messages", "10")
	k.run(groupsTool, "--describe", "--group", "java")
	k.run(groupsTool, "--reset-offsets", "--group", "java", "--topic", trafficTopic, "--to-earliest", "--execute")
	k.run(groupsTool, "--delete", "--group", "java")
	k.run(offsetsTool, "--topic", trafficTopic, "--time", "-1")
	k.run(versionsTool)
	k.run(topicsTool, "--delete", "--topic", "java-made")
}
