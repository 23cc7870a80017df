package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
	"github.com/tidemark-io/tidemark/tiering/object"
	objects "github.com/tidemark-io/tidemark/tiering/object/mem"
)

// write modifies key and returns the revision at which it did.
func write(t *testing.T, kv metadata.KV, key string) int64 {
	t.Helper()
	res, err := kv.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Put(key, []byte("x"))}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Revision
}

func testWitness(kv metadata.KV, store object.Store) *witness {
	return &witness{store: store, kv: kv, cluster: "c"}
}

func TestWitness(t *testing.T) {
	store := objects.New()
	newer := mem.New().Client()
	older := mem.New().Client() // the same store, from a backup
	write(t, older, "a")
	write(t, newer, "a")
	w := testWitness(newer, store)
	check := func(what string, kv metadata.KV, refused bool) {
		t.Helper()
		err := testWitness(kv, store).check(t.Context())
		if errors.Is(err, metadata.ErrIdentity) != refused || !refused && err != nil {
			t.Errorf("%s: %v, want refused: %v", what, err, refused)
		}
	}
	check("a bucket that tells nothing", older, false)
	rev := write(t, newer, "a")
	if err := w.Note(t.Context(), "a", rev); err != nil {
		t.Fatal(err)
	}
	if err := w.Note(t.Context(), "a", rev); err != nil {
		t.Fatalf("once more: %v", err)
	}
	check("the store itself", newer, false)
	check("a store at an earlier revision", older, true)
	for write(t, older, "b") <= rev {
	}
	check("one whose revision went on, but not the key", older, true)
	if _, err := older.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Delete("a")}}); err != nil {
		t.Fatal(err)
	}
	check("a key that is deleted since", older, false)
	write(t, newer, "a")
	check("a key modified since", newer, false)
}

func TestWitnessKeepsTheNewest(t *testing.T) {
	store, kv := objects.New(), mem.New().Client()
	w := testWitness(kv, store)
	var rev int64
	for range 20 {
		rev = write(t, kv, "a")
		if err := w.Note(t.Context(), "a", rev); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		infos, err := store.List(t.Context(), witnessPrefix, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(infos) == 0 || infos[len(infos)-1].Key != witnessKey(rev) {
			t.Fatalf("the newest is gone: %v", infos)
		}
		return len(infos)
	}
	if n := count(); n != 20 {
		t.Errorf("%d before anything is tidied up", n)
	}
	if err := testWitness(kv, store).check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != witnessesKept {
		t.Errorf("%d after a start", n)
	}
	w.tidy(t.Context())
	if n := count(); n != 1 {
		t.Errorf("%d after the broker tidied up", n)
	}
}

// Damage is no proof of anything: it is read again, and nobody is refused.
func TestWitnessDamaged(t *testing.T) {
	for _, content := range []string{"", "{}", `{"cluster_id":"c","revision":8,"key":"a"}`, `{"cluster_id":"d","revision":9,"key":"a"}`, `{"cluster_id":"c","revision":9,"key":""}`} {
		store := objects.New()
		if err := store.Create(t.Context(), witnessKey(9), []byte(content)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		complaints := 0
		err := testWitness(mem.New().Client(), store).await(ctx, func(error) { complaints++ })
		cancel()
		if err == nil || errors.Is(err, metadata.ErrIdentity) || complaints < 2 {
			t.Errorf("%q: %v after %d complaints", content, err, complaints)
		}
	}
}

// Nothing is opened on a claim that the bucket cannot tell of.
func TestNoLeaderWithoutWitness(t *testing.T) {
	kv := mem.New().Client()
	store := &deaf{Store: objects.New()}
	cfg := testConfig(kv, "127.0.0.1:0")
	cfg.Store, cfg.witness = store, nil
	cfg.forward = nil
	cfg.ensureDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended, current := make(chan struct{}), make(chan error, 1), make(chan *Incarnation, 2)
	cfg.Ready, cfg.Attach = func() { close(ready) }, func(i *Incarnation) { current <- i }
	go func() { ended <- runIncarnation(ctx, cfg) }()
	defer func() { cancel(); <-ended }()
	<-ready
	topic, _, err := metadata.CreateTopic(ctx, kv, metadata.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1})
	if err != nil {
		t.Fatal(err)
	}
	wait, cancelWait := context.WithTimeout(ctx, time.Second)
	defer cancelWait()
	if _, err := (<-current).Log().Await(wait, metadata.TopicPartition{Topic: topic.ID}); err == nil {
		t.Error("opened")
	}
}

// deaf is a bucket that takes no witnesses.
type deaf struct{ object.Store }

func (d *deaf) Create(ctx context.Context, key string, data ...[]byte) error {
	if strings.HasPrefix(key, witnessPrefix) {
		return fmt.Errorf("%w: not here", object.ErrThrottled)
	}
	return d.Store.Create(ctx, key, data...)
}

// replaced is a store in whose place another one comes.
type replaced struct {
	metadata.KV
	by metadata.KV
}

func (r *replaced) Get(ctx context.Context, keys ...string) ([]metadata.Entry, int64, error) {
	return r.by.Get(ctx, keys...)
}

func TestForward(t *testing.T) {
	ahead := mem.New().Client()
	for range 5 {
		write(t, ahead, "a")
	}
	r := &replaced{KV: ahead, by: ahead}
	f := newForward(r)
	if _, _, err := f.Get(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Range(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	r.by = mem.New().Client()
	if _, _, err := f.Get(t.Context(), "a"); !errors.Is(err, metadata.ErrIdentity) {
		t.Errorf("an answer from the past: %v", err)
	}
	if err := f.watch(t.Context()); !errors.Is(err, metadata.ErrIdentity) {
		t.Errorf("watch: %v", err)
	}
	if _, err := f.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Put("a", nil)}}); !errors.Is(err, metadata.ErrIdentity) {
		t.Errorf("what is asked afterwards: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newForward(ahead).watch(ctx); err != nil {
		t.Errorf("a store that goes forward: %v", err)
	}
}
