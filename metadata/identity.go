package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrIdentity: this store and this bucket do not belong together. Serving would
// mix two clusters, or forget one; the broker refuses to start.
var ErrIdentity = errors.New("cluster identity mismatch")

// Keys of the bucket that hold its side of the identity.
const identityIDKey = "_cluster/id"

func identityGenKey(g uint16) string { return fmt.Sprintf("_cluster/gen/%d", g) }

// IdentityStore is the bucket as EnsureIdentity needs it. Create binds a key
// that is unbound; Get reads length bytes from pos, all when length is negative.
type IdentityStore interface {
	Create(ctx context.Context, key string, data ...[]byte) error
	Get(ctx context.Context, key string, pos, length int64) ([]byte, error)
}

// IdentityConfig names the bucket's errors, and itself for messages.
type IdentityConfig struct {
	// Exists is what Create returns for a bound key, NotFound what Get returns
	// for an unbound one; both are definite.
	Exists, NotFound error
	// Store and Bucket name the two sides in errors, as the operator would.
	Store, Bucket string
	// CallTimeout bounds one call to the bucket (default 5 s).
	CallTimeout time.Duration
}

// bucketIdentity is the content of the bucket's identity objects. The object
// _cluster/id holds no generation.
type bucketIdentity struct {
	ClusterID  string `json:"cluster_id"`
	Generation uint16 `json:"generation,omitempty"`
}

// NewClusterID returns a random cluster id in Kafka's form, 22 characters of
// URL-safe base64.
func NewClusterID() string { return NewTopicID().String() }

// EnsureIdentity returns the identity that the store and the bucket share. The
// first start creates it on both sides: in the store not yet ready, in the
// bucket, then ready; whoever comes next finishes what a crash left half done.
// Anything else that does not match is ErrIdentity.
func EnsureIdentity(ctx context.Context, kv KV, bucket IdentityStore, cfg IdentityConfig) (Identity, error) {
	if cfg.CallTimeout == 0 {
		cfg.CallTimeout = 5 * time.Second
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	e := identityEnsurer{kv: kv, bucket: bucket, cfg: cfg}
	var b backoff
	for {
		id, err := e.step(ctx)
		switch {
		case err != nil && !errors.Is(err, ErrUnavailable):
			return Identity{}, err
		case err == nil && id.Ready:
			return id, nil
		}
		if werr := b.wait(ctx); werr != nil {
			if err == nil {
				err = werr
			}
			return Identity{}, fmt.Errorf("establish cluster identity: %w", err)
		}
	}
}

type identityEnsurer struct {
	kv     KV
	bucket IdentityStore
	cfg    IdentityConfig
}

// step moves one step on; the identity it returns is final once it is ready.
// The store's key is written before the bucket's objects and made ready after
// them, and is read before them: that is what makes each verdict below final.
func (e *identityEnsurer) step(ctx context.Context) (Identity, error) {
	entries, _, err := e.kv.Get(ctx, KeyIdentity)
	if err != nil {
		return Identity{}, err
	}
	if !entries[0].Exists() {
		return Identity{}, e.begin(ctx)
	}
	id, err := decode[Identity](entries[0])
	if err != nil {
		return Identity{}, err
	}
	if !id.Ready {
		return Identity{}, e.finish(ctx, id, entries[0].ModRevision)
	}
	return id, e.check(ctx, id)
}

// begin creates the store's key, not ready, if the bucket is new too.
func (e *identityEnsurer) begin(ctx context.Context) error {
	found, err := e.get(ctx, identityIDKey)
	if err != nil {
		return err
	}
	if found != nil {
		again, _, err := e.kv.Get(ctx, KeyIdentity)
		if err != nil || again[0].Exists() {
			return err // another broker began meanwhile: go on from its key
		}
		return fmt.Errorf("%w: %s belongs to cluster %s, but %s knows no cluster under this name: restore it, or use an empty bucket or prefix",
			ErrIdentity, e.bucketName(), found.ClusterID, e.storeName())
	}
	id := Identity{ClusterID: NewClusterID(), Generation: 1}
	_, err = e.kv.Txn(ctx, Txn{If: []Cond{{KeyIdentity, 0}}, Then: []Op{Put(KeyIdentity, encode(id))}})
	return err // a lost race or answer shows at the next step
}

// finish creates the bucket's objects and makes the store's key ready.
func (e *identityEnsurer) finish(ctx context.Context, id Identity, rev int64) error {
	objects := []struct {
		key  string
		want bucketIdentity
	}{
		{identityIDKey, bucketIdentity{ClusterID: id.ClusterID}},
		{identityGenKey(id.Generation), bucketIdentity{ClusterID: id.ClusterID, Generation: id.Generation}},
	}
	for _, o := range objects {
		if err := e.create(ctx, o.key, o.want); err != nil {
			return err
		}
	}
	id.Ready = true
	_, err := e.kv.Txn(ctx, Txn{If: []Cond{{KeyIdentity, rev}}, Then: []Op{Put(KeyIdentity, encode(id))}})
	return err
}

// check compares a ready identity with the bucket.
func (e *identityEnsurer) check(ctx context.Context, id Identity) error {
	got, err := e.get(ctx, identityIDKey)
	if err != nil {
		return err
	}
	if got == nil {
		return fmt.Errorf("%w: %s knows cluster %s, but %s is not its bucket: it has no %s",
			ErrIdentity, e.storeName(), id.ClusterID, e.bucketName(), identityIDKey)
	}
	if got.ClusterID != id.ClusterID {
		return e.mismatch(id, *got)
	}
	gen, err := e.get(ctx, identityGenKey(id.Generation))
	if err != nil {
		return err
	}
	if gen == nil || gen.ClusterID != id.ClusterID || gen.Generation != id.Generation {
		return fmt.Errorf("%w: %s is at generation %d of cluster %s, which %s has not seen",
			ErrIdentity, e.storeName(), id.Generation, id.ClusterID, e.bucketName())
	}
	newer, err := e.get(ctx, identityGenKey(id.Generation+1))
	if err == nil && newer != nil {
		err = fmt.Errorf("%w: %s is at generation %d of cluster %s, but %s has moved on to %d: this store is an old one",
			ErrIdentity, e.storeName(), id.Generation, id.ClusterID, e.bucketName(), newer.Generation)
	}
	return err
}

func (e *identityEnsurer) mismatch(id Identity, got bucketIdentity) error {
	return fmt.Errorf("%w: %s is of cluster %s, %s of cluster %s",
		ErrIdentity, e.storeName(), id.ClusterID, e.bucketName(), got.ClusterID)
}

func (e *identityEnsurer) storeName() string  { return orName(e.cfg.Store, "the metadata store") }
func (e *identityEnsurer) bucketName() string { return orName(e.cfg.Bucket, "the bucket") }

func orName(name, other string) string {
	if name == "" {
		return other
	}
	return name
}

// identityTries is how often a call to the bucket is made before its error
// counts; the caller's deadline may end it sooner.
const identityTries = 5

// create binds key to want, or finds it bound to the same.
func (e *identityEnsurer) create(ctx context.Context, key string, want bucketIdentity) error {
	data := encode(want)
	err := e.try(ctx, func(ctx context.Context) error {
		err := e.bucket.Create(ctx, key, data)
		if errors.Is(err, e.cfg.Exists) {
			return nil // whose it is, the read tells
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("create %s in %s: %w", key, e.bucketName(), err)
	}
	got, err := e.get(ctx, key)
	switch {
	case err != nil:
		return err
	case got == nil:
		return fmt.Errorf("%w: %s lost %s right after it was created", ErrIdentity, e.bucketName(), key)
	case *got != want:
		return e.mismatch(Identity{ClusterID: want.ClusterID}, *got)
	}
	return nil
}

// get reads an identity object; nil when there is none.
func (e *identityEnsurer) get(ctx context.Context, key string) (*bucketIdentity, error) {
	data, err := e.readTwice(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s from %s: %w", key, e.bucketName(), err)
	}
	if data == nil {
		return nil, nil
	}
	var got bucketIdentity
	if err := json.Unmarshal(data, &got); err != nil || got.ClusterID == "" {
		return nil, fmt.Errorf("%w: %s of %s is not an identity (%v)", ErrIdentity, key, e.bucketName(), err)
	}
	return &got, nil
}

// errUnsteady: an object that never changes was read with different bytes again
// and again.
var errUnsteady = errors.New("every read returns something else")

// readTwice reads an object until two reads in a row agree. Identity objects
// carry no checksum of their own, and what they say is final: a bit that changed
// on the way must not pass for another cluster.
func (e *identityEnsurer) readTwice(ctx context.Context, key string) ([]byte, error) {
	var last []byte
	for n := range identityTries {
		data, err := e.read(ctx, key)
		if err != nil {
			return nil, err
		}
		if n > 0 && bytes.Equal(data, last) && (data == nil) == (last == nil) {
			return data, nil
		}
		last = data
	}
	return nil, errUnsteady
}

// read reads an object once; nil when there is none.
func (e *identityEnsurer) read(ctx context.Context, key string) (data []byte, err error) {
	const limit = 4 << 10 // far above what is ever written there
	err = e.try(ctx, func(ctx context.Context) (err error) {
		data, err = e.bucket.Get(ctx, key, 0, limit)
		if errors.Is(err, e.cfg.NotFound) {
			data, err = nil, nil
		} else if err == nil && data == nil {
			data = []byte{} // there, and empty
		}
		return err
	})
	return data, err
}

// try calls f until it succeeds, a few times.
func (e *identityEnsurer) try(ctx context.Context, f func(context.Context) error) error {
	var b backoff
	for n := 1; ; n++ {
		call, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
		err := f(call)
		cancel()
		if err == nil || n == identityTries || b.wait(ctx) != nil {
			return err
		}
	}
}
