package etcdproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/embedded"
	"github.com/tidemark-io/tidemark/metadata/etcd"
	"github.com/tidemark-io/tidemark/metadata/metatest"
)

func start(t *testing.T) *Proxy {
	t.Helper()
	s, err := embedded.Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	p, err := New("127.0.0.1:0", strings.TrimPrefix(s.Endpoints()[0], "http://"), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func open(t *testing.T, p *Proxy, cluster string) metadata.KV {
	t.Helper()
	kv, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{"http://" + p.Addr()}, Cluster: cluster, CallTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kv.Close() })
	return kv
}

// Whatever a store promises it promises through the proxy.
func TestPassesEverything(t *testing.T) {
	p := start(t)
	n := 0
	metatest.Run(t, func(t *testing.T) metadata.KV {
		n++
		return open(t, p, fmt.Sprintf("c%d", n))
	})
}

func put(kv metadata.KV, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := kv.Txn(ctx, metadata.Txn{Then: []metadata.Op{metadata.Put(key, []byte("v"))}})
	return err
}

func has(t *testing.T, kv metadata.KV, key string) bool {
	t.Helper()
	e, _, err := kv.Range(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return len(e) > 0
}

func TestAnswersLost(t *testing.T) {
	p := start(t)
	kv := open(t, p, "c")
	for _, c := range []struct {
		name   string
		action Action
		there  bool
	}{{"lost", LoseAnswer, true}, {"hung", HangAnswer, true}, {"refused", Refuse, false}} {
		a := p.Add(Rule{Method: Txn, Writes: true, Action: c.action, Count: 1})
		if err := put(kv, c.name); !errors.Is(err, metadata.ErrUnavailable) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := has(t, kv, c.name); got != c.there { // reads are not writes
			t.Errorf("%s: applied %v", c.name, got)
		}
		want := Counts{Seen: 1, Hit: 1}
		if c.there {
			want.Written = 1
		}
		if got := a.Counts(); got != want {
			t.Errorf("%s: %+v", c.name, got)
		}
		a.Remove()
		if err := put(kv, c.name); err != nil {
			t.Errorf("%s, afterwards: %v", c.name, err)
		}
	}
}

func TestWatchesCutGoOn(t *testing.T) {
	p := start(t)
	kv := open(t, p, "c")
	_, rev, err := kv.Range(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	changes := kv.Watch(ctx, "k", rev+1)
	seen := 0
	for i := range 5 {
		if err := put(kv, fmt.Sprintf("k%d", i)); err != nil {
			t.Fatal(err)
		}
		for seen <= i {
			c, ok := <-changes
			if !ok {
				t.Fatalf("ended after %d", seen)
			}
			if c.Err != nil {
				t.Fatal(c.Err)
			}
			seen += len(c.Events)
		}
		if p.CutWatches() == 0 {
			t.Error("no watch to cut")
		}
	}
}
