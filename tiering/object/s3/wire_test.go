package s3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// fake is a server whose answers a test decides.
func fake(t *testing.T, secure bool, handler http.HandlerFunc) *Store {
	t.Helper()
	srv := httptest.NewUnstartedServer(handler)
	if secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	s := openStore(t, Config{Endpoint: srv.URL, Bucket: "bucket", AccessKey: "key", SecretKey: "secret"})
	if secure {
		s.transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	return s
}

// TestPutOnTheWire: what a PUT really sends, on http and https: one request, the
// body as it is, a CRC32C and no other digest.
func TestPutOnTheWire(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("secure=%v", secure), func(t *testing.T) {
			var mu sync.Mutex
			var requests []*http.Request
			var bodies [][]byte
			s := fake(t, secure, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				mu.Lock()
				defer mu.Unlock()
				requests, bodies = append(requests, r), append(bodies, b)
				w.Header().Set("ETag", `"e"`)
			})
			a, b := bytes.Repeat([]byte("tide"), 500_000), []byte("mark")
			for _, data := range [][][]byte{{a, b}, {}} {
				if err := s.Create(t.Context(), "w/3f/1/0", data...); err != nil {
					t.Fatal(err)
				}
			}
			if len(requests) != 2 {
				t.Fatalf("%d requests for 2 creates", len(requests))
			}
			for i, want := range [][]byte{append(bytes.Clone(a), b...), nil} {
				r := requests[i]
				if !bytes.Equal(bodies[i], want) {
					t.Errorf("the body on the wire is not the object: %d bytes, want %d", len(bodies[i]), len(want))
				}
				if r.Method != http.MethodPut || r.URL.Path != "/bucket/w/3f/1/0" || r.URL.RawQuery != "" || r.ProtoMajor != 1 {
					t.Errorf("request %s %s %s", r.Method, r.URL, r.Proto)
				}
				crc := crc32.Checksum(want, crc32.MakeTable(crc32.Castagnoli))
				for name, value := range map[string]string{
					"If-None-Match":         "*",
					"X-Amz-Content-Sha256":  "UNSIGNED-PAYLOAD",
					"X-Amz-Checksum-Crc32c": checksumOf(crc),
				} {
					if r.Header.Get(name) != value {
						t.Errorf("%s: %q, want %q", name, r.Header.Get(name), value)
					}
				}
				if r.ContentLength != int64(len(want)) || len(r.TransferEncoding) != 0 || len(r.Trailer) != 0 {
					t.Errorf("length %d, transfer encoding %v, trailer %v", r.ContentLength, r.TransferEncoding, r.Trailer)
				}
				for _, name := range []string{"Content-Md5", "X-Amz-Decoded-Content-Length", "X-Amz-Trailer", "Content-Encoding", "Expect"} {
					if r.Header.Get(name) != "" {
						t.Errorf("%s: %q was sent", name, r.Header.Get(name))
					}
				}
				signed := r.Header.Get("Authorization")
				for _, name := range []string{"if-none-match", "x-amz-checksum-crc32c", "x-amz-content-sha256", "host"} {
					if !strings.Contains(signed, name) {
						t.Errorf("%s is not signed: %s", name, signed)
					}
				}
			}
		})
	}
}

func checksumOf(crc uint32) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	n := uint64(crc) << 4 // 32 bits in six digits of six bits, and two for padding
	var out []byte
	for shift := 30; shift >= 0; shift -= 6 {
		out = append(out, digits[n>>shift&63])
	}
	return string(out) + "=="
}

// TestNeverSentTwice: connections that die while a PUT is on them, kept alive
// from an earlier request, are the case in which net/http likes to try again.
func TestNeverSentTwice(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var puts atomic.Int32
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { dieOnSecondPut(conn, &puts) })
		}
	})
	s := openStore(t, Config{Endpoint: "http://" + l.Addr().String(), Bucket: "bucket", AccessKey: "a", SecretKey: "b"})
	for _, body := range [][]byte{bytes.Repeat([]byte("x"), 1<<20), nil} {
		puts.Store(0)
		if err := s.Create(t.Context(), "a", body); err != nil {
			t.Fatal(err)
		}
		err := s.Create(t.Context(), "b", body)
		if object.Outcome(err) != object.OutcomeError {
			t.Fatalf("Create = %v, want an unknown outcome", err)
		}
		if n := puts.Load(); n != 2 {
			t.Fatalf("%d requests for 2 creates", n)
		}
	}
	_ = s.Close()
	_ = l.Close()
	wg.Wait()
}

func dieOnSecondPut(conn net.Conn, puts *atomic.Int32) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		if puts.Add(1) == 2 {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n")
	}
}

func xmlError(code string) string {
	if code == "" {
		return "<html>oops</html>"
	}
	return `<?xml version="1.0"?><Error><Code>` + code + `</Code><Message>why</Message></Error>`
}

func TestAnswers(t *testing.T) {
	const put, get, del = http.MethodPut, http.MethodGet, http.MethodDelete
	for _, c := range []struct {
		method string
		status int
		code   string
		want   string // an outcome
	}{
		{put, 200, "", object.OutcomeError}, // no ETag: not the store's answer
		{put, 204, "", object.OutcomeError},
		{put, 412, "PreconditionFailed", object.OutcomeExists},
		{put, 409, "ConditionalRequestConflict", object.OutcomeError},
		{put, 409, "OperationAborted", object.OutcomeError},
		{put, 404, "NoSuchBucket", object.OutcomeRefused},
		{put, 404, "NoSuchKey", object.OutcomeError},
		{put, 404, "", object.OutcomeError},
		{put, 403, "AccessDenied", object.OutcomeRefused},
		{put, 403, "SignatureDoesNotMatch", object.OutcomeRefused},
		{put, 403, "RequestTimeTooSkewed", object.OutcomeError},
		{put, 400, "ExpiredToken", object.OutcomeError},
		{put, 403, "ExpiredToken", object.OutcomeError},
		{put, 400, "RequestTimeout", object.OutcomeError},
		{put, 400, "BadDigest", object.OutcomeError},
		{put, 400, "XAmzContentChecksumMismatch", object.OutcomeError},
		{put, 400, "InvalidArgument", object.OutcomeRefused},
		{put, 301, "PermanentRedirect", object.OutcomeRefused},
		{put, 307, "TemporaryRedirect", object.OutcomeError},
		{put, 408, "", object.OutcomeError},
		{put, 413, "", object.OutcomeRefused},
		{put, 429, "", object.OutcomeThrottled},
		{put, 500, "InternalError", object.OutcomeError},
		{put, 501, "NotImplemented", object.OutcomeRefused},
		{put, 502, "", object.OutcomeError},
		{put, 503, "SlowDown", object.OutcomeThrottled},
		{put, 503, "", object.OutcomeThrottled},
		{put, 504, "", object.OutcomeError},
		{put, 507, "XMinioStorageFull", object.OutcomeError},
		{get, 404, "NoSuchKey", object.OutcomeNotFound},
		{get, 404, "NoSuchBucket", object.OutcomeRefused},
		{get, 404, "", object.OutcomeError}, // a proxy's 404 says nothing about the object
		{get, 403, "AccessDenied", object.OutcomeRefused},
		{get, 403, "RequestTimeTooSkewed", object.OutcomeError},
		{get, 500, "InternalError", object.OutcomeError},
		{get, 503, "SlowDown", object.OutcomeThrottled},
		{del, 204, "", object.OutcomeOK},
		{del, 404, "NoSuchKey", object.OutcomeOK},
		{del, 404, "NoSuchBucket", object.OutcomeRefused},
		{del, 503, "SlowDown", object.OutcomeThrottled},
	} {
		s := fake(t, false, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(c.status)
			if c.status >= 300 {
				_, _ = io.WriteString(w, xmlError(c.code))
			}
		})
		var err error
		switch c.method {
		case put:
			err = s.Create(t.Context(), "a", []byte("x"))
		case get:
			_, err = s.Get(t.Context(), "a", 0, -1)
		case del:
			err = s.Delete(t.Context(), "a")
		}
		if got := object.Outcome(err); got != c.want {
			t.Errorf("%s answered %d %s: outcome %s (%v), want %s", c.method, c.status, c.code, got, err, c.want)
		}
	}
}

// TestHostileRanges: answers that do not match the question are errors, and
// never bytes.
func TestHostileRanges(t *testing.T) {
	for _, c := range []struct {
		name         string
		pos, length  int64
		status       int
		contentRange string
		body         string
		want         string // "error", or the bytes
	}{
		{"right", 2, 3, 206, "bytes 2-4/10", "abc", "abc"},
		{"right at the end", 8, 5, 206, "bytes 8-9/10", "ab", "ab"},
		{"to the end", 8, -1, 206, "bytes 8-9/10", "ab", "ab"},
		{"whole for a range from 0", 0, 5, 200, "", "abc", "abc"},
		{"short in the middle", 2, 3, 206, "bytes 2-3/10", "ab", "error"},
		{"another place", 2, 3, 206, "bytes 3-5/10", "abc", "error"},
		{"too long", 2, 3, 206, "bytes 2-5/10", "abcd", "error"},
		{"length against range", 2, 3, 206, "bytes 2-4/10", "ab", "error"},
		{"range ignored", 2, 3, 200, "", "0123456789", "error"},
		{"range ignored at 0", 0, 3, 200, "", "0123456789", "error"},
		{"no range", 2, 3, 206, "", "abc", "error"},
		{"no total", 2, 3, 206, "bytes 2-4/*", "abc", "error"},
		{"negative", 2, 3, 206, "bytes -2-4/10", "abc", "error"},
		{"reversed", 2, 3, 206, "bytes 4-2/10", "abc", "error"},
		{"huge", 2, 3, 206, "bytes 2-99999999999999999999/10", "abc", "error"},
		{"beyond total", 2, 3, 206, "bytes 2-4/4", "abc", "error"},
	} {
		s := fake(t, false, func(w http.ResponseWriter, r *http.Request) {
			if c.contentRange != "" {
				w.Header().Set("Content-Range", c.contentRange)
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(c.body)))
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		got, err := s.Get(t.Context(), "a", c.pos, c.length)
		if (c.want == "error") != (err != nil) || err == nil && string(got) != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

func TestTruncatedAndCorruptAnswers(t *testing.T) {
	const data = "0123456789"
	mode := "good"
	s := fake(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Header().Set(headerCRC32C, checksum([]byte(data)))
		switch mode {
		case "good":
			_, _ = io.WriteString(w, data)
		case "flipped":
			_, _ = io.WriteString(w, "0123456780")
		case "cut":
			_, _ = io.WriteString(w, "01234")
		case "huge":
			w.Header().Set("Content-Length", "9000000000000000000")
		case "chunked":
			w.Header().Del("Content-Length")
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, data)
		}
	})
	get := func(m string) error {
		mode = m
		_, err := s.Get(t.Context(), "a", 0, -1)
		return err
	}
	if err := get("good"); err != nil {
		t.Errorf("good: %v", err)
	}
	if err := get("flipped"); !errors.Is(err, object.ErrCorrupt) {
		t.Errorf("flipped: %v", err)
	}
	for _, m := range []string{"cut", "huge", "chunked"} {
		if err := get(m); object.Outcome(err) != object.OutcomeError {
			t.Errorf("%s: %v", m, err)
		}
	}
}

func TestHostileListings(t *testing.T) {
	for name, answer := range map[string]string{
		"not XML":         `hello`,
		"endless":         `<R><IsTruncated>true</IsTruncated></R>`,
		"another prefix":  `<R><Contents><Key>k/1</Key></Contents></R>`,
		"before after":    `<R><Contents><Key>w/0</Key></Contents></R>`,
		"broken escaping": `<R><EncodingType>url</EncodingType><Contents><Key>w/%zz</Key></Contents></R>`,
	} {
		s := fake(t, false, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
		if infos, err := s.List(t.Context(), "w/", "w/1", 10); err == nil {
			t.Errorf("%s: %v", name, infos)
		}
	}
}

func TestDeadlines(t *testing.T) {
	release := make(chan struct{})
	s := fake(t, false, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := s.Create(ctx, "a", []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Create = %v", err)
	}
	s.cfg.Timeout = 30 * time.Millisecond
	if _, err := s.Get(context.Background(), "a", 0, -1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get without a deadline of its own = %v", err)
	}
}

// keeping is a transport that goes on reading a body after it has failed.
type keeping struct{ body io.Reader }

func (k *keeping) RoundTrip(req *http.Request) (*http.Response, error) {
	k.body = req.Body
	_, _ = io.CopyN(io.Discard, req.Body, 10)
	return nil, errors.New("connection lost")
}

func TestBytesAreNotReadAfterCreate(t *testing.T) {
	s := openStore(t, Config{Endpoint: "http://127.0.0.1:1", Bucket: "bucket", AccessKey: "a", SecretKey: "b"})
	k := &keeping{}
	s.client.Transport = k
	if err := s.Create(t.Context(), "a", make([]byte, 100)); object.Outcome(err) != object.OutcomeError {
		t.Fatalf("Create = %v", err)
	}
	if b, err := io.ReadAll(k.body); len(b) != 0 || err == nil {
		t.Errorf("%d bytes of the caller were read after Create returned, %v", len(b), err)
	}
}
