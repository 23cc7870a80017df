package audit_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	metamem "github.com/tidemark-io/tidemark/metadata/mem"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/audit"
	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/mem"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// counted counts the writes that reach a bucket or a metadata store.
type counted struct {
	object.Store
	mu     sync.Mutex
	writes int
}

func (c *counted) Create(ctx context.Context, key string, data ...[]byte) error {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.Store.Create(ctx, key, data...)
}

func (c *counted) Delete(ctx context.Context, key string) error {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.Store.Delete(ctx, key)
}

// world is a cluster without brokers: a bucket, a metadata store and logs.
type world struct {
	t       *testing.T
	bucket  *mem.Store
	store   *counted
	meta    *metamem.Store
	kv      *metamem.Client
	cluster wal.ClusterID
	topic   metadata.TopicID
	begin   time.Time

	tune func(*tiering.Config)

	mu   sync.Mutex
	logs map[metadata.Incarnation]*node
	next metadata.Incarnation
}

type node struct {
	*tiering.Log
	inc  metadata.Incarnation
	kill func()
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, bucket: mem.New(), meta: metamem.New(), cluster: wal.ClusterID{7, 7}, topic: metadata.TopicID{1}, begin: time.Now(),
		logs: make(map[metadata.Incarnation]*node), next: 1 << 48,
	}
	w.store, w.kv = &counted{Store: w.bucket}, w.meta.Client()
	t.Cleanup(func() { _ = w.kv.Close() })
	id := base64.RawURLEncoding.EncodeToString(w.cluster[:])
	w.put(metadata.KeyIdentity, metadata.Identity{ClusterID: id, Generation: 1, Ready: true})
	for _, key := range []string{"_cluster/id", "_cluster/gen/1"} {
		w.create(key, fmt.Appendf(nil, `{"cluster_id":%q}`, id))
	}
	w.put(metadata.TopicKey(w.topic), metadata.Topic{ID: w.topic, Name: "orders", Partitions: 2})
	return w
}

func (w *world) put(key string, v any) {
	w.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.kv.Txn(context.Background(), metadata.Txn{Then: []metadata.Op{metadata.Put(key, b)}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) create(key string, b []byte) {
	w.t.Helper()
	if err := w.bucket.Create(context.Background(), key, b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(key string) []byte {
	w.t.Helper()
	b, err := w.bucket.Get(context.Background(), key, 0, -1)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) delete(key string) {
	w.t.Helper()
	w.get(key) // it is there
	if err := w.bucket.Delete(context.Background(), key); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) replace(key string, b []byte) { w.delete(key); w.create(key, b) }

// flip inverts a bit.
func (w *world) flip(key string, pos int) {
	b := w.get(key)
	b[pos] ^= 4
	w.replace(key, b)
}

// AskRelease implements tiering.Peers.
func (w *world) AskRelease(ctx context.Context, from metadata.Incarnation, claims []tiering.Claim) ([]tiering.Released, error) {
	w.mu.Lock()
	n := w.logs[from]
	w.mu.Unlock()
	if n == nil {
		return nil, errors.New("connection refused")
	}
	return n.Release(ctx, claims)
}

func (w *world) start() *node {
	w.t.Helper()
	w.mu.Lock()
	w.next++
	inc := w.next
	w.mu.Unlock()
	w.put(metadata.ChainKey(inc), metadata.Chain{})
	ctx, cancel := context.WithCancel(context.Background())
	cfg := tiering.Config{
		Incarnation: inc, Cluster: w.cluster, Store: w.bucket, Chains: tiering.NewChains(w.kv), Peers: w,
		FlushSpacing: time.Millisecond, CheckpointInterval: time.Hour, CheckpointSlots: 64, TierInterval: 1000 * time.Hour, CollectInterval: 1000 * time.Hour,
		Clock: func() time.Duration { return time.Since(w.begin) }, Logger: slog.New(slog.DiscardHandler),
	}
	if w.tune != nil {
		w.tune(&cfg)
	}
	l, err := tiering.Open(ctx, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{Log: l, inc: inc}
	l.OnCheckpoint(w.trimOwners(inc))
	w.mu.Lock()
	w.logs[inc] = n
	w.mu.Unlock()
	ran := make(chan struct{})
	go func() { defer close(ran); _ = l.Run(ctx) }()
	n.kill = func() {
		w.mu.Lock()
		delete(w.logs, inc)
		w.mu.Unlock()
		cancel()
		<-ran
	}
	w.t.Cleanup(n.kill)
	return n
}

// trimOwners does what the cluster code does after a checkpoint: it drops owner
// entries that nobody needs any more, and has their chains forget them.
func (w *world) trimOwners(inc metadata.Incarnation) func([]tiering.Claim) {
	return func(claims []tiering.Claim) {
		if w.tune == nil { // tests that count on whole lists
			return
		}
		for _, c := range claims {
			entries, _, err := w.kv.Get(context.Background(), metadata.PartitionKey(c.Partition))
			var before metadata.Partition
			if err != nil || !entries[0].Exists() || json.Unmarshal(entries[0].Value, &before) != nil {
				continue
			}
			own := metadata.Owner{Incarnation: inc, Epoch: c.Epoch}
			r := metadata.TrimOwners(context.Background(), w.kv, []metadata.OwnerEntry{{TP: c.Partition, Owner: own}})
			if r[0].Err != nil {
				continue
			}
			w.mu.Lock()
			for _, o := range before.Owners {
				if n := w.logs[o.Incarnation]; n != nil && o != own {
					n.Forget([]tiering.Claim{{Partition: c.Partition, Epoch: o.Epoch}})
				}
			}
			w.mu.Unlock()
		}
	}
}

func (w *world) tp(p int32) metadata.TopicPartition {
	return metadata.TopicPartition{Topic: w.topic, Partition: p}
}

// lead makes n the next owner of a partition.
func (w *world) lead(n *node, p int32) (*tiering.Partition, error) {
	entries, _, err := w.kv.Get(context.Background(), metadata.PartitionKey(w.tp(p)))
	if err != nil {
		return nil, err
	}
	var part metadata.Partition
	if entries[0].Exists() {
		if err := json.Unmarshal(entries[0].Value, &part); err != nil {
			return nil, err
		}
	}
	epoch := int32(0)
	if newest, ok := part.Newest(); ok {
		epoch = newest.Epoch + 1
		if newest.Incarnation == n.inc { // it gives up what it has before it leads anew
			if _, err := n.Release(context.Background(), []tiering.Claim{{Partition: w.tp(p), Epoch: newest.Epoch}}); err != nil {
				return nil, err
			}
		}
	}
	part.Preferred, part.Owners = n.inc, append(part.Owners, metadata.Owner{Incarnation: n.inc, Epoch: epoch})
	w.put(metadata.PartitionKey(w.tp(p)), part)
	if errs := n.Lead(context.Background(), []tiering.LeadRequest{{Partition: w.tp(p), Owners: part.Owners}}); len(errs) > 0 {
		return nil, errs[w.tp(p)]
	}
	return n.Partition(w.tp(p))
}

func (w *world) mustLead(n *node, p int32) *tiering.Partition {
	w.t.Helper()
	part, err := w.lead(n, p)
	if err != nil {
		w.t.Fatal(err)
	}
	return part
}

func makeBatch(pid int64, epoch int16, seq int32, ts int64, values ...string) ([]byte, batch.Header) {
	var records []byte
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Value: []byte(v)}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		records = r.AppendTo(records)
	}
	b := kmsg.RecordBatch{
		Magic: 2, LastOffsetDelta: int32(len(values) - 1), FirstTimestamp: ts, MaxTimestamp: ts,
		ProducerID: pid, ProducerEpoch: epoch, FirstSequence: seq, NumRecords: int32(len(values)), Records: records,
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-batch.Overhead))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	h, err := batch.Parse(raw)
	if err != nil {
		panic(err)
	}
	return raw, h
}

// producer writes to one partition, a batch a flush.
type producer struct {
	id   int64
	next int32
}

func (p *producer) write(part *tiering.Partition, n int) error {
	for range n {
		raw, h := makeBatch(p.id, 0, p.next, int64(p.next), "one", "two", strings.Repeat("compressible ", int(p.next)%100))
		a, err := part.Append(raw, h, 0, false)
		if err != nil {
			return err
		}
		<-a.Done()
		if a.Err() != nil {
			return a.Err()
		}
		p.next += int32(h.Records)
	}
	return nil
}

// build makes a log with everything in it that one of stage one can have: a
// sealed chain of a broker that was killed (a), a chain that was closed (b), one
// that goes on (c), hand-overs by seal, by consent and by nobody's fault.
func (w *world) build() (a, b, c *node) {
	w.t.Helper()
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	p0, p1 := &producer{id: 10}, &producer{id: 11}
	a = w.start()
	must(p0.write(w.mustLead(a, 0), 100))
	must(p1.write(w.mustLead(a, 1), 40))
	a.kill()
	b = w.start()
	part0, part1 := w.mustLead(b, 0), w.mustLead(b, 1)
	must(p0.write(part0, 30))
	must(p1.write(part1, 5))
	c = w.start()
	must(p1.write(w.mustLead(c, 1), 20)) // b consents
	must(p0.write(part0, 3))
	must(b.Close(context.Background()))
	must(p0.write(w.mustLead(c, 0), 20))
	synctest.Wait()
	return a, b, c
}

func (w *world) config() audit.Config {
	return audit.Config{KV: w.kv, Store: w.store, Grace: time.Hour, SweepGrace: time.Hour}
}

func (w *world) audit(cfg audit.Config) *audit.Report {
	w.t.Helper()
	w.mu.Lock()
	revision, idle := w.meta.Revision(), len(w.logs) == 0
	w.mu.Unlock()
	r, err := audit.Run(context.Background(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.store.writes > 0 {
		w.t.Errorf("the audit wrote %d times to the bucket", w.store.writes)
	}
	if idle && w.meta.Revision() != revision {
		w.t.Error("the audit wrote to the metadata store")
	}
	return r
}

func text(r *audit.Report) string {
	var s strings.Builder
	_ = r.WriteText(&s)
	return s.String()
}

// expect wants problems of exactly these kinds, any number of each.
func expect(t *testing.T, r *audit.Report, kinds ...string) {
	t.Helper()
	got := make(map[string]bool)
	for _, p := range r.Problems {
		got[p.Kind] = true
	}
	want := make(map[string]bool)
	for _, k := range kinds {
		want[k] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("problems of kinds %v, want %v\n%s", slices.Sorted(maps.Keys(got)), kinds, text(r))
	}
	if r.Clean != (len(kinds) == 0) {
		t.Errorf("clean = %v with problems %v", r.Clean, kinds)
	}
}
