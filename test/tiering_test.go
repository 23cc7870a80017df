package test

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

// tinyTiering makes tiering, trimming and collection a matter of seconds.
var tinyTiering = []string{
	"--tier-interval", "500ms", "--tier-age", "2s", "--tier-segment-bytes", "1MiB", "--tier-segment-bytes-max", "2MiB",
	"--collect-interval", "1s", "--sweep-interval", "5s", "--sweep-age", "5s", "--delete-grace", "1s", "--retention-interval", "500ms",
}

// objects counts what lies in the bucket, by the first letter of the key.
func objects(t *testing.T, c *harness.Cluster) (count map[string]int, size map[string]int64) {
	t.Helper()
	count, size = make(map[string]int), make(map[string]int64)
	store := c.StoreConfig()
	for o := range c.MinIO.Client().ListObjects(t.Context(), store.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		kind, _, _ := strings.Cut(o.Key, "/")
		count[kind]++
		size[kind] += o.Size
	}
	return count, size
}

// payload is the value of a record, made from its name; some compress, some do not.
func payload(partition int32, i int) []byte {
	name := fmt.Sprintf("%d/%d ", partition, i)
	if i%3 == 0 {
		return []byte(name + strings.Repeat("the same again and again ", 40))
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	b := make([]byte, 1000)
	for j := range b {
		b[j] = byte(r.Uint32())
	}
	return append([]byte(name), b...)
}

// TestTiering writes to partitions of very different sizes until write-ahead
// objects have become segments and are gone, kills everything, several times
// while that goes on, and reads every byte back.
func TestTiering(t *testing.T) {
	harness.System(t)
	const topic, partitions, rounds = "tiered", 12, 4
	c := harness.StartCluster(t, harness.Options{Args: tinyTiering})
	createTopic(t, c, topic, partitions)
	sent := make([]int, partitions)
	for round := range rounds {
		produceTiered(t, c, topic, sent, func(p int) int { return 6000 >> p })
		if round < rounds-1 {
			time.Sleep(time.Duration(round) * time.Second) // into tiering, trimming, collection
			c.Disaster()
		}
	}
	var count map[string]int
	var size map[string]int64
	harness.Eventually(t, 2*time.Minute, "everything tiered, write-ahead objects gone", func() error {
		count, size = objects(t, c)
		// Each chain keeps what ended it and the newest slots below.
		if limit := 9*3*rounds + 60; count["w"] > limit || count["s"] == 0 || count["x"] == 0 {
			return fmt.Errorf("objects %v, bytes %v; want at most %d write-ahead objects, and segments of both kinds", count, size, limit)
		}
		return nil
	})
	figure(t, "objects %v, bytes %v", count, size)
	checkTiered(t, c, topic, sent)
	c.Audit()
	c.Disaster()
	checkTiered(t, c, topic, sent)
	c.Audit()
}

// produceTiered sends more records to each partition, size(p) of them, and adds
// to sent how many there are.
func produceTiered(t *testing.T, c *harness.Cluster, topic string, sent []int, size func(p int) int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cl := newClient(t, c, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer cl.Close()
	for p := range sent {
		for range size(p) + 1 {
			cl.Produce(ctx, &kgo.Record{Partition: int32(p), Value: payload(int32(p), sent[p])}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Errorf("produce: %v", err)
				}
			})
			sent[p]++
		}
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// checkTiered reads a topic and wants what was sent, byte by byte.
func checkTiered(t *testing.T, c *harness.Cluster, topic string, sent []int) {
	t.Helper()
	next := make([]int, len(sent))
	scan(t, c, topic, func(r *kgo.Record) {
		p := r.Partition
		if r.Offset != int64(next[p]) || !bytes.Equal(r.Value, payload(p, next[p])) {
			t.Fatalf("partition %d, offset %d: %d bytes %.20q where record %d belongs", p, r.Offset, len(r.Value), r.Value, next[p])
		}
		next[p]++
	})
	for p := range sent {
		if next[p] != sent[p] {
			t.Errorf("partition %d: %d records of %d", p, next[p], sent[p])
		}
	}
}
