// Package kclient asks brokers in Kafka's protocol: one connection to an address,
// many requests on their way over it. It negotiates nothing and repeats nothing:
// the caller names the version, and knows what a lost answer means.
package kclient

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// answerBytesMax bounds an answer.
const answerBytesMax = 16 << 20

// silenceMax is how long nothing may come while something is asked. A connection
// whose other end vanished without a word looks open for a quarter of an hour;
// what is asked over it would never be answered. A new one reaches whoever has
// the address now. It is longer than any request waits at its receiver: by the
// time one is sent again over another connection, it has been carried out or
// refused, and does not come after.
const silenceMax = 35 * time.Second

// ErrClosed: the client was closed.
var ErrClosed = errors.New("client is closed")

var errSilent = errors.New("nothing was answered for too long")

// Dial connects to an address.
type Dial func(ctx context.Context, addr string) (net.Conn, error)

// Client keeps a connection to each address that was asked, until the other side
// closes it. It is safe for concurrent use.
type Client struct {
	dial Dial
	form *kmsg.RequestFormatter

	mu     sync.Mutex
	conns  map[string]*conn
	closed bool
	reads  sync.WaitGroup
}

// New returns a client; a nil dial means TCP.
func New(clientID string, dial Dial) *Client {
	if dial == nil {
		dial = func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	return &Client{dial: dial, form: kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID)), conns: map[string]*conn{}}
}

// Close ends every connection and waits for its reader.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	for _, cn := range c.conns {
		cn.end(ErrClosed)
	}
	c.mu.Unlock()
	c.reads.Wait()
}

// Request sends req and returns the answer. ctx bounds it all. After an error the
// request may have been carried out, or may be later.
func (c *Client) Request(ctx context.Context, addr string, req kmsg.Request) (kmsg.Response, error) {
	cn, err := c.conn(addr)
	if err != nil {
		return nil, err
	}
	if err := cn.connect(ctx); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	answer, err := cn.send(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("send to %s: %w", addr, err)
	}
	select {
	case a := <-answer:
		if a.err != nil {
			return nil, fmt.Errorf("answer of %s: %w", addr, a.err)
		}
		return decode(req, a.body)
	case <-ctx.Done():
		cn.waited(time.Now())
		return nil, fmt.Errorf("answer of %s: %w", addr, ctx.Err())
	}
}

func decode(req kmsg.Request, body []byte) (kmsg.Response, error) {
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() {
		// Tags of the header: nobody sends any, so that is one byte.
		if len(body) == 0 || body[0] != 0 {
			return nil, errors.New("answer with an unknown header")
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("decode an answer to %s: %w", kmsg.NameForKey(req.Key()), err)
	}
	return resp, nil
}

func (c *Client) conn(addr string) (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	cn := c.conns[addr]
	if cn == nil {
		cn = &conn{c: c, addr: addr, turn: make(chan struct{}, 1), pending: map[int32]chan answer{}}
		c.conns[addr] = cn
	}
	return cn, nil
}

// conn is a connection, from before it is made until it breaks.
type conn struct {
	c    *Client
	addr string
	// turn is held by whoever dials or writes.
	turn chan struct{}

	mu      sync.Mutex
	net     net.Conn // nil until connected
	err     error    // why it is of no use any more
	next    int32
	pending map[int32]chan answer
	// heard is when an answer last came, or was first waited for.
	heard time.Time
}

type answer struct {
	body []byte
	err  error
}

func (cn *conn) lock(ctx context.Context) error {
	select {
	case cn.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (cn *conn) connect(ctx context.Context) error {
	if err := cn.lock(ctx); err != nil {
		return err
	}
	defer func() { <-cn.turn }()
	cn.mu.Lock()
	made, err := cn.net != nil, cn.err
	cn.mu.Unlock()
	if made || err != nil {
		return err
	}
	nc, err := cn.c.dial(ctx, cn.addr)
	if err != nil {
		cn.fail(err)
		return err
	}
	cn.c.mu.Lock()
	defer cn.c.mu.Unlock()
	if cn.c.closed {
		_ = nc.Close()
		return ErrClosed
	}
	cn.mu.Lock()
	cn.net = nc
	cn.mu.Unlock()
	cn.c.reads.Go(func() { cn.fail(cn.read(nc)) })
	return nil
}

// send writes a request and returns what its answer comes through.
func (cn *conn) send(ctx context.Context, req kmsg.Request) (<-chan answer, error) {
	if err := cn.lock(ctx); err != nil {
		return nil, err
	}
	defer func() { <-cn.turn }()
	ch := make(chan answer, 1)
	cn.mu.Lock()
	nc, err, id := cn.net, cn.err, cn.next
	if err == nil {
		if len(cn.pending) == 0 {
			cn.heard = time.Now()
		}
		cn.next++
		cn.pending[id] = ch
	}
	cn.mu.Unlock()
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline() // none: it waits as long as it takes
	_ = nc.SetWriteDeadline(deadline)
	if _, err := nc.Write(cn.c.form.AppendRequest(nil, req, id)); err != nil {
		cn.fail(err) // who knows how much of it was written
		return nil, err
	}
	return ch, nil
}

// read takes answers in until the connection breaks.
func (cn *conn) read(nc net.Conn) error {
	r := bufio.NewReader(nc)
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := int32(binary.BigEndian.Uint32(head[:4])) - 4
		if n < 0 || n > answerBytesMax {
			return fmt.Errorf("answer of %d bytes", n)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		id := int32(binary.BigEndian.Uint32(head[4:]))
		cn.mu.Lock()
		ch := cn.pending[id]
		delete(cn.pending, id)
		cn.heard = time.Now()
		cn.mu.Unlock()
		if ch == nil {
			return fmt.Errorf("answer to request %d, which was not asked", id)
		}
		ch <- answer{body: body}
	}
}

// waited is told that an answer did not come in time.
func (cn *conn) waited(now time.Time) {
	cn.mu.Lock()
	silent := len(cn.pending) > 0 && now.Sub(cn.heard) >= silenceMax
	cn.mu.Unlock()
	if silent {
		cn.fail(errSilent)
	}
}

// fail ends the connection; the next request makes another.
func (cn *conn) fail(err error) {
	cn.c.mu.Lock()
	if cn.c.conns[cn.addr] == cn {
		delete(cn.c.conns, cn.addr)
	}
	cn.c.mu.Unlock()
	cn.end(err)
}

func (cn *conn) end(err error) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.err == nil {
		cn.err = err
	}
	for id, ch := range cn.pending {
		delete(cn.pending, id)
		ch <- answer{err: cn.err}
	}
	if cn.net != nil {
		_ = cn.net.Close()
	}
}
