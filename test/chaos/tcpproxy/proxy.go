package tcpproxy

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	dialTimeout = 2 * time.Second
	// acceptPause spaces attempts when the process is out of descriptors.
	acceptPause = 20 * time.Millisecond
)

// Proxy is one listener. Use New or NewKafka, and Close.
type Proxy struct {
	listener net.Listener
	target   string
	source   func(net.Addr) string // nil: one link
	frames   *rules                // nil: bytes are not looked at

	running sync.WaitGroup

	mu     sync.Mutex // guards what follows
	links  map[string]*Link
	closed bool
}

// New listens at addr (":0" of a host for any port) before target. Source names
// the sender of a connection by its address; nil if all are one.
func New(addr, target string, source func(net.Addr) string) (*Proxy, error) {
	return open(addr, target, source, nil)
}

func open(addr, target string, source func(net.Addr) string, frames *rules) (*Proxy, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("proxy before %s: %w", target, err)
	}
	p := &Proxy{listener: l, target: target, source: source, frames: frames, links: make(map[string]*Link)}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// From is the link of a source, which need not have connected yet.
func (p *Proxy) From(source string) *Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.links[source]
	if !ok {
		l = newLink()
		p.links[source] = l
	}
	return l
}

// Link is the only link of a proxy that does not tell sources apart.
func (p *Proxy) Link() *Link { return p.From("") }

// Close resets every connection and waits for all goroutines.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	links := make([]*Link, 0, len(p.links))
	for _, l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	_ = p.listener.Close()
	for _, l := range links {
		l.Cut()
	}
	p.running.Wait()
}

func (p *Proxy) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause)
			continue
		}
		p.running.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
	source := ""
	if p.source != nil {
		source = p.source(client.RemoteAddr())
	}
	l := p.From(source)
	c := &conn{link: l, client: client, done: make(chan struct{}), frames: p.frames}
	if !l.add(c) {
		reset(client)
		return
	}
	defer l.remove(c)
	if p.isClosed() { // after add: Close cuts what it sees there
		c.cut()
	}
	// A server that cannot be reached while the link is blocked is not asked:
	// the client's connection is open and silent, as through a firewall.
	if !l.gate(c.done, func(m Mode) bool { return m.Up.Block }) {
		reset(client)
		return
	}
	server, err := net.DialTimeout("tcp", p.target, dialTimeout)
	if err != nil {
		reset(client)
		return
	}
	c.run(server.(*net.TCPConn))
}

// reset closes a connection with RST.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
