package sim

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// wire is one connection with requests under way.
type wire struct {
	nc     net.Conn
	abrupt bool

	mu      sync.Mutex
	next    int32
	waiting map[int32]chan []byte
	broken  bool
}

// responseMax bounds a response.
const responseMax = 16 << 20

func (wr *wire) receive() {
	defer wr.close()
	var head [4]byte
	for {
		if _, err := io.ReadFull(wr.nc, head[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(head[:])
		if n < 4 || n > responseMax {
			return
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(wr.nc, body); err != nil {
			return
		}
		id := int32(binary.BigEndian.Uint32(body))
		wr.mu.Lock()
		ch := wr.waiting[id]
		delete(wr.waiting, id)
		wr.mu.Unlock()
		if ch != nil {
			ch <- body[4:]
		}
	}
}

func (wr *wire) close() {
	if c, ok := wr.nc.(*conn); ok && wr.abrupt {
		c.discard()
	}
	_ = wr.nc.Close()
	wr.mu.Lock()
	defer wr.mu.Unlock()
	if wr.broken {
		return
	}
	wr.broken = true
	for _, ch := range wr.waiting {
		close(ch)
	}
	wr.waiting = nil
}

func (c *client) wire(ctx context.Context, to string) (*wire, error) {
	c.mu.Lock()
	wr := c.wires[to]
	c.mu.Unlock()
	if wr != nil {
		wr.mu.Lock()
		broken := wr.broken
		wr.mu.Unlock()
		if !broken {
			return wr, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	nc, err := c.w.dial(ctx, c.name, nil, to)
	if err != nil {
		return nil, err
	}
	wr = &wire{nc: nc, abrupt: c.abrupt, waiting: make(map[int32]chan []byte)}
	go wr.receive()
	c.mu.Lock()
	old := c.wires[to]
	c.wires[to] = wr
	c.mu.Unlock()
	if old != nil {
		old.close()
	}
	return wr, nil
}

// drop closes the connection to an address.
func (c *client) drop(to string) {
	c.mu.Lock()
	wr := c.wires[to]
	delete(c.wires, to)
	c.mu.Unlock()
	if wr != nil {
		wr.close()
	}
}

// close closes all connections.
func (c *client) close() {
	c.mu.Lock()
	wires := c.wires
	c.wires = make(map[string]*wire)
	c.mu.Unlock()
	for _, wr := range wires {
		wr.close()
	}
}
