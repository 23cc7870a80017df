package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/object"
)

const (
	// witnessPrefix is followed by a revision in 19 digits, so that names sort.
	witnessPrefix = "_cluster/revisions/"
	// witnessesKept is how many a start leaves: each broker's newest, about.
	witnessesKept = 8
	// witnessTimeout bounds one call to the bucket.
	witnessTimeout = 5 * time.Second
	// witnessesPage bounds a listing; there are a few more than brokers.
	witnessesPage = 1000
)

// witness lets the bucket tell how far the metadata store had come, so that one
// that was put back in time (a backup older than the newest change of leaders
// or trim mark) is refused: it would give offsets out again.
//
// A witness is an object named after a revision that also says which key was
// modified there. It is durable before anything that rests on that change is: a
// claim's before the partition is opened, a trim mark's before slots go.
type witness struct {
	store   object.Store
	kv      metadata.KV
	cluster string

	// mu guards what follows; it is not held during I/O.
	mu     sync.Mutex
	newest int64   // durable; 0: none of ours
	older  []int64 // of ours, superseded
}

// testimony is the content of a witness.
type testimony struct {
	ClusterID string `json:"cluster_id"`
	Revision  int64  `json:"revision"`
	Key       string `json:"key"`
}

func witnessKey(rev int64) string { return fmt.Sprintf("%s%019d", witnessPrefix, rev) }

// Note makes the bucket tell that key was modified at rev.
func (w *witness) Note(ctx context.Context, key string, rev int64) error {
	w.mu.Lock()
	known := w.newest
	w.mu.Unlock()
	if rev <= known {
		return nil
	}
	content, err := json.Marshal(testimony{ClusterID: w.cluster, Revision: rev, Key: key})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	// A revision is one transaction: what exists there is our own.
	if err := w.store.Create(ctx, witnessKey(rev), content); err != nil && !errors.Is(err, object.ErrExists) {
		return fmt.Errorf("note revision %d in the bucket: %w", rev, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := min(w.newest, rev); old > 0 && len(w.older) < witnessesPage {
		w.older = append(w.older, old)
	}
	w.newest = max(w.newest, rev)
	return nil
}

// tidy deletes witnesses that newer ones have made needless. What cannot be
// deleted is left to a start.
func (w *witness) tidy(ctx context.Context) {
	w.mu.Lock()
	older := w.older
	w.older = nil
	w.mu.Unlock()
	for _, rev := range older {
		w.remove(ctx, witnessKey(rev))
	}
}

func (w *witness) remove(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	_ = w.store.Delete(ctx, key) // an old witness does no harm
}

// check returns an error that wraps metadata.ErrIdentity if the metadata store
// does not know of a change that the bucket tells of.
func (w *witness) check(ctx context.Context) error {
	names, err := w.list(ctx)
	if err != nil {
		return err
	}
	newest := names[max(0, len(names)-witnessesKept):]
	told := make([]testimony, 0, len(newest))
	keys := make([]string, 0, len(newest))
	for _, name := range newest {
		t, err := w.read(ctx, name)
		if err != nil {
			return err
		}
		if t.Revision > 0 {
			told, keys = append(told, t), append(keys, t.Key)
		}
	}
	// Read after the bucket: whatever it tells of was there by then.
	now, rev, err := w.kv.Get(ctx, keys...)
	if err != nil {
		return err
	}
	for i, t := range told {
		if t.Revision > rev || now[i].Exists() && now[i].ModRevision < t.Revision {
			return fmt.Errorf("%w: etcd is at revision %d and does not know of %s at revision %d, which the bucket tells of (%s): "+
				"it was put back in time and would give offsets out again; restore a newer backup",
				metadata.ErrIdentity, rev, t.Key, t.Revision, witnessKey(t.Revision))
		}
	}
	for _, name := range names[:len(names)-len(newest)] {
		w.remove(ctx, name)
	}
	return nil
}

func (w *witness) list(ctx context.Context) (names []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	for after := ""; ; after = names[len(names)-1] {
		page, err := w.store.List(ctx, witnessPrefix, after, witnessesPage)
		if err != nil {
			return nil, fmt.Errorf("list what the bucket tells of etcd: %w", err)
		}
		for _, o := range page {
			names = append(names, o.Key)
		}
		if len(page) < witnessesPage {
			slices.Sort(names)
			return names, nil
		}
	}
}

// read returns what the object called name tells; nothing if it is gone.
func (w *witness) read(ctx context.Context, name string) (testimony, error) {
	ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	b, err := w.store.Get(ctx, name, 0, 4<<10)
	if errors.Is(err, object.ErrNotFound) {
		return testimony{}, nil // its broker has a newer one
	}
	if err != nil {
		return testimony{}, fmt.Errorf("read %s: %w", name, err)
	}
	var t testimony
	rev, err := strconv.ParseInt(strings.TrimPrefix(name, witnessPrefix), 10, 64)
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil || t.Revision != rev || t.ClusterID != w.cluster || t.Key == "" {
		return testimony{}, fmt.Errorf("%s is not what was written there: %q", name, b)
	}
	return t, nil
}

// await checks until it has an answer, or ctx ends: while the bucket is away a
// new incarnation could lead nothing anyway.
func (w *witness) await(ctx context.Context, complain func(error)) error {
	for pause := restartPause; ; pause = min(2*pause, restartPauseMax) {
		err := w.check(ctx)
		if err == nil || errors.Is(err, metadata.ErrIdentity) || ctx.Err() != nil {
			return err
		}
		complain(err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// witnessed are the chains of the log, whose marks the bucket tells of.
type witnessed struct {
	tiering.Chains
	w *witness
}

func (c witnessed) Checkpointed(ctx context.Context, inc metadata.Incarnation, slot uint64) error {
	if err := c.Chains.Checkpointed(ctx, inc, slot); err != nil {
		return err
	}
	return c.note(ctx, inc)
}

func (c witnessed) Trimmed(ctx context.Context, inc metadata.Incarnation, slot, deleted uint64) error {
	if err := c.Chains.Trimmed(ctx, inc, slot, deleted); err != nil {
		return err
	}
	return c.note(ctx, inc)
}

func (c witnessed) note(ctx context.Context, inc metadata.Incarnation) error {
	_, rev, err := metadata.LoadChain(ctx, c.w.kv, inc)
	if err != nil {
		return err
	}
	if err := c.w.Note(ctx, metadata.ChainKey(inc), rev); err != nil {
		return err
	}
	c.w.tidy(ctx)
	return nil
}
