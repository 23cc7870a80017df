package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

// TestEmbeddedRestart is what someone does first: start, write, read in a
// group, press Ctrl-C, start again. Everything is still there.
func TestEmbeddedRestart(t *testing.T) {
	harness.System(t)
	const topic, group, records = "first", "readers", 1000
	c := harness.StartEmbedded(t)
	b := c.Brokers[0]
	for _, want := range []string{b.Addr, b.Dir, "Tidemark"} {
		if !strings.Contains(b.Log(), want) {
			t.Errorf("the start-up message does not tell %s:\n%s", want, b.Log())
		}
	}
	createTopic(t, c, topic, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	producer := newClient(t, c, kgo.DefaultProduceTopic(topic))
	for i := range records {
		producer.Produce(ctx, kgo.StringRecord(fmt.Sprint(i)), func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := producer.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumeGroup(ctx, t, c, topic, group, records)
	adm := newAdmin(t, c)
	committed := committedOffsets(ctx, t, adm, group)
	ends := endOffsets(t, adm, topic)

	for range 2 {
		took, err := b.Interrupt(10 * time.Second)
		if err != nil {
			t.Errorf("Ctrl-C: %v", err)
		}
		if took > 5*time.Second {
			t.Errorf("Ctrl-C took %v, want at most 5 s", took)
		}
		begun := time.Now()
		b.Start()
		figure(t, "stopped in %v, ready again in %v", took.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
		adm := newAdmin(t, c)
		if got := endOffsets(t, adm, topic); fmt.Sprint(got) != fmt.Sprint(ends) {
			t.Errorf("end offsets after the restart: %v, want %v", got, ends)
		}
		if got := committedOffsets(ctx, t, adm, group); got != committed {
			t.Errorf("committed offsets after the restart: %s, want %s", got, committed)
		}
		seen := make(map[string]bool)
		scan(t, c, topic, func(r *kgo.Record) { seen[string(r.Value)] = true })
		if len(seen) != records {
			t.Errorf("%d records after the restart, want %d", len(seen), records)
		}
	}
}

func consumeGroup(ctx context.Context, t *testing.T, c *harness.Cluster, topic, group string, n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Seeds()...), kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for got := 0; got < n; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("group read %d of %d: %v", got, n, err)
		}
		got += fetches.NumRecords()
	}
	if err := cl.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
}

func committedOffsets(ctx context.Context, t *testing.T, adm *kadm.Client, group string) string {
	t.Helper()
	var text string
	// A restarted coordinator may answer that it is loading; the client tries again.
	harness.Eventually(t, 20*time.Second, "committed offsets", func() error {
		offsets, err := adm.FetchOffsets(ctx, group)
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return err
		}
		var parts []string
		for _, o := range offsets.Sorted() {
			parts = append(parts, fmt.Sprintf("%s/%d=%d", o.Topic, o.Partition, o.At))
		}
		text = strings.Join(parts, " ")
		return nil
	})
	return text
}
