package tiering

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
	"github.com/tidemark-io/tidemark/tiering/object"
	objects "github.com/tidemark-io/tidemark/tiering/object/mem"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

type hangingStore struct {
	object.Store
	hung atomic.Bool
}

func (h *hangingStore) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	if h.hung.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Store.Get(ctx, key, pos, length)
}

// A store that does not answer does not keep an incarnation that is over.
func TestRunEndsWhileTheStoreHangs(t *testing.T) {
	store := &hangingStore{Store: objects.New()}
	l, err := Open(t.Context(), Config{Incarnation: metadata.MakeIncarnation(1, 1), Cluster: wal.ClusterID{1}, Store: store, Chains: NewChains(mem.New().Client())})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { _ = l.Run(ctx); close(ended) }()
	store.hung.Store(true)
	go func() { _ = l.Check(t.Context(), 0) }()
	time.Sleep(50 * time.Millisecond)
	cancel()
	select {
	case <-ended:
	case <-time.After(time.Second):
		t.Error("Run goes on")
		<-ended
	}
}
