package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/embedded"
	"github.com/tidemark-io/tidemark/metadata/etcd"
	"github.com/tidemark-io/tidemark/metadata/metatest"
	"github.com/tidemark-io/tidemark/metadata/metatest/etcdtest"
)

func open(t *testing.T, cfg etcd.Config) *etcd.KV {
	t.Helper()
	if cfg.Cluster == "" {
		cfg.Cluster = "c"
	}
	kv, err := etcd.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kv.Close() })
	return kv
}

func TestConformanceRealEtcd(t *testing.T) {
	for _, members := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d", members), func(t *testing.T) {
			c := etcdtest.Start(t, members)
			n := 0
			metatest.Run(t, func(t *testing.T) metadata.KV {
				n++
				return open(t, etcd.Config{Endpoints: c.Endpoints(), Cluster: fmt.Sprintf("c%d", n)})
			})
		})
	}
}

func put(kv metadata.KV, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := kv.Txn(ctx, metadata.Txn{Then: []metadata.Op{metadata.Put(key, []byte("v"))}})
	return err
}

// One member of three hangs, whichever it is: a session lives on, reads are
// answered, and writes are within a few seconds.
func TestMemberHangs(t *testing.T) {
	c := etcdtest.Start(t, 3)
	for i := range 3 {
		kv := open(t, etcd.Config{Endpoints: c.Endpoints()})
		lease, err := kv.Grant(t.Context(), 6*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		c.Pause(i)
		for until := time.Now().Add(9 * time.Second); time.Now().Before(until); time.Sleep(time.Second) {
			if _, err := kv.Renew(t.Context(), lease); errors.Is(err, metadata.ErrLeaseNotFound) {
				t.Fatalf("member %d hangs: session lost", i)
			}
		}
		if _, _, err := kv.Get(t.Context(), "a"); err != nil {
			t.Errorf("member %d hangs: get: %v", i, err)
		}
		if err := put(kv, "a"); err != nil {
			if err = put(kv, "a"); err != nil {
				t.Errorf("member %d hangs: second put: %v", i, err)
			}
		}
		c.Resume(i)
		waitAll(t, c)
	}
}

func waitAll(t *testing.T, c *etcdtest.Cluster) {
	t.Helper()
	for _, ep := range c.Endpoints() {
		kv := open(t, etcd.Config{Endpoints: []string{ep}})
		if err := put(kv, "b"); err != nil {
			t.Fatalf("%s: %v", ep, err)
		}
	}
}

// All members die and come back: watches go on and nothing written is missing.
func TestClusterRestart(t *testing.T) {
	c := etcdtest.Start(t, 3)
	kv := open(t, etcd.Config{Endpoints: c.Endpoints()})
	ch := kv.Watch(t.Context(), "w", 1)
	if err := put(kv, "w1"); err != nil {
		t.Fatal(err)
	}
	<-ch
	for i := range 3 {
		c.Kill(i)
	}
	if err := put(kv, "w2"); !errors.Is(err, metadata.ErrUnavailable) {
		t.Fatalf("put without etcd: %v", err)
	}
	done := make(chan struct{})
	go func() { // members wait for each other
		defer close(done)
		c.Restart(0)
	}()
	c.Restart(1)
	<-done
	c.Restart(2)
	begun := time.Now()
	for err := put(kv, "w3"); err != nil; err = put(kv, "w3") {
		if time.Since(begun) > 10*time.Second {
			t.Fatal(err)
		}
	}
	t.Logf("writes again after %v", time.Since(begun))
	for {
		ev, open := <-ch
		if !open {
			t.Fatal("a watch ended without saying why")
		}
		if ev.Err != nil { // it may end; it must say so
			ch = kv.Watch(t.Context(), "w", 1)
			continue
		}
		for _, e := range ev.Events {
			if e.Entry.Key == "w3" {
				return
			}
		}
	}
}

func TestOpenExplains(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	server, err := embedded.Start(t.Context(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	f := func(endpoint, want string) {
		t.Helper()
		begun := time.Now()
		_, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{endpoint}, Cluster: "c", OpenTimeout: 2 * time.Second})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", endpoint, err, want)
		}
		if host := strings.TrimPrefix(endpoint, "http://"); err != nil && !strings.Contains(err.Error(), host) {
			t.Errorf("%s is not named: %v", endpoint, err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: took %v", endpoint, took)
		}
		t.Log(err)
	}
	f("http://"+closed.Addr().String(), "connection refused")
	f("http://"+silent.Addr().String(), "not an etcd client port")
	f(web.URL, "not as etcd does")
	f("http://"+tls.Listener.Addr().String(), "use https://")
	f(strings.Replace(server.Endpoints()[0], "http:", "https:", 1), "use http://")
	f("ftp://x:1", "want http://")
	f("http://x:1/path", "want http://")
}

func TestOpenPeerPort(t *testing.T) {
	c := etcdtest.Start(t, 1)
	_, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{c.Peer(0)}, Cluster: "c", OpenTimeout: 2 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "peer port") {
		t.Errorf("got %v", err)
	}
}

func TestOpenFindsSmallTransactions(t *testing.T) {
	c := etcdtest.Start(t, 1, "--max-txn-ops=64")
	_, err := etcd.Open(t.Context(), etcd.Config{Endpoints: c.Endpoints(), Cluster: "c"})
	if !errors.Is(err, etcd.ErrUnsuitable) || !strings.Contains(err.Error(), "--max-txn-ops") {
		t.Errorf("got %v", err)
	}
}

func TestNoSpace(t *testing.T) {
	c := etcdtest.Start(t, 1, "--quota-backend-bytes=4194304")
	kv := open(t, etcd.Config{Endpoints: c.Endpoints()})
	value := make([]byte, 256<<10)
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		_, err = kv.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Put(fmt.Sprint(i), value)}})
	}
	if !errors.Is(err, metadata.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
}

func TestMetrics(t *testing.T) {
	server, err := embedded.Start(t.Context(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	reg := prometheus.NewRegistry()
	kv := open(t, etcd.Config{Endpoints: server.Endpoints(), Registerer: reg})
	if err := put(kv, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Txn(t.Context(), metadata.Txn{If: []metadata.Cond{{Key: "a"}}, Then: []metadata.Op{metadata.Put("a", nil)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Renew(t.Context(), 12345); !errors.Is(err, metadata.ErrLeaseNotFound) {
		t.Fatal(err)
	}
	_ = kv.Close()
	want := map[string]float64{
		"get ok": 1, "renew lease_not_found": 1, "status ok": 1, "txn conflict": 1, "txn ok": 1,
	}
	if got := requests(t, reg); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// requests returns the request counters by operation and outcome.
func requests(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != "tidemark_etcd_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() { // labels come sorted by name
			got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return got
}
