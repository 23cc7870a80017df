package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

// newClient is a franz-go client of the cluster that is closed with the test.
func newClient(t *testing.T, c *harness.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.Seeds()...),
		kgo.MetadataMinAge(100 * time.Millisecond), // find new leaders as soon as an application can
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func newAdmin(t *testing.T, c *harness.Cluster) *kadm.Client {
	t.Helper()
	return kadm.NewClient(newClient(t, c))
}

func createTopic(t *testing.T, c *harness.Cluster, topic string, partitions int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	adm := newAdmin(t, c)
	if _, err := adm.CreateTopic(ctx, partitions, -1, nil, topic); err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
	harness.Eventually(t, 20*time.Second, "a leader for every partition of "+topic, func() error {
		_, err := leaders(ctx, adm, topic)
		return err
	})
}

// leaders maps each partition of topic to the address of its leader. It is an
// error when one has none.
func leaders(ctx context.Context, adm *kadm.Client, topic string) (map[int32]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	meta, err := adm.Metadata(ctx, topic)
	if err != nil {
		return nil, err
	}
	addr := make(map[int32]string)
	for _, b := range meta.Brokers {
		addr[b.NodeID] = fmt.Sprintf("%s:%d", b.Host, b.Port)
	}
	td, ok := meta.Topics[topic]
	if !ok || td.Err != nil || len(td.Partitions) == 0 {
		return nil, fmt.Errorf("topic %s: %v", topic, td.Err)
	}
	by := make(map[int32]string)
	for p, pd := range td.Partitions {
		if pd.Err != nil || addr[pd.Leader] == "" {
			return nil, fmt.Errorf("partition %d: leader %d, %v", p, pd.Leader, pd.Err)
		}
		by[p] = addr[pd.Leader]
	}
	return by, nil
}

// endOffsets is the high watermark of every partition of topic. A partition
// whose leader is just moving is asked again, as clients do.
func endOffsets(t *testing.T, adm *kadm.Client, topic string) map[int32]int64 {
	t.Helper()
	ends := make(map[int32]int64)
	harness.Eventually(t, 30*time.Second, "end offsets of "+topic, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		listed, err := adm.ListEndOffsets(ctx, topic)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return err
		}
		listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
		return nil
	})
	return ends
}

// scan reads a whole topic from its beginning to the high watermarks of now.
func scan(t *testing.T, c *harness.Cluster, topic string, each func(*kgo.Record)) {
	t.Helper()
	ends := endOffsets(t, newAdmin(t, c), topic)
	offsets := make(map[int32]kgo.Offset)
	for p, end := range ends {
		if end > 0 {
			offsets[p] = kgo.NewOffset().At(0)
		}
	}
	if len(offsets) == 0 {
		return
	}
	cl := newClient(t, c,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for left := len(offsets); left > 0; {
		fetches := cl.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			t.Fatalf("scan of %s/%d: %v", e.Topic, e.Partition, e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset >= ends[r.Partition] {
				return
			}
			each(r)
			if r.Offset == ends[r.Partition]-1 {
				left--
			}
		})
	}
}

// figure reports a measured number: in the test's log, and in a file when logs
// are kept.
func figure(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	t.Log("figure: " + line)
	dir := os.Getenv("TIDEMARK_TEST_LOGS")
	if dir == "" {
		return
	}
	f, err := os.OpenFile(filepath.Join(dir, "figures.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "%s %s: %s\n", time.Now().Format(time.RFC3339), t.Name(), line)
}
