package tiering

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	metamem "github.com/tidemark-io/tidemark/metadata/mem"
	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/mem"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// world is a bucket, a chain registry and the logs on top of them.
type world struct {
	t      *testing.T
	store  object.Store
	kv     *metamem.Client
	chains Chains
	mu     sync.Mutex
	logs   map[metadata.Incarnation]*Log
	begin  time.Time
	tune   func(*Config)
	opened func(*node) // called before Run
	listed bool        // owner lists are kept in the metadata store
	next   metadata.Incarnation
}

func newWorld(t *testing.T) *world {
	kv := metamem.New().Client()
	t.Cleanup(func() { _ = kv.Close() })
	return &world{t: t, store: mem.New(), kv: kv, chains: NewChains(kv), logs: make(map[metadata.Incarnation]*Log), begin: time.Now(), next: 1 << 48}
}

// put writes a value of the metadata store.
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

// chain reads what the metadata store says of a chain.
func (w *world) chain(inc metadata.Incarnation) metadata.Chain {
	w.t.Helper()
	c, err := w.chains.Load(context.Background(), inc)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// AskRelease implements Peers by calling the log directly.
func (w *world) AskRelease(ctx context.Context, from metadata.Incarnation, claims []Claim) ([]Released, error) {
	w.mu.Lock()
	l := w.logs[from]
	w.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	return l.Release(ctx, claims)
}

type node struct {
	*Log
	kill context.CancelFunc // like kill -9: nothing is finished
	ran  chan error
}

func (w *world) start(store object.Store) *node {
	w.t.Helper()
	n, err := w.tryStart(store)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) tryStart(store object.Store) (*node, error) {
	w.t.Helper()
	w.next++
	w.put(metadata.ChainKey(w.next), metadata.Chain{})
	cfg := Config{
		Incarnation: w.next, Cluster: wal.ClusterID{7}, Store: store, Chains: w.chains, Peers: w,
		Collects:     func() bool { return false }, // most worlds have no owner lists
		FlushSpacing: time.Millisecond, Clock: func() time.Duration { return time.Since(w.begin) }, Logger: slog.New(slog.DiscardHandler),
	}
	if w.tune != nil {
		w.tune(&cfg)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	l, err := Open(ctx, cfg)
	if err != nil {
		cancel()
		return nil, err
	}
	n := &node{Log: l, ran: make(chan error, 1)}
	if w.opened != nil {
		w.opened(n)
	}
	w.mu.Lock()
	w.logs[cfg.Incarnation] = l
	w.mu.Unlock()
	n.kill = func() {
		w.mu.Lock()
		delete(w.logs, cfg.Incarnation)
		w.mu.Unlock()
		cancel()
		<-n.ran
		n.ran <- nil
	}
	go func() { n.ran <- l.Run(ctx) }()
	w.t.Cleanup(n.kill)
	return n, nil
}

func partition(n int32) metadata.TopicPartition {
	return metadata.TopicPartition{Topic: metadata.TopicID{1}, Partition: n}
}

// owners builds an owner list whose epochs count from 0.
func owners(nodes ...*node) (list []metadata.Owner) {
	for i, n := range nodes {
		list = append(list, metadata.Owner{Incarnation: n.cfg.Incarnation, Epoch: int32(i)})
	}
	return list
}

func (w *world) lead(n *node, tp metadata.TopicPartition, list []metadata.Owner) *Partition {
	w.t.Helper()
	if w.listed {
		w.put(metadata.PartitionKey(tp), metadata.Partition{Owners: list})
	}
	if errs := n.Lead(w.t.Context(), []LeadRequest{{Partition: tp, Owners: list}}); len(errs) > 0 {
		w.t.Fatal(errs)
	}
	p, err := n.Partition(tp)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// makeBatch encodes values as one batch.
func makeBatch(pid int64, epoch int16, seq int32, ts int64, values ...string) ([]byte, batch.Header) {
	var records []byte
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Value: []byte(v)}
		body := r.AppendTo(nil)
		r.Length = int32(len(body) - 1)
		records = r.AppendTo(records)
	}
	b := kmsg.RecordBatch{
		Magic: 2, LastOffsetDelta: int32(len(values) - 1), FirstTimestamp: ts, MaxTimestamp: ts,
		ProducerID: pid, ProducerEpoch: epoch, FirstSequence: seq, NumRecords: int32(len(values)), Records: records,
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	h, err := batch.Parse(raw)
	if err != nil {
		panic(err)
	}
	return raw, h
}

// write appends values, each as a batch of its own, and waits for the last.
func write(t *testing.T, p *Partition, values ...string) {
	t.Helper()
	for i, v := range values {
		raw, h := makeBatch(-1, -1, -1, int64(i), v)
		a, err := p.Append(raw, h, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		if i == len(values)-1 {
			<-a.Done()
			if a.Err() != nil {
				t.Fatal(a.Err())
			}
		}
	}
}

// readAll returns the values from offset to the high watermark and checks that
// offsets are dense.
func readAll(t *testing.T, p *Partition, offset int64, maxBytes int) (values []string) {
	t.Helper()
	for {
		res, err := p.Read(t.Context(), offset, maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Records) == 0 {
			if offset != res.HighWatermark {
				t.Fatalf("nothing to read at %d, high watermark %d", offset, res.HighWatermark)
			}
			return values
		}
		for b := res.Records; len(b) > 0; {
			h, err := batch.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			one := b[:h.Length]
			if err := batch.CheckCRC(one); err != nil {
				t.Fatal(err)
			}
			b = b[h.Length:]
			payload, err := batch.Payload(one, &h, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			err = batch.Walk(payload, h.Records, func(r *batch.Record) error {
				if at := h.BaseOffset + int64(r.OffsetDelta); at >= offset {
					if at != offset {
						return fmt.Errorf("offset %d follows %d", at, offset-1)
					}
					values = append(values, string(r.Value))
					offset++
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		res.Release()
	}
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("read %d values %.200v, want %d values %.200v", len(got), got, len(want), want)
	}
}

func numbered(prefix string, n int) (values []string) {
	for i := range n {
		values = append(values, fmt.Sprintf("%s-%d", prefix, i))
	}
	return values
}

func TestAppendAndRead(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p, q := w.lead(a, partition(0), owners(a)), w.lead(a, partition(1), owners(a))
	want, other := numbered("p", 500), numbered("q", 100)
	write(t, p, want[:250]...)
	write(t, q, other...)
	write(t, p, want[250:]...)
	equal(t, readAll(t, p, 0, 1<<20), want)
	equal(t, readAll(t, p, 123, 300), want[123:])
	equal(t, readAll(t, q, 0, 1), other)
	if _, err := p.Read(t.Context(), 501, 1); !errors.Is(err, ErrOffsetOutOfRange) {
		t.Fatalf("read beyond the high watermark: %v", err)
	}
}

// What was acknowledged survives a leader that dies without a word.
func TestTakeOverFromDeadLeader(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	want := numbered("a", 300)
	write(t, w.lead(a, partition(0), owners(a)), want...)
	a.kill()
	b := w.start(w.store)
	p := w.lead(b, partition(0), owners(a, b))
	equal(t, readAll(t, p, 0, 1<<20), want)
	write(t, p, "more")
	// A third that comes before b ever wrote a checkpoint needs both chains.
	b.kill()
	c := w.start(w.store)
	p = w.lead(c, partition(0), owners(a, b, c))
	equal(t, readAll(t, p, 0, 1<<20), append(want, "more"))
	if got := p.EpochEnd(0); got != (EpochEnd{Epoch: 0, End: 300}) {
		t.Fatalf("end of epoch 0: %+v", got)
	}
	if got := p.EpochEnd(1); got != (EpochEnd{Epoch: 1, End: 301}) {
		t.Fatalf("end of epoch 1: %+v", got)
	}
}

func TestGracefulMoveAndBack(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(w.store), w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	write(t, p, "1", "2")
	q := w.lead(b, partition(0), owners(a, b))
	if _, err := a.Partition(partition(0)); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("old leader still leads: %v", err)
	}
	raw, h := makeBatch(-1, -1, -1, 0, "late")
	if _, err := p.Append(raw, h, 0, false); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("append after release: %v", err)
	}
	write(t, q, "3")
	p = w.lead(a, partition(0), owners(a, b, a))
	write(t, p, "4")
	equal(t, readAll(t, p, 0, 1<<20), []string{"1", "2", "3", "4"})
	if a.over() || b.over() {
		t.Fatal("a graceful move ended an incarnation")
	}
	// A checkpoint must not forget what a released at epoch 0 or b at epoch 1.
	if err := errors.Join(a.writeCheckpoint(t.Context()), b.writeCheckpoint(t.Context())); err != nil {
		t.Fatal(err)
	}
	a.kill()
	b.kill()
	c := w.start(w.store)
	equal(t, readAll(t, w.lead(c, partition(0), owners(a, b, a, c)), 0, 1<<20), []string{"1", "2", "3", "4"})
	d := w.start(w.store)
	equal(t, readAll(t, w.lead(d, partition(0), owners(a, b, d)), 0, 1<<20), []string{"1", "2", "3"})
}

func TestCloseAndSuccessor(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	write(t, p, numbered("x", 50)...)
	raw, h := makeBatch(-1, -1, -1, 0, "unflushed")
	appended, err := p.Append(raw, h, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if <-appended.Done(); appended.Err() != nil {
		t.Fatal("an append before Close was not committed")
	}
	if err := <-a.ran; err != nil {
		t.Fatalf("Run after Close: %v", err)
	}
	a.ran <- nil
	counted := &counter{Store: w.store}
	b := w.start(counted)
	counted.gets = 0
	q := w.lead(b, partition(0), owners(a, b))
	if counted.gets > 2 {
		t.Fatalf("a successor of a closed chain read %d objects, want at most 2", counted.gets)
	}
	equal(t, readAll(t, q, 0, 1<<20), append(numbered("x", 50), "unflushed"))
}

type counter struct {
	object.Store
	mu   sync.Mutex
	gets int
}

func (c *counter) Get(ctx context.Context, key string, pos, n int64) ([]byte, error) {
	c.mu.Lock()
	c.gets++
	c.mu.Unlock()
	return c.Store.Get(ctx, key, pos, n)
}

// A leader that was stopped while others moved on is refused by its own slot.
func TestZombieIsFenced(t *testing.T) {
	w := newWorld(t)
	gate := &gated{Store: w.store}
	a, b := w.start(gate), w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	write(t, p, "1")
	gate.stop()
	raw, h := makeBatch(-1, -1, -1, 0, "zombie")
	appended, err := p.Append(raw, h, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	delete(w.logs, a.cfg.Incarnation) // it does not answer
	w.mu.Unlock()
	q := w.lead(b, partition(0), owners(a, b))
	write(t, q, "2")
	gate.resume()
	<-appended.Done()
	if appended.Err() == nil {
		t.Fatal("a sealed incarnation acknowledged a record")
	}
	if err := <-a.ran; !errors.Is(err, ErrFenced) {
		t.Fatalf("zombie's Run: %v", err)
	}
	a.ran <- nil
	equal(t, readAll(t, q, 0, 1<<20), []string{"1", "2"})
}

// A deposed leader that nothing was written to finds out before it answers.
func TestCheckFindsFence(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(w.store), w.start(w.store)
	w.lead(a, partition(0), owners(a))
	if err := a.writeCheckpoint(t.Context()); err != nil { // else it would notice the seal
		t.Fatal(err)
	}
	if err := a.Check(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Seal(t.Context(), a.cfg.Incarnation); err != nil {
		t.Fatal(err)
	}
	if err := a.Check(t.Context(), time.Hour); err != nil {
		t.Fatalf("a proof that is recent enough was not believed: %v", err)
	}
	if err := a.Check(t.Context(), 0); !errors.Is(err, ErrFenced) {
		t.Fatalf("sealed leader's check: %v", err)
	}
	if _, err := a.Partition(partition(0)); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("sealed leader still leads: %v", err)
	}
}

// gated holds Create calls while stopped.
type gated struct {
	object.Store
	mu   sync.Mutex
	wait chan struct{}
}

func (g *gated) stop() {
	g.mu.Lock()
	g.wait = make(chan struct{})
	g.mu.Unlock()
}

func (g *gated) resume() {
	g.mu.Lock()
	close(g.wait)
	g.wait = nil
	g.mu.Unlock()
}

func (g *gated) Create(ctx context.Context, key string, data ...[]byte) error {
	g.mu.Lock()
	wait := g.wait
	g.mu.Unlock()
	if wait != nil {
		<-wait // not ctx: a stopped process does not see its deadlines
	}
	return g.Store.Create(context.WithoutCancel(ctx), key, data...)
}

func TestPagesAndCheckpoint(t *testing.T) {
	w := newWorld(t)
	w.tune = func(c *Config) { c.TailBytes = 1 << 20; c.ExtentCacheBytes = 1 << 20; c.CheckpointSlots = 1 << 30 }
	a := w.start(w.store)
	p := w.lead(a, partition(0), owners(a))
	want := numbered("v", 2*wal.PageEntries+200)
	for i, v := range want { // one flush, so one extent, each
		raw, h := makeBatch(-1, -1, -1, int64(1000+i), v)
		ap, err := p.Append(raw, h, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		a.mu.Lock()
		a.open.urgent = true
		a.mu.Unlock()
		a.kick()
		<-ap.Done()
	}
	if err := a.writeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.mu.RLock()
	pages, tail := len(p.manifest.pages), len(p.manifest.tail)
	p.mu.RUnlock()
	if pages != 1 || tail < wal.PageEntries || tail >= 2*wal.PageEntries {
		t.Fatalf("%d pages and a tail of %d extents", pages, tail)
	}
	equal(t, readAll(t, p, 0, 1<<20), want)
	write(t, p, "after the checkpoint")
	want = append(want, "after the checkpoint")
	a.kill()
	counted := &counter{Store: w.store}
	b := w.start(counted)
	counted.gets = 0
	q := w.lead(b, partition(0), owners(a, b))
	if counted.gets > 2*headsAtOnce+4 {
		t.Fatalf("recovery read %d objects: it follows the age of the log", counted.gets)
	}
	equal(t, readAll(t, q, 0, 1<<20), want)
	at, err := q.OffsetForTimestamp(t.Context(), 1000+1500)
	if err != nil || at.Offset != 1500 || at.Timestamp != 2500 {
		t.Fatalf("offset for timestamp: %+v, %v", at, err)
	}
	if at, err = q.OffsetForTimestamp(t.Context(), 1<<50); err != nil || at != noOffset {
		t.Fatalf("offset for a time to come: %+v, %v", at, err)
	}
}

// Storage compression changes nothing that a client sees.
func TestStoredCompressed(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	p, q := w.lead(a, partition(0), owners(a)), w.lead(a, partition(1), owners(a))
	big := string(bytes.Repeat([]byte("compressible "), 1000))
	release, err := a.Admit(t.Context(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	raw, h := makeBatch(-1, -1, -1, 0, big, "x")
	sent := bytes.Clone(raw)
	_, err = p.Append(raw, h, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	raw, h = makeBatch(-1, -1, -1, 0, "small")
	ap, err := q.Append(raw, h, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	release()
	<-ap.Done()
	ref := p.manifest.tail[0]
	if !ref.Zstd || ref.Len > ref.RawLen/4 {
		t.Fatalf("stored %d bytes for %d", ref.Len, ref.RawLen)
	}
	a.kill()
	b := w.start(w.store)
	for n, want := range [][]string{{big, "x"}, {"small"}} {
		r := w.lead(b, partition(int32(n)), owners(a, b))
		equal(t, readAll(t, r, 0, 1<<20), want)
	}
	r, _ := b.Partition(partition(0))
	res, err := r.Read(t.Context(), 0, 1<<20)
	if err != nil || !bytes.Equal(res.Records[16:], sent[16:]) {
		t.Fatalf("served bytes differ from those sent: %v", err)
	}
}
