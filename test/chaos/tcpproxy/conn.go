package tcpproxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	pieceBytes = 32 << 10
	// queueMax bounds the pieces a connection holds each way while they are
	// delayed; beyond them the sender's socket fills up.
	queueMax = 64
	// rateStep is the longest a throttled connection is silent.
	rateStep = 50 * time.Millisecond
	// replyLinger is how long a server's connection outlives its client, so that
	// requests delivered late are read and answered before it closes.
	replyLinger = 5 * time.Second
)

// conn is one connection of a client and the one made for it to the server.
type conn struct {
	link   *Link
	client *net.TCPConn
	frames *rules
	talk   *talk // nil unless frames are read

	once sync.Once
	done chan struct{} // closed by cut, and when both ways have ended

	mu     sync.Mutex // guards server
	server *net.TCPConn
}

// piece is some bytes on their way, or the word that no more follow.
type piece struct {
	data []byte
	due  time.Time
	end  bool
}

// queue is what is on its way in one direction. Its reader ends it with a piece
// that says so; ended is closed when that has been taken.
type queue struct {
	pieces chan piece
	ended  chan struct{}
}

func newQueue() *queue { return &queue{make(chan piece, queueMax), make(chan struct{})} }

// put is false when the connection is over.
func (q *queue) put(p piece, done <-chan struct{}) bool {
	select {
	case q.pieces <- p:
		return true
	case <-q.ended:
		return false
	case <-done:
		return false
	}
}

// cut resets both sides, once; it reports whether this call did.
func (c *conn) cut() (did bool) {
	c.once.Do(func() {
		did = true
		close(c.done)
		reset(c.client)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.server != nil {
			reset(c.server)
		}
	})
	return did
}

func (c *conn) run(server *net.TCPConn) {
	c.mu.Lock()
	c.server = server
	c.mu.Unlock()
	select {
	case <-c.done: // cut before it could see the server
		reset(server)
		return
	default:
	}
	defer c.cut()
	up, down := newQueue(), newQueue()
	if c.frames != nil {
		c.talk = newTalk(c.frames, func(b []byte) { down.put(piece{data: b}, c.done) })
	}
	var ways sync.WaitGroup
	var upErr, downErr error // set before the piece that ends their queues
	ways.Go(func() {
		upErr = c.read(c.client, up, upOf, c.takeUp)
		up.put(piece{end: true}, c.done)
	})
	ways.Go(func() {
		downErr = c.read(server, down, downOf, c.takeDown)
		down.put(piece{end: true}, c.done)
	})
	ways.Go(func() {
		if c.deliver(server, up, upOf, true) {
			c.endUp(upErr)
		}
	})
	ways.Go(func() {
		if c.deliver(c.client, down, downOf, false) {
			c.endDown(downErr)
		}
	})
	ways.Wait()
}

func upOf(m Mode) Way   { return m.Up }
func downOf(m Mode) Way { return m.Down }

// read takes pieces from src until it ends. What it returns is nil for an
// orderly end.
func (c *conn) read(src *net.TCPConn, out *queue, way func(Mode) Way, take func(*bufio.Reader) (piece, error)) error {
	r := bufio.NewReaderSize(src, pieceBytes)
	for {
		// A blocked way is not read: its sender sees a window that fills up.
		if !c.link.gate(c.done, func(m Mode) bool { return way(m).Block }) {
			return nil
		}
		p, err := take(r)
		if len(p.data) > 0 {
			if due := time.Now().Add(c.link.delay(way)); due.After(p.due) {
				p.due = due
			}
			if !out.put(p, c.done) {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// deliver writes pieces when they are due and the mode lets them. It is true
// when it came to the end of the queue, false when the connection was cut.
func (c *conn) deliver(dst *net.TCPConn, in *queue, way func(Mode) Way, up bool) bool {
	defer close(in.ended)
	var carried int64
	var version int
	broken := false
	for {
		var p piece
		select {
		case p = <-in.pieces:
		case <-c.done:
			return false
		}
		if p.end {
			return true
		}
		if !c.sleepUntil(p.due) || !c.link.gate(c.done, func(m Mode) bool { return way(m).Block }) {
			return false
		}
		m, v, _ := c.link.current()
		if v != version {
			version, carried = v, 0
		}
		if w := way(m); w.CutAfter > 0 && carried+int64(len(p.data)) >= w.CutAfter {
			_, _ = dst.Write(p.data[:w.CutAfter-carried])
			c.cutCounted()
			return false
		}
		carried += int64(len(p.data))
		if broken {
			continue
		}
		err := c.write(dst, p.data, way(m).Rate)
		switch {
		case err == nil:
			c.link.count(up, len(p.data))
		case up: // the server is gone
			c.cut()
			return false
		default: // the client is gone; what it sent is still delivered
			broken = true
		}
	}
}

func (c *conn) sleepUntil(due time.Time) bool {
	d := time.Until(due)
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.done:
		return false
	}
}

func (c *conn) write(dst *net.TCPConn, b []byte, rate int) error {
	if rate <= 0 {
		_, err := dst.Write(b)
		return err
	}
	step := max(1, int(float64(rate)*rateStep.Seconds()))
	for len(b) > 0 {
		n := min(step, len(b))
		if _, err := dst.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		if !c.sleepUntil(time.Now().Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))) {
			return net.ErrClosed
		}
	}
	return nil
}

// endUp passes on that the client is done, in the way it was.
func (c *conn) endUp(err error) {
	if c.talk != nil {
		c.talk.awaitReplies(c.done, replyLinger)
	}
	if err != nil {
		c.cut()
		return
	}
	_ = c.server.CloseWrite()
}

func (c *conn) endDown(err error) {
	if err != nil {
		c.cut()
		return
	}
	_ = c.client.CloseWrite()
}

// takeUp reads a piece from the client.
func (c *conn) takeUp(r *bufio.Reader) (piece, error) {
	if c.talk == nil {
		return takeAny(r)
	}
	return c.talk.request(r, func() { reset(c.client) }, c.cutCounted)
}

func (c *conn) takeDown(r *bufio.Reader) (piece, error) {
	if c.talk == nil {
		return takeAny(r)
	}
	return c.talk.reply(r, c.cutCounted)
}

func (c *conn) cutCounted() {
	if c.cut() {
		c.link.countCut()
	}
}

// takeAny reads what there is.
func takeAny(r *bufio.Reader) (piece, error) {
	if _, err := r.Peek(1); err != nil {
		return piece{}, err
	}
	b := make([]byte, r.Buffered())
	_, err := io.ReadFull(r, b)
	return piece{data: b}, err
}
