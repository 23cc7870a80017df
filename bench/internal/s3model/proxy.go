package s3model

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// step is how many bytes of an answer are sent at once.
const step = 256 << 10

// Proxy is a listener before a store. Use New and Close.
type Proxy struct {
	model     Model
	target    string // host:port
	server    *http.Server
	transport *http.Transport
	listener  net.Listener
	running   sync.WaitGroup

	mu       sync.Mutex // guards what follows
	closed   bool
	rng      *rand.Rand
	requests int64
	overruns int64
}

// New listens on a loopback port before the store at target, a host and port.
func New(target string, m Model, seed uint64) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("store model: %w", err)
	}
	p := &Proxy{
		model: m, target: target, listener: l, rng: rand.New(rand.NewPCG(seed, 1)),
		transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10},
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	p.running.Go(func() { _ = p.server.Serve(l) }) // ends with Close
	return p, nil
}

// Endpoint is the store's base URL for its clients.
func (p *Proxy) Endpoint() string { return "http://" + p.listener.Addr().String() }

// Counts is the requests so far, and how many took the store longer than the model.
func (p *Proxy) Counts() (requests, overruns int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests, p.overruns
}

// Close ends requests in progress and waits for them.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.server.Close()
	p.running.Wait()
	p.transport.CloseIdleConnections()
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

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.enter() {
		return
	}
	defer p.running.Done()
	begun := time.Now()
	shape := p.model.Get
	if r.Method == http.MethodPut {
		shape = p.model.Put
	}
	p.mu.Lock()
	takes := shape.first(p.rng)
	p.mu.Unlock()
	if r.Method == http.MethodPut {
		takes += shape.transfer(r.ContentLength)
	}
	resp, err := p.forward(r)
	if err != nil {
		panic(http.ErrAbortHandler) // the client sees its connection end, as it would without the proxy
	}
	defer resp.Body.Close()
	p.count(time.Since(begun) > takes)
	if sleepUntil(r.Context(), begun.Add(takes)) != nil {
		return
	}
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	if err := p.stream(r.Context(), w, resp.Body, shape); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (p *Proxy) count(overrun bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	if overrun {
		p.overruns++
	}
}

// forward sends the request on as it was signed.
func (p *Proxy) forward(r *http.Request) (*http.Response, error) {
	u := *r.URL
	u.Scheme, u.Host = "http", p.target
	out := r.Clone(r.Context())
	out.URL, out.RequestURI = &u, ""
	out.Header.Del("Expect") // the body is on its way already
	return p.transport.RoundTrip(out)
}

// stream sends an answer's body at the model's rate.
func (p *Proxy) stream(ctx context.Context, w io.Writer, body io.Reader, shape Shape) error {
	begun := time.Now()
	for sent := int64(0); ; {
		n, err := io.CopyN(w, body, step)
		sent += n
		if err == io.EOF {
			return sleepUntil(ctx, begun.Add(shape.transfer(sent)))
		}
		if err != nil {
			return err
		}
		if err := sleepUntil(ctx, begun.Add(shape.transfer(sent))); err != nil {
			return err
		}
	}
}

func sleepUntil(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
