package s3proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// bodyMax bounds a request body and an answer that is changed; the store's
	// objects are a quarter of it at most.
	bodyMax = 64 << 20
	// createdMax bounds the memory of created keys.
	createdMax = 1 << 21
	// listsMax bounds the remembered listings.
	listsMax = 1024
)

// Proxy is one listener before one store. Use New and Close.
type Proxy struct {
	server    *http.Server
	listener  net.Listener
	transport *http.Transport
	target    string // host:port
	running   sync.WaitGroup
	ctx       context.Context // of requests delivered late; ended by Close
	stop      context.CancelFunc

	mu          sync.Mutex // guards what follows
	closed      bool
	rules       []*Active
	random      *rand.Rand
	created     map[string]bool
	overwritten int
	lists       map[string][]byte // the last true answer to each listing
	requests    int
}

// New listens at addr before the store at target, a host and port. The seed
// decides what rules pick.
func New(addr, target string, seed uint64) (*Proxy, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("proxy before the store: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{
		listener: l, target: target, ctx: ctx, stop: stop,
		transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		random:    rand.New(rand.NewPCG(seed, 2)),
		created:   make(map[string]bool), lists: make(map[string][]byte),
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	p.running.Go(func() { _ = p.server.Serve(l) }) // ends with Close
	return p, nil
}

// Addr is where the proxy listens; Endpoint is that as a URL.
func (p *Proxy) Addr() string     { return p.listener.Addr().String() }
func (p *Proxy) Endpoint() string { return "http://" + p.Addr() }

// Close ends everything, what is delayed included.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	_ = p.server.Close()
	p.running.Wait()
	p.transport.CloseIdleConnections()
}

// Add puts a rule to work. The first rule that picks a request has it.
func (p *Proxy) Add(r Rule) *Active {
	a := &Active{rule: r, proxy: p, outcomes: make(map[string]int), told: make(map[string]bool), begun: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, a)
	return a
}

// Requests counts what came in.
func (p *Proxy) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests
}

// Overwritten counts keys that the store said it had created although it had
// said so before, and which nobody deleted in between.
func (p *Proxy) Overwritten() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.overwritten
}

// exchange is one request and all a mode needs to know of it.
type exchange struct {
	p    *Proxy
	w    http.ResponseWriter
	r    *http.Request
	op   Op
	key  string
	body []byte // of a PUT
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.enter() {
		return
	}
	defer p.running.Done()
	op, key := classify(r)
	x := &exchange{p: p, w: w, r: r, op: op, key: key}
	a := p.pick(op, key)
	if a == nil || a.rule.Mode != Slow { // that one reads the body itself
		if err := x.readBody(); err != nil {
			x.reset()
			return
		}
	}
	if a == nil {
		x.pass()
		return
	}
	x.do(a)
}

// enter counts a handler in, for handlers outlive server.Close.
func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.running.Add(1)
	}
	return !p.closed
}

// classify takes path-style requests apart.
func classify(r *http.Request) (Op, string) {
	_, key, inside := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("list-type") != "":
		return List, r.URL.Query().Get("prefix")
	case !inside || key == "":
		return Op("BUCKET " + r.Method), ""
	}
	return Op(r.Method), key
}

func (p *Proxy) pick(op Op, key string) *Active {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	if strings.HasPrefix(string(op), "BUCKET") {
		return nil
	}
	for _, a := range p.rules {
		if a.wants(op, key, p.random.Float64()) {
			return a
		}
	}
	return nil
}

// chance draws below n.
func (p *Proxy) chance(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.random.IntN(n)
}

func (p *Proxy) wait(r Rule) time.Duration {
	if r.Spread <= 0 {
		return r.Delay
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.Delay + time.Duration(p.random.Int64N(int64(r.Spread)))
}

var errTooLarge = errors.New("body too large for the proxy")

func (x *exchange) readBody() error {
	if x.r.Body == nil || x.r.Body == http.NoBody {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(x.r.Body, bodyMax+1))
	if err == nil && len(b) > bodyMax {
		err = errTooLarge
	}
	x.body = b
	return err
}

// forward sends the request, with body, to the store.
func (x *exchange) forward(ctx context.Context, body []byte) (*http.Response, error) {
	u := *x.r.URL
	u.Scheme, u.Host = "http", x.p.target
	out, err := http.NewRequestWithContext(ctx, x.r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.URL = &u        // as it was spelt
	out.Host = x.r.Host // as it was signed
	out.Header = x.r.Header.Clone()
	out.ContentLength = int64(len(body))
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	resp, err := x.p.transport.RoundTrip(out)
	if err == nil {
		x.p.note(x.op, x.key, resp.StatusCode)
	}
	return resp, err
}

// note keeps the count of what was created.
func (p *Proxy) note(op Op, key string, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case op == Put && status == http.StatusOK:
		if p.created[key] {
			p.overwritten++
		}
		if len(p.created) < createdMax {
			p.created[key] = true
		}
	case op == Delete && status/100 == 2:
		delete(p.created, key)
	}
}

// pass forwards and answers truly.
func (x *exchange) pass() {
	resp, err := x.forward(x.r.Context(), x.body)
	if err != nil {
		x.reset()
		return
	}
	defer resp.Body.Close()
	if x.op == List {
		b, err := io.ReadAll(io.LimitReader(resp.Body, bodyMax))
		if err != nil {
			x.reset()
			return
		}
		if resp.StatusCode == http.StatusOK {
			x.p.remember(x.r.URL.RawQuery, b)
		}
		x.answer(resp, b)
		return
	}
	x.head(resp, resp.ContentLength)
	if _, err := io.Copy(x.w, resp.Body); err != nil {
		x.reset()
	}
}

func (p *Proxy) remember(query string, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lists) >= listsMax {
		clear(p.lists)
	}
	p.lists[query] = b
}

func (p *Proxy) recall(query string) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.lists[query]
	return b, ok
}

// head copies the answer's status and headers, with a length.
func (x *exchange) head(resp *http.Response, length int64) {
	for k, v := range resp.Header {
		x.w.Header()[k] = v
	}
	if length >= 0 {
		x.w.Header().Set("Content-Length", fmt.Sprint(length))
	}
	x.w.WriteHeader(resp.StatusCode)
}

// answer sends a body that may have been changed.
func (x *exchange) answer(resp *http.Response, body []byte) {
	x.head(resp, int64(len(body)))
	_, _ = x.w.Write(body) // a client that is gone needs no answer
}

// reset ends the client's connection with RST.
func (x *exchange) reset() {
	c, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the answer has begun: net/http closes the connection
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
