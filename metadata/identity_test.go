package metadata_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

var (
	errExists   = errors.New("exists")
	errNotFound = errors.New("not found")
	errLost     = errors.New("answer lost")
)

// bucket is an IdentityStore whose first calls may fail, after their effect.
type bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
	lose    int
	damage  int    // reads that return one bit changed
	onGet   func() // runs once, before the next Get
}

func newBucket() *bucket { return &bucket{objects: make(map[string][]byte)} }

func (b *bucket) Create(_ context.Context, key string, data ...[]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.objects[key] != nil {
		return errExists
	}
	b.objects[key] = bytes.Join(data, nil)
	return b.loseLocked()
}

func (b *bucket) Get(_ context.Context, key string, pos, length int64) ([]byte, error) {
	if f := b.onGet; f != nil {
		b.onGet = nil
		f()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.loseLocked(); err != nil {
		return nil, err
	}
	if b.objects[key] == nil {
		return nil, errNotFound
	}
	data := bytes.Clone(b.objects[key][pos:])
	if b.damage > 0 {
		b.damage--
		data[len(data)/2] ^= 1 << (b.damage % 8)
	}
	return data, nil
}

func (b *bucket) loseLocked() error {
	if b.lose > 0 {
		b.lose--
		return errLost
	}
	return nil
}

var identityConfig = metadata.IdentityConfig{Exists: errExists, NotFound: errNotFound, Store: "http://etcd:2379", Bucket: "s3://b"}

func ensure(t *testing.T, kv metadata.KV, b *bucket) (metadata.Identity, error) {
	t.Helper()
	return metadata.EnsureIdentity(t.Context(), kv, b, identityConfig)
}

func mustEnsure(t *testing.T, kv metadata.KV, b *bucket) metadata.Identity {
	t.Helper()
	id, err := ensure(t, kv, b)
	if err != nil {
		t.Fatal(err)
	}
	if len(id.ClusterID) != 22 || id.Generation != 1 || !id.Ready {
		t.Fatalf("%+v", id)
	}
	return id
}

func TestIdentityFirstStart(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		b := newBucket()
		b.lose = 3
		id := mustEnsure(t, kv, b)
		time.Sleep(time.Second)
		if again := mustEnsure(t, kv, b); again != id {
			t.Errorf("%+v, then %+v", id, again)
		}
		if len(b.objects) != 2 || b.objects["_cluster/id"] == nil || b.objects["_cluster/gen/1"] == nil {
			t.Errorf("objects %q", b.objects)
		}
	})
}

func TestIdentityRace(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		b := newBucket()
		ids := make(chan metadata.Identity)
		for range 10 {
			kv := client(t, store)
			go func() {
				id, err := ensure(t, kv, b)
				if err != nil {
					t.Error(err)
				}
				ids <- id
			}()
		}
		first := <-ids
		for range 9 {
			if id := <-ids; id != first {
				t.Errorf("%+v and %+v", first, id)
			}
		}
	})
}

// Another broker does the whole first start between this one's look at the store
// and its look at the bucket.
func TestIdentityOvertaken(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		b := newBucket()
		var first metadata.Identity
		b.onGet = func() { first = mustEnsure(t, client(t, store), b) }
		if id := mustEnsure(t, client(t, store), b); id != first || first.ClusterID == "" {
			t.Errorf("%+v and %+v", first, id)
		}
	})
}

// A first start that dies after any of its writes can be resumed.
func TestIdentityResume(t *testing.T) {
	for survive := range 5 {
		t.Run(fmt.Sprint(survive), func(t *testing.T) {
			bubble(t, func(t *testing.T, store *mem.Store) {
				b := newBucket()
				dying := &dyingBucket{bucket: b, left: survive - 1}
				kv := client(t, store)
				kv.Inject(func(c mem.Call) (mem.Fault, bool) {
					return mem.FailBefore(), c.Writes() && (survive == 0 || len(b.objects) == 2 && survive == 3)
				})
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := metadata.EnsureIdentity(ctx, kv, dying, identityConfig)
				if (err == nil) != (survive == 4) {
					t.Fatalf("the first start: %v", err)
				}
				mustEnsure(t, client(t, store), b)
			})
		})
	}
}

// dyingBucket fails for good after left creations.
type dyingBucket struct {
	*bucket
	left int
}

func (d *dyingBucket) Create(ctx context.Context, key string, data ...[]byte) error {
	if d.left <= 0 {
		return errLost
	}
	d.left--
	return d.bucket.Create(ctx, key, data...)
}

func TestIdentityMismatch(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv, b := client(t, store), newBucket()
		id := mustEnsure(t, kv, b)
		otherKV, otherB := client(t, mem.New()), newBucket()
		other := mustEnsure(t, otherKV, otherB)

		f := func(what string, kv metadata.KV, b *bucket, words ...string) {
			t.Helper()
			_, err := ensure(t, kv, b)
			if !errors.Is(err, metadata.ErrIdentity) {
				t.Errorf("%s: %v", what, err)
				return
			}
			for _, w := range append(words, "s3://b", "http://etcd:2379") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%s: %q lacks %q", what, err, w)
				}
			}
		}
		f("bucket of another cluster", kv, otherB, id.ClusterID, other.ClusterID)
		f("bucket empty", kv, newBucket(), id.ClusterID)
		f("store empty", client(t, mem.New()), b, id.ClusterID)
		if got := keys(t, kv, ""); len(got) != 1 {
			t.Errorf("keys %v", got)
		}

		newer := newBucket()
		newer.objects["_cluster/id"] = b.objects["_cluster/id"]
		newer.objects["_cluster/gen/1"] = b.objects["_cluster/gen/1"]
		newer.objects["_cluster/gen/2"] = []byte(`{"cluster_id":"` + id.ClusterID + `","generation":2}`)
		f("bucket moved on", kv, newer, "generation 1")
		older := newBucket()
		older.objects["_cluster/id"] = b.objects["_cluster/id"]
		f("generation missing", kv, older, "generation 1")
		broken := newBucket()
		broken.objects["_cluster/id"] = []byte("{")
		if _, err := ensure(t, kv, broken); !errors.Is(err, metadata.ErrIdentity) {
			t.Errorf("broken: %v", err)
		}
	})
}

// A bit that changed on the way is not another cluster.
func TestIdentityReadDamaged(t *testing.T) {
	store, b := mem.New(), newBucket()
	id := mustEnsure(t, store.Client(), b)
	for damage := 1; damage <= 3; damage++ {
		b.damage = damage
		if again := mustEnsure(t, store.Client(), b); again != id {
			t.Errorf("%d damaged reads: %+v, want %+v", damage, again, id)
		}
	}
}

func TestIdentityUnavailable(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		b := newBucket()
		b.lose = 1000
		if _, err := ensure(t, client(t, store), b); !errors.Is(err, errLost) || errors.Is(err, metadata.ErrIdentity) {
			t.Errorf("bucket away: %v", err)
		}
		store.SetUnavailable(true)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := metadata.EnsureIdentity(ctx, client(t, store), newBucket(), identityConfig); !errors.Is(err, metadata.ErrUnavailable) {
			t.Errorf("store away: %v", err)
		}
	})
}
