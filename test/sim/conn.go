package sim

import (
	"net"
	"os"
	"sync"
	"time"
)

// conn is one end of a connection. What one end writes is parked and reaches
// the other in order, chunk by chunk.
type conn struct {
	w      *World
	name   string
	own    string // whose end this is, for links
	p      *Process
	local  addr
	remote addr
	peer   *conn
	delay  time.Duration // the least a chunk takes

	mu      sync.Mutex
	in      []byte   // arrived and unread
	out     [][]byte // written and under way; nil: the end of the stream
	err     error    // what reads return once in is empty
	closed  bool     // by this end
	changed chan struct{}
	reads   time.Time // deadline
}

func (w *World) pair(name, from string, p *Process, to string, q *Process) (near, far *conn) {
	d := newDice(w.seed, name+" delay")
	near = &conn{w: w, name: name + " >", own: from, p: p, local: addr(from + ":1"), remote: addr(to + ":0"), delay: d.between(20*time.Microsecond, w.weather.netLatency), changed: make(chan struct{})}
	far = &conn{w: w, name: name + " <", own: to, p: q, local: near.remote, remote: near.local, delay: near.delay, changed: make(chan struct{})}
	near.peer, far.peer = far, near
	w.mu.Lock()
	w.conns[near] = struct{}{}
	w.conns[far] = struct{}{}
	w.mu.Unlock()
	return near, far
}

func (c *conn) wakeLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	for {
		c.mu.Lock()
		left := time.Until(c.reads)
		switch {
		case c.closed:
			c.mu.Unlock()
			return 0, net.ErrClosed
		case !c.reads.IsZero() && left <= 0:
			c.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(c.in) > 0:
			n := copy(b, c.in)
			c.in = c.in[n:]
			c.mu.Unlock()
			return n, nil
		case c.err != nil:
			err := c.err
			c.mu.Unlock()
			return 0, err
		}
		changed, limited := c.changed, !c.reads.IsZero()
		c.mu.Unlock()
		if !limited {
			<-changed
			continue
		}
		t := time.NewTimer(left)
		select {
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

// Write implements net.Conn. It never waits.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return 0, net.ErrClosed
	case c.err != nil:
		err := c.err
		c.mu.Unlock()
		return 0, err
	case c.p != nil && c.p.isDead():
		c.mu.Unlock()
		return 0, errDead
	}
	c.out = append(c.out, append([]byte{}, b...))
	c.mu.Unlock()
	c.carry()
	return len(b), nil
}

// carry parks the delivery of one more chunk. Deliveries take the chunks in the
// order they were written, whichever of them is due first.
func (c *conn) carry() {
	w := c.w
	sent := w.now()
	w.park(&event{due: sent + c.delay, tie: newDice(w.seed, c.name).next(), name: c.name, run: func() time.Duration {
		wait := max(w.cut(c.own, c.peer.own), c.peer.p.paused())
		if c.p.pausedBefore(sent) {
			wait = max(wait, c.p.paused())
		}
		if wait > 0 {
			return wait
		}
		c.deliver()
		return 0
	}})
}

func (c *conn) deliver() {
	c.mu.Lock()
	if len(c.out) == 0 { // reset meanwhile
		c.mu.Unlock()
		return
	}
	chunk := c.out[0]
	c.out = c.out[1:]
	c.mu.Unlock()
	o := c.peer
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.err != nil {
		return
	}
	if chunk == nil {
		o.err = errEOF
	} else {
		o.in = append(o.in, chunk...)
	}
	o.wakeLocked()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.out = append(c.out, nil)
	c.wakeLocked()
	c.mu.Unlock()
	c.forget()
	c.carry()
	return nil
}

func (c *conn) forget() {
	c.w.mu.Lock()
	delete(c.w.conns, c)
	c.w.mu.Unlock()
}

// reset ends the connection for both. What was under way is lost or not.
func (c *conn) reset(lost bool) {
	for _, end := range []*conn{c, c.peer} {
		end.mu.Lock()
		if lost {
			end.out = nil
		}
		if end.err == nil {
			end.err = errReset
		}
		end.wakeLocked()
		end.mu.Unlock()
		end.forget()
	}
}

// discard forgets what was written and has not arrived.
func (c *conn) discard() {
	c.mu.Lock()
	c.out = nil
	c.mu.Unlock()
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads = t
	c.wakeLocked()
	return nil
}

// SetWriteDeadline implements net.Conn: writes never wait.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
