package s3model

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func shipped(t *testing.T) map[string]Model {
	t.Helper()
	data, err := os.ReadFile("../../s3models.yaml")
	if err != nil {
		t.Fatal(err)
	}
	models, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return models
}

// The draws have the median and the tail that the file states.
func TestDrawsHaveTheStatedShape(t *testing.T) {
	for name, m := range shipped(t) {
		for op, s := range map[string]Shape{"put": m.Put, "get": m.Get} {
			rng := rand.New(rand.NewPCG(1, 1))
			samples := make([]time.Duration, 100_000)
			slow := 0
			for i := range samples {
				samples[i] = s.first(rng)
				if samples[i] > s.SlowMedian {
					slow++
				}
			}
			slices.Sort(samples)
			within := func(what string, got, want time.Duration, share float64) {
				t.Helper()
				if off := float64(got-want) / float64(want); off < -share || off > share {
					t.Errorf("%s %s: %s is %v, the file says %v", name, op, what, got, want)
				}
			}
			within("median", samples[50_000], s.Median, .02)
			// The slow share comes on top, and moves the 99th percentile a little.
			within("99th percentile", samples[99_000], s.P99, .15)
			if slow < int(s.SlowShare/2*100_000*.7) {
				t.Errorf("%s %s: %d draws above the slow median", name, op, slow)
			}
		}
	}
}

func TestTransfer(t *testing.T) {
	if got := (Shape{BytesPerSecond: 80e6}).transfer(4 << 20); got < 52*time.Millisecond || got > 53*time.Millisecond {
		t.Errorf("4 MiB at 80 MB/s take %v", got)
	}
	if got := (Shape{BytesPerSecond: 80e6}).transfer(-1); got != 0 {
		t.Errorf("an unknown length takes %v", got)
	}
}

func TestBadModels(t *testing.T) {
	for _, text := range []string{
		"- {name: x}",
		"- {name: x, put: {median: 5ms, p99: 1ms, bytes-per-second: 1}, get: {median: 1ms, p99: 5ms, bytes-per-second: 1}}",
		"- {name: x, put: {median: 1ms, p99: 5ms, bytes-per-second: 0}, get: {median: 1ms, p99: 5ms, bytes-per-second: 1}}",
		"- {name: x, what: 1}",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "store model") {
			t.Errorf("%s gave %v", text, err)
		}
	}
}

// What passes the proxy arrives unchanged, and not before its time.
func TestProxyDelaysAndChangesNothing(t *testing.T) {
	body := bytes.Repeat([]byte("tide"), 100_000)
	var got []byte
	var path, signed string
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, signed = r.URL.EscapedPath()+"?"+r.URL.RawQuery, r.Host
		if r.Method == http.MethodPut {
			got, _ = io.ReadAll(r.Body)
			w.Header().Set("ETag", "x")
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		_, _ = w.Write(body)
	}))
	defer store.Close()
	exactly := Shape{Median: 50 * time.Millisecond, P99: 50 * time.Millisecond, BytesPerSecond: 8e6}
	p, err := New(strings.TrimPrefix(store.URL, "http://"), Model{Put: exactly, Get: exactly}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const atLeast = 50*time.Millisecond + 50*time.Millisecond // 400 kB at 8 MB/s

	req, err := http.NewRequest(http.MethodPut, p.Endpoint()+"/b/a%2Fb?x=1", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "bucket.example"
	begun := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if took := time.Since(begun); took < atLeast {
		t.Errorf("a PUT took %v", took)
	}
	if resp.StatusCode != http.StatusPreconditionFailed || resp.Header.Get("ETag") != "x" {
		t.Errorf("answer %v", resp)
	}
	if !bytes.Equal(got, body) || path != "/b/a%2Fb?x=1" || signed != "bucket.example" {
		t.Errorf("the store got %d bytes for %s of %s", len(got), path, signed)
	}

	begun = time.Now()
	resp, err = http.Get(p.Endpoint() + "/b/k")
	if err != nil {
		t.Fatal(err)
	}
	back, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !bytes.Equal(back, body) {
		t.Errorf("%d bytes came back: %v", len(back), err)
	}
	if took := time.Since(begun); took < atLeast {
		t.Errorf("a GET took %v", took)
	}
	if n, over := p.Counts(); n != 2 || over != 0 {
		t.Errorf("%d requests, %d overruns", n, over)
	}
}

// A store slower than its model is told apart.
func TestOverrunsAreCounted(t *testing.T) {
	store := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(20 * time.Millisecond) }))
	defer store.Close()
	quick := Shape{Median: time.Millisecond, P99: time.Millisecond, BytesPerSecond: 1e9}
	p, err := New(strings.TrimPrefix(store.URL, "http://"), Model{Put: quick, Get: quick}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	resp, err := http.Get(p.Endpoint() + "/b/k")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if _, over := p.Counts(); over != 1 {
		t.Errorf("%d overruns", over)
	}
}
