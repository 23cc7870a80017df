package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

const deleteRecordsTool = "org.apache.kafka.tools.DeleteRecordsCommand"

// TestRetention has a topic that keeps a megabyte a partition and one whose
// records are deleted by command, while brokers are killed: what is kept is kept
// byte by byte, what is deleted never comes back, and its space does.
func TestRetention(t *testing.T) {
	harness.System(t)
	const kept, cut, partitions = "kept", "cut", 4
	c := harness.StartCluster(t, harness.Options{Args: tinyTiering})
	adm, k := newAdmin(t, c), &tools{t: t, c: c}
	createTopic(t, c, kept, partitions)
	createTopic(t, c, cut, partitions)
	sent, other, low := make([]int, partitions), make([]int, partitions), make([]int64, partitions)
	for round := range 3 {
		produceTiered(t, c, kept, sent, func(int) int { return 3000 })
		produceTiered(t, c, cut, other, func(p int) int { return 1500 >> p })
		var kill sync.WaitGroup
		kill.Go(func() {
			b := c.Brokers[round%len(c.Brokers)]
			time.Sleep(time.Duration(50*round) * time.Millisecond)
			b.Kill()
			time.Sleep(time.Second)
			b.Start()
		})
		for p := range low {
			low[p] = deleteBelow(t, adm, cut, int32(p), int64(other[p]*(round+1)/4))
		}
		kill.Wait()
		if round == 1 {
			setConfig(t, adm, kept, "retention.bytes", "1048576")
			c.Disaster()
		}
		checkKept(t, c, cut, other, low)
	}
	var starts []int64
	harness.Eventually(t, 2*time.Minute, "a megabyte a partition, and a segment", func() error {
		starts = startOffsets(t, adm, kept)
		for p, start := range starts {
			if held := int64(sent[p])*600 - start*600; start == 0 || held > 8<<20 {
				return fmt.Errorf("partition %d begins at %d of %d", p, start, sent[p])
			}
		}
		_, size := objects(t, c)
		if total := size["s"] + size["x"]; total > partitions*(4<<20)+(6<<20) {
			return fmt.Errorf("%d bytes in segments", total)
		}
		return nil
	})
	_, size := objects(t, c)
	figure(t, "bytes in the bucket %v, log starts %v of %v", size, starts, sent)
	checkKept(t, c, kept, sent, startOffsets(t, adm, kept))
	c.Audit()

	// Kafka's own tool, to the end of everything.
	file := filepath.Join(t.TempDir(), "offsets.json")
	var list []string
	for p := range partitions {
		list = append(list, fmt.Sprintf(`{"topic":%q,"partition":%d,"offset":-1}`, cut, p))
	}
	if err := os.WriteFile(file, []byte(`{"version":1,"partitions":[`+strings.Join(list, ",")+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	printed := k.run(deleteRecordsTool, "--offset-json-file", file)
	for p := range partitions {
		printed.want(fmt.Sprintf("partition: %s-%d\tlow_watermark: %d", cut, p, other[p]))
		low[p] = int64(other[p])
	}
	checkKept(t, c, cut, other, low)
	setConfig(t, adm, cut, "cleanup.policy", "compact")
	if _, err := tryDelete(t.Context(), adm, cut, 0, int64(other[0])); !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("deleting records of a compacted topic: %v", err)
	}
	if _, err := adm.DeleteTopic(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 2*time.Minute, "all of it gone", func() error {
		count, size := objects(t, c)
		// Each chain keeps what ended it and the newest slots below.
		if count["s"]+count["m"]+count["x"] > 0 || count["w"] > 9*3*4+60 {
			return fmt.Errorf("objects %v, bytes %v", count, size)
		}
		return nil
	})
	c.Disaster()
	checkKept(t, c, cut, other, low)
	c.Audit()
}

func setConfig(t *testing.T, adm *kadm.Client, topic, name, value string) {
	t.Helper()
	resp, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: name, Value: &value}}, topic)
	if err == nil {
		_, err = resp.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	}
	if err != nil {
		t.Fatal(err)
	}
}

func tryDelete(ctx context.Context, adm *kadm.Client, topic string, p int32, offset int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, p, offset, -1)
	resp, err := adm.DeleteRecords(ctx, offsets)
	if err != nil {
		return -1, err
	}
	r, ok := resp.Lookup(topic, p)
	if !ok {
		return -1, errors.New("no answer for the partition")
	}
	return r.LowWatermark, r.Err
}

// deleteBelow deletes records, asking again as leaders change.
func deleteBelow(t *testing.T, adm *kadm.Client, topic string, p int32, offset int64) (low int64) {
	t.Helper()
	harness.Eventually(t, time.Minute, "deletion of records", func() (err error) {
		low, err = tryDelete(t.Context(), adm, topic, p, offset)
		return err
	})
	if low != offset {
		t.Errorf("%s/%d: records below %d deleted, low watermark %d", topic, p, offset, low)
	}
	return low
}

func startOffsets(t *testing.T, adm *kadm.Client, topic string) (starts []int64) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, "start offsets", func() error {
		listed, err := adm.ListStartOffsets(t.Context(), topic)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return err
		}
		starts = make([]int64, len(listed[topic]))
		listed.Each(func(o kadm.ListedOffset) { starts[o.Partition] = o.Offset })
		return nil
	})
	return starts
}

// checkKept reads a topic from the given offsets on and wants what was sent, byte
// by byte; the log begins there or, where retention goes on, behind. Below the log
// start there is nothing to be had.
func checkKept(t *testing.T, c *harness.Cluster, topic string, sent []int, from []int64) {
	t.Helper()
	now := startOffsets(t, newAdmin(t, c), topic)
	offsets := make(map[int32]kgo.Offset)
	next := make([]int64, len(sent))
	for p := range sent {
		if now[p] < from[p] {
			t.Fatalf("%s/%d begins at %d after it began at %d", topic, p, now[p], from[p])
		}
		if next[p] = now[p]; int(next[p]) < sent[p] {
			offsets[int32(p)] = kgo.NewOffset().At(next[p])
		}
	}
	if len(offsets) > 0 {
		cl := newClient(t, c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		for left := len(offsets); left > 0; {
			fetches := cl.PollFetches(ctx)
			for _, e := range fetches.Errors() {
				t.Fatalf("read %s/%d: %v", e.Topic, e.Partition, e.Err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				p := r.Partition
				if r.Offset < next[p] || r.Offset >= int64(sent[p]) || !bytes.Equal(r.Value, payload(p, int(r.Offset))) {
					t.Fatalf("%s/%d, offset %d where %d belongs: %d bytes %.20q", topic, p, r.Offset, next[p], len(r.Value), r.Value)
				}
				if r.Offset > next[p] { // retention was there first
					if start := startOffsets(t, newAdmin(t, c), topic)[p]; start < r.Offset {
						t.Fatalf("%s/%d: a gap from %d to %d, the log begins at %d", topic, p, next[p], r.Offset, start)
					}
				}
				if next[p] = r.Offset + 1; int(next[p]) == sent[p] {
					left--
				}
			})
		}
	}
	for p := range sent {
		if now[p] == 0 {
			continue
		}
		cl := newClient(t, c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {int32(p): kgo.NewOffset().At(now[p] - 1)}}), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := cl.PollFetches(ctx).Err()
		cancel()
		if !errors.Is(err, kerr.OffsetOutOfRange) {
			t.Errorf("%s/%d: reading at %d, below the log start: %v", topic, p, now[p]-1, err)
		}
		cl.Close()
	}
}
