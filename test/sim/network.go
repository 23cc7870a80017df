package sim

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// addr is an address of the simulated network.
type addr string

func (addr) Network() string  { return "sim" }
func (a addr) String() string { return string(a) }

// listener accepts connections to one address of one process.
type listener struct {
	p      *Process
	addr   string
	queue  chan *conn
	closed chan struct{}
	once   sync.Once
}

func (p *Process) listen(address string) *listener {
	l := &listener{p: p, addr: address, queue: make(chan *conn, 128), closed: make(chan struct{})}
	w := p.w
	w.mu.Lock()
	w.listeners[address] = append(w.listeners[address], l)
	w.mu.Unlock()
	return l
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		w := l.p.w
		w.mu.Lock()
		defer w.mu.Unlock()
		all := w.listeners[l.addr]
		for i := range all {
			if all[i] == l {
				w.listeners[l.addr] = append(all[:i:i], all[i+1:]...)
				break
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return addr(l.addr) }

// clientsName is what all clients are called where links are cut.
const clientsName = "clients"

// dial connects somebody, a process or a client, to an address.
func (w *World) dial(ctx context.Context, who string, p *Process, to string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	from := clientsName
	if p != nil {
		from = p.host
		if p.isDead() {
			return nil, errDead
		}
	}
	name := w.nth(who + " dial " + to)
	d := newDice(w.seed, name)
	type answer struct {
		c   *conn
		err error
	}
	answers := make(chan answer, 1)
	latency, which := d.between(50*time.Microsecond, w.weather.netLatency), d.next()
	w.park(&event{due: w.now() + latency, tie: d.next(), name: name, run: func() time.Duration {
		if wait := max(w.cut(from, host), p.paused()); wait > 0 {
			return wait
		}
		l := w.listenerAt(to, which)
		if l == nil {
			answers <- answer{err: fmt.Errorf("connect to %s: refused", to)}
			return 0
		}
		near, far := w.pair(name, from, p, host, l.p)
		select {
		case l.queue <- far:
			answers <- answer{c: near}
		default:
			answers <- answer{err: fmt.Errorf("connect to %s: backlog is full", to)}
		}
		return 0
	}})
	var gone <-chan struct{}
	if p != nil {
		gone = p.gone
	}
	select {
	case a := <-answers:
		if a.err != nil {
			return nil, a.err
		}
		return a.c, nil
	case <-gone:
		return nil, errDead
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// listenerAt picks one of those that listen at an address: a process and its
// twin have the same.
func (w *World) listenerAt(address string, which uint64) *listener {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.listeners[address]
	if len(all) == 0 {
		return nil
	}
	return all[which%uint64(len(all))]
}
