package tcpproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echo is a server that sends back what it gets, and keeps a copy.
type echo struct {
	addr string
	mu   sync.Mutex
	got  bytes.Buffer
}

func startEcho(t *testing.T) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{addr: l.Addr().String()}
	var running sync.WaitGroup
	t.Cleanup(func() { l.Close(); running.Wait() })
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				b := make([]byte, 4096)
				for {
					n, err := c.Read(b)
					e.mu.Lock()
					e.got.Write(b[:n])
					e.mu.Unlock()
					if _, werr := c.Write(b[:n]); err != nil || werr != nil {
						return
					}
				}
			})
		}
	})
	return e
}

func (e *echo) heard() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got.String()
}

func startProxy(t *testing.T, target string, source func(net.Addr) string) *Proxy {
	t.Helper()
	p, err := New("127.0.0.1:0", target, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

// receive reads n bytes, or as many as come within limit.
func receive(c net.Conn, n int, limit time.Duration) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	b := make([]byte, n)
	got, err := io.ReadFull(c, b)
	return string(b[:got]), err
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	if got, err := receive(c, len(want), 5*time.Second); got != want {
		t.Fatalf("got %q, want %q (%v)", got, want, err)
	}
}

func silent(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	if got, err := receive(c, 1, d); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %q, %v, want silence", got, err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestPass(t *testing.T) {
	p := startProxy(t, startEcho(t).addr, nil)
	c := dial(t, p)
	send(t, c, "hello")
	expect(t, c, "hello")
	_ = c.CloseWrite()
	if got, err := receive(c, 1, 5*time.Second); err != io.EOF {
		t.Errorf("after the end: %q, %v", got, err)
	}
	if s := p.Link().Stats(); s.Connections != 1 || s.Up != 5 || s.Down != 5 {
		t.Errorf("%+v", s)
	}
}

func TestBlackholeDeliversWhenHealed(t *testing.T) {
	e := startEcho(t)
	p := startProxy(t, e.addr, nil)
	old := dial(t, p)
	send(t, old, "a")
	expect(t, old, "a")
	p.Link().Set(Blackhole())
	fresh := dial(t, p)
	send(t, old, "b")
	send(t, fresh, "c")
	silent(t, old, 50*time.Millisecond)
	silent(t, fresh, 50*time.Millisecond)
	if e.heard() != "a" {
		t.Errorf("the server heard %q", e.heard())
	}
	p.Link().Heal()
	expect(t, old, "b")
	expect(t, fresh, "c")
}

func TestRefuse(t *testing.T) {
	p := startProxy(t, startEcho(t).addr, nil)
	old := dial(t, p)
	send(t, old, "a")
	expect(t, old, "a")
	p.Link().Set(Refuse())
	if got, err := receive(old, 1, 5*time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v, want a reset", got, err)
	}
	wantRefused(t, p)
	p.Link().Heal()
	c := dial(t, p)
	send(t, c, "b")
	expect(t, c, "b")
	if s := p.Link().Stats(); s.Refused != 1 || s.Cuts != 1 {
		t.Errorf("%+v", s)
	}
}

func TestOneWay(t *testing.T) {
	e := startEcho(t)
	p := startProxy(t, e.addr, nil)
	c := dial(t, p)
	p.Link().Set(BlockDown())
	send(t, c, "up")
	eventually(t, "the request arrives", func() bool { return e.heard() == "up" })
	silent(t, c, 50*time.Millisecond)
	p.Link().Set(BlockUp())
	expect(t, c, "up")
	send(t, c, "more")
	silent(t, c, 50*time.Millisecond)
	if e.heard() != "up" {
		t.Errorf("the server heard %q", e.heard())
	}
}

func TestLatencyKeepsOrderAndPipelines(t *testing.T) {
	p := startProxy(t, startEcho(t).addr, nil)
	p.Link().Set(Slow(100*time.Millisecond, 20*time.Millisecond))
	c := dial(t, p)
	begun := time.Now()
	want := ""
	for i := range 10 {
		send(t, c, string(rune('a'+i)))
		want += string(rune('a' + i))
		time.Sleep(10 * time.Millisecond)
	}
	expect(t, c, want)
	if d := time.Since(begun); d < 150*time.Millisecond || d > time.Second {
		t.Errorf("ten pieces 10 ms apart, 100 ms away, took %v", d)
	}
}

func TestThrottle(t *testing.T) {
	p := startProxy(t, startEcho(t).addr, nil)
	p.Link().Set(Throttle(100_000))
	c := dial(t, p)
	begun := time.Now()
	msg := string(bytes.Repeat([]byte("x"), 30_000))
	send(t, c, msg)
	expect(t, c, msg)
	if d := time.Since(begun); d < 250*time.Millisecond {
		t.Errorf("30 kB at 100 kB/s took %v", d)
	}
}

func TestCutAfter(t *testing.T) {
	e := startEcho(t)
	p := startProxy(t, e.addr, nil)
	c := dial(t, p)
	send(t, c, "before")
	expect(t, c, "before")
	p.Link().Set(CutUp(3))
	send(t, c, "after")
	// The echo of the three bytes may come first.
	if got, err := receive(c, 4, 5*time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v, want a reset", got, err)
	}
	eventually(t, "the cut is counted", func() bool { return p.Link().Stats().Cuts == 1 })
	if got := e.heard(); got != "before" && got != "beforeaft" { // a reset may overtake bytes
		t.Errorf("the server heard %q", got)
	}
}

func TestServerGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	wantRefused(t, startProxy(t, addr, nil))
}

// wantRefused makes a connection and sees it reset, then or while it is made.
func wantRefused(t *testing.T, p *Proxy) {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err == nil {
		defer c.Close()
		_, err = receive(c, 1, 5*time.Second)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

func TestOwnerTellsSourcesApart(t *testing.T) {
	e := startEcho(t)
	owner := Owner(func() map[string]int { return map[string]int{"init": 1, "me": os.Getpid()} })
	p := startProxy(t, e.addr, owner.Of)
	p.From("me").Set(Refuse())
	wantRefused(t, p)
	p.From("me").Heal()
	p.From("").Set(Refuse())
	c := dial(t, p)
	send(t, c, "x")
	expect(t, c, "x")
}

func TestCloseWhileBlocked(t *testing.T) {
	p := startProxy(t, startEcho(t).addr, nil)
	c := dial(t, p)
	send(t, c, "a")
	expect(t, c, "a")
	p.Link().Set(Blackhole())
	send(t, c, "b")
	dial(t, p)
	done := make(chan struct{})
	go func() { p.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("Close hangs")
	}
}
