package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

const offsetsTopic = "__consumer_offsets"

// TestOffsetsTopic reads __consumer_offsets with Kafka's own formatter: what it
// prints last of each partition is what was committed, also after every
// coordinator was killed. Nobody but the coordinators writes to it.
func TestOffsetsTopic(t *testing.T) {
	harness.System(t)
	c := harness.StartCluster(t, harness.Options{})
	k := &tools{t: t, c: c}
	adm := newAdmin(t, c)
	createTopic(t, c, "day", 4)

	want := map[string]int64{}
	commit := func(group string, offset int64) {
		t.Helper()
		var offsets kadm.Offsets
		for p := range int32(4) {
			offsets.AddOffset("day", p, offset+int64(p), -1)
			want[fmt.Sprintf("%s/%d", group, p)] = offset + int64(p)
		}
		harness.Eventually(t, 30*time.Second, "a commit", func() error {
			resp, err := adm.CommitOffsets(t.Context(), group, offsets)
			return errors.Join(err, resp.Error())
		})
	}
	for i := range 10 {
		for g := range 8 {
			commit(fmt.Sprintf("group-%d", g), int64(i*100))
		}
	}
	var lines bytes.Buffer
	lines.WriteString("a\nb\n")
	k.input(&lines, producerTool, "--topic", "day")
	k.run(consumerTool, "--topic", "day", "--group", "group-9", "--from-beginning", "--max-messages", "2")
	k.run(topicsTool, "--describe", "--topic", offsetsTopic).want("PartitionCount: 50", "Partition: 49")
	k.wantCopies(want, "group-9")

	for _, b := range c.Brokers {
		b.Kill()
		commit("group-3", 5000)
		commit("group-new-"+b.Name, 7)
		b.Start()
	}
	k.wantCopies(want, "group-9")

	cl := newClient(t, c)
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: offsetsTopic, Value: []byte("x")}).FirstErr(); !errors.Is(err, kerr.InvalidTopicException) {
		t.Errorf("producing to %s: %v", offsetsTopic, err)
	}
	if resp, err := adm.DeleteTopic(t.Context(), offsetsTopic); err == nil && resp.Err == nil {
		t.Errorf("%s was deleted", offsetsTopic)
	}
}

// wantCopies waits until the formatter prints want, and the group's members.
func (k *tools) wantCopies(want map[string]int64, group string) {
	k.t.Helper()
	adm := newAdmin(k.t, k.c)
	harness.Eventually(k.t, time.Minute, "every commit in "+offsetsTopic, func() error {
		ends, err := adm.ListEndOffsets(k.t.Context(), offsetsTopic)
		if err != nil {
			return err
		}
		var total int64
		ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
		got := map[string]int64{}
		type printed struct {
			Key struct {
				Data struct {
					Group, Topic string
					Partition    int32
				}
			}
			Value *struct{ Data struct{ Offset int64 } }
		}
		for d := json.NewDecoder(strings.NewReader(k.format("OffsetsMessageFormatter", total))); d.More(); {
			var r printed
			if err := d.Decode(&r); err != nil {
				return err
			}
			if r.Value != nil && r.Key.Data.Topic == "day" {
				got[fmt.Sprintf("%s/%d", r.Key.Data.Group, r.Key.Data.Partition)] = r.Value.Data.Offset
			}
		}
		for key, offset := range want {
			if got[key] != offset {
				return fmt.Errorf("%s is at %d, want %d", key, got[key], offset)
			}
		}
		if groups := k.format("GroupMetadataMessageFormatter", total); !strings.Contains(groups, `"group":"`+group+`"`) {
			return fmt.Errorf("no group %s in:\n%s", group, groups)
		}
		return nil
	})
}

// format prints the first records of the topic as a formatter of Kafka's does:
// one JSON object after the other.
func (k *tools) format(formatter string, records int64) string {
	k.t.Helper()
	return k.run(consumerTool, "--topic", offsetsTopic, "--from-beginning", "--max-messages", fmt.Sprint(records),
		"--formatter", "org.apache.kafka.tools.consumer."+formatter).stdout
}
