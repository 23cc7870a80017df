package s3proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// bucket is a store that keeps what it is given, once, and checks a digest.
type bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
	hosts   map[string]bool
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hosts[r.Host] = true
	data, ok := b.objects[r.URL.Path]
	switch {
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if sum := sha256.Sum256(body); err != nil || r.Header.Get("X-Sum") != hex.EncodeToString(sum[:]) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if ok {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		b.objects[r.URL.Path] = body
	case r.Method == http.MethodDelete:
		delete(b.objects, r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Query().Get("list-type") != "":
		fmt.Fprintf(w, "<ListBucketResult><KeyCount>%d</KeyCount>", len(b.objects))
		for k := range b.objects {
			fmt.Fprintf(w, "<Contents><Key>%s</Key></Contents>", k)
		}
		fmt.Fprint(w, "</ListBucketResult>")
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(data)-1, len(data)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(data)
	}
}

func (b *bucket) has(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.objects["/b/"+key]
	return ok
}

type rig struct {
	t      *testing.T
	bucket *bucket
	proxy  *Proxy
	client *http.Client
}

func start(t *testing.T) *rig {
	t.Helper()
	b := &bucket{objects: make(map[string][]byte), hosts: make(map[string]bool)}
	s := httptest.NewServer(b)
	p, err := New("127.0.0.1:0", strings.TrimPrefix(s.URL, "http://"), 7)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t, b, p, &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}}
	t.Cleanup(func() { r.client.CloseIdleConnections(); p.Close(); s.Close() })
	return r
}

// do returns the status and body; a broken answer is an error.
func (r *rig) do(method, path, body string) (int, string, error) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.proxy.Endpoint()+"/b/"+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.GetBody = nil // nothing is sent twice
	sum := sha256.Sum256([]byte(body))
	req.Header.Set("X-Sum", hex.EncodeToString(sum[:]))
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func (r *rig) want(method, path, body string, status int, answer string) {
	r.t.Helper()
	got, text, err := r.do(method, path, body)
	if err != nil || got != status || !strings.Contains(text, answer) {
		r.t.Errorf("%s %s: %d %q, %v; want %d %q", method, path, got, text, err, status, answer)
	}
}

func (r *rig) wantBroken(method, path, body string) {
	r.t.Helper()
	if got, text, err := r.do(method, path, body); err == nil {
		r.t.Errorf("%s %s: %d %q, want a broken connection", method, path, got, text)
	}
}

func TestPassKeepsTheHost(t *testing.T) {
	r := start(t)
	r.want("PUT", "k", "v", 200, "")
	r.want("GET", "k", "", 206, "v")
	r.want("PUT", "k", "w", 412, "")
	r.want("DELETE", "k", "", 204, "")
	r.want("GET", "k", "", 404, "")
	if !r.bucket.hosts[r.proxy.Addr()] || len(r.bucket.hosts) != 1 {
		t.Errorf("the store was asked for hosts %v", r.bucket.hosts)
	}
	if n := r.proxy.Overwritten(); n != 0 {
		t.Errorf("%d overwritten", n)
	}
}

func TestErrors(t *testing.T) {
	r := start(t)
	r.want("PUT", "k", "v", 200, "")
	for _, c := range []struct {
		mode   Mode
		method string
		status int
		text   string
	}{
		{SlowDown, "GET", 503, "SlowDown"},
		{Internal, "PUT", 500, "InternalError"},
		{Expired, "GET", 403, "ExpiredToken"},
		{Conflict, "PUT", 409, "ConditionalRequestConflict"},
		{MissingOnce, "GET", 404, "NoSuchKey"},
	} {
		a := r.proxy.Add(Rule{Mode: c.mode, Count: 1})
		r.want(c.method, "k", "v", c.status, c.text)
		if c.method == "GET" {
			r.want("GET", "k", "", 206, "v")
		}
		if n := a.Counts(); n.Hit != 1 {
			t.Errorf("%s: %+v", c.mode, n)
		}
		a.Remove()
	}
}

func TestPicks(t *testing.T) {
	r := start(t)
	a := r.proxy.Add(Rule{Mode: SlowDown, Op: Get, Key: regexp.MustCompile(`^w/`), Probability: 0.5})
	r.want("PUT", "w/k", "v", 200, "")
	r.want("PUT", "k", "v", 200, "")
	r.want("GET", "k", "", 206, "v")
	failed := 0
	for range 200 {
		if status, _, _ := r.do("GET", "w/k", ""); status == 503 {
			failed++
		}
	}
	n := a.Counts()
	if n.Seen != 200 || n.Hit != failed || failed < 60 || failed > 140 {
		t.Errorf("%+v, %d failed", n, failed)
	}
}

func TestAmbiguousAndLate(t *testing.T) {
	r := start(t)
	a := r.proxy.Add(Rule{Mode: AmbiguousOK, Op: Put, Count: 1})
	r.wantBroken("PUT", "k", "v")
	if !r.bucket.has("k") || a.Counts().Outcomes["200"] != 1 {
		t.Errorf("not stored: %+v", a.Counts())
	}
	a.Remove()
	a = r.proxy.Add(Rule{Mode: Late, Op: Put, Delay: 100 * time.Millisecond, Spread: 10 * time.Millisecond, Count: 2})
	r.wantBroken("PUT", "first", "v")
	r.wantBroken("PUT", "second", "v")
	if r.bucket.has("first") || r.bucket.has("second") {
		t.Error("stored at once")
	}
	r.want("PUT", "second", "retried", 200, "")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		n := a.Counts().Outcomes
		if n["200"] == 1 && n["412"] == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v", n)
		}
	}
	r.want("GET", "first", "", 206, "v")
	r.want("GET", "second", "", 206, "retried")
	if n := r.proxy.Overwritten(); n != 0 {
		t.Errorf("%d overwritten", n)
	}
}

func TestOverwrittenIsSeen(t *testing.T) {
	r := start(t)
	r.want("PUT", "k", "v", 200, "")
	r.bucket.mu.Lock()
	delete(r.bucket.objects, "/b/k") // a store that loses its objects
	r.bucket.mu.Unlock()
	r.want("PUT", "k", "w", 200, "")
	if n := r.proxy.Overwritten(); n != 1 {
		t.Errorf("%d overwritten", n)
	}
}

func TestHang(t *testing.T) {
	r := start(t)
	a := r.proxy.Add(Rule{Mode: HangBefore, Op: Put, Delay: 50 * time.Millisecond})
	begun := time.Now()
	r.wantBroken("PUT", "k", "v")
	if time.Since(begun) < 50*time.Millisecond || r.bucket.has("k") || a.Counts().Outcomes["held to the end"] != 1 {
		t.Errorf("%v, %+v", time.Since(begun), a.Counts())
	}
}

func TestFlip(t *testing.T) {
	r := start(t)
	want := strings.Repeat("payload", 100)
	put := r.proxy.Add(Rule{Mode: Flip, Op: Put, Count: 1})
	r.want("PUT", "k", want, 400, "")
	r.want("PUT", "k", want, 200, "")
	if n := put.Counts(); n.Outcomes["400"] != 1 || n.Outcomes["flipped"] != 1 {
		t.Errorf("%+v", n)
	}
	r.proxy.Add(Rule{Mode: Flip, Op: Get, Count: 1})
	_, got, err := r.do("GET", "k", "")
	if err != nil || len(got) != len(want) || bits([]byte(got), []byte(want)) != 1 {
		t.Errorf("%v, %d bytes, %d bits differ", err, len(got), bits([]byte(got), []byte(want)))
	}
	r.want("GET", "k", "", 206, want)
}

func bits(a, b []byte) (n int) {
	for i := range min(len(a), len(b)) {
		for d := a[i] ^ b[i]; d != 0; d &= d - 1 {
			n++
		}
	}
	return n
}

func TestTruncate(t *testing.T) {
	r := start(t)
	want := strings.Repeat("payload", 1000)
	r.want("PUT", "k", want, 200, "")
	a := r.proxy.Add(Rule{Mode: Truncate, Count: 1})
	_, got, err := r.do("GET", "k", "")
	if !errors.Is(err, io.ErrUnexpectedEOF) && err == nil || len(got) >= len(want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	a.Remove()
	r.proxy.Add(Rule{Mode: TruncateHide, Count: 1})
	_, got, err = r.do("GET", "k", "")
	if err != nil || len(got) >= len(want) || !strings.HasPrefix(want, got) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	r.want("GET", "k", "", 206, want)
}

func TestSlow(t *testing.T) {
	r := start(t)
	want := strings.Repeat("x", 20_000)
	a := r.proxy.Add(Rule{Mode: Slow, Rate: 200_000})
	begun := time.Now()
	r.want("PUT", "k", want, 200, "")
	r.want("GET", "k", "", 206, want)
	if d := time.Since(begun); d < 150*time.Millisecond || a.Counts().Hit != 2 {
		t.Errorf("%v, %+v", d, a.Counts())
	}
}

func TestList(t *testing.T) {
	r := start(t)
	const list = "?list-type=2&prefix="
	r.want("PUT", "one", "v", 200, "")
	r.want("GET", list, "", 200, "/b/one")
	r.want("PUT", "two", "v", 200, "")
	a := r.proxy.Add(Rule{Mode: ListStale})
	if _, got, _ := r.do("GET", list, ""); !strings.Contains(got, "/b/one") || strings.Contains(got, "/b/two") {
		t.Errorf("stale: %q", got)
	}
	a.Remove()
	a = r.proxy.Add(Rule{Mode: ListEmpty})
	if _, got, _ := r.do("GET", list, ""); strings.Contains(got, "/b/") {
		t.Errorf("empty: %q", got)
	}
	a.Remove()
	a = r.proxy.Add(Rule{Mode: ListCut})
	r.wantBroken("GET", list, "")
	a.Remove()
	r.want("GET", list, "", 200, "/b/two")
}

func TestDeleteLate(t *testing.T) {
	r := start(t)
	r.want("PUT", "k", "v", 200, "")
	a := r.proxy.Add(Rule{Mode: Late, Op: Delete, Delay: 50 * time.Millisecond})
	r.wantBroken("DELETE", "k", "")
	if !r.bucket.has("k") {
		t.Error("deleted at once")
	}
	for end := time.Now().Add(5 * time.Second); r.bucket.has("k"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not deleted: %+v", a.Counts())
		}
	}
}

func TestCloseDropsWhatIsLate(t *testing.T) {
	r := start(t)
	r.proxy.Add(Rule{Mode: Late, Op: Put, Delay: time.Hour})
	r.wantBroken("PUT", "k", "v")
	done := make(chan struct{})
	go func() { r.proxy.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("Close hangs")
	}
	if !bytes.Equal(r.bucket.objects["/b/k"], nil) {
		t.Error("delivered")
	}
}
