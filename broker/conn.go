package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/tiering/failpoint"
)

// conn is one client connection.
type conn struct {
	s   *Server
	nc  net.Conn
	r   *bufio.Reader
	log *slog.Logger
	// info is replaced, never changed, by the reading goroutine.
	info atomic.Pointer[ClientInfo]

	// queue holds the requests at work in arrival order; its capacity is the
	// in-flight limit. The reading goroutine sends and closes it.
	queue chan *slot
	// held counts bytes of frames whose requests are at work.
	held     atomic.Int64
	answered chan struct{} // signalled by the writer when a slot is done

	// lanes: the end of the last request of each lane; the reading goroutine's.
	lanes    [laneCount]chan struct{}
	finishes sync.WaitGroup

	cancel  context.CancelFunc
	cutOnce sync.Once
	reason  atomic.Pointer[string]
}

// slot is one request's place in the order of answers.
type slot struct {
	req   *Request
	bytes int64 // of the frame, given back when the slot is done
	ready chan struct{}
	// Set before ready closes.
	resp    kmsg.Response // nil: no answer (acks=0)
	release func()        // gives back what resp refers to
}

// letGo gives back, once, what the response refers to.
func (sl *slot) letGo() {
	if f := sl.release; f != nil {
		sl.release = nil
		f()
	}
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		s: s, nc: nc, r: bufio.NewReaderSize(nc, 4<<10),
		log:      s.log.With(keyRemote, nc.RemoteAddr().String()),
		queue:    make(chan *slot, s.cfg.InFlightMax),
		answered: make(chan struct{}, 1),
	}
	host, _, err := net.SplitHostPort(nc.RemoteAddr().String())
	if err != nil {
		host = nc.RemoteAddr().String()
	}
	c.info.Store(&ClientInfo{Host: host})
	return c
}

// run serves the connection and returns when its goroutines are gone.
func (c *conn) run(parent context.Context) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	c.cancel = cancel
	stop := context.AfterFunc(ctx, func() { _ = c.nc.Close() })
	defer stop()
	writer := make(chan struct{})
	go func() {
		defer close(writer)
		c.write(ctx)
	}()
	err := c.read(ctx, parent)
	close(c.queue)
	if !errors.Is(err, errDraining) {
		cancel() // nobody waits for answers any more
	}
	<-writer
	cancel()
	c.finishes.Wait()
	_ = c.nc.Close()
	c.closed(err)
}

// closed accounts for the connection's end.
func (c *conn) closed(err error) {
	reason := closeReason(err)
	if r := c.reason.Load(); r != nil {
		reason = *r
	}
	c.s.metrics.refused.WithLabelValues(reason).Inc()
	c.log.Debug("connection closed", keyReason, reason, keyError, err, keyClient, c.info.Load().ID)
}

func closeReason(err error) string {
	switch {
	case errors.Is(err, errDraining):
		return "drain"
	case errors.Is(err, io.EOF):
		return "client"
	case errors.Is(err, errIdle):
		return "idle"
	case errors.Is(err, errNoRoom):
		return "memory"
	case errors.Is(err, errUnsupported):
		return "version"
	case isNetwork(err):
		return "network"
	}
	return "malformed"
}

func isNetwork(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) || errors.Is(err, io.ErrClosedPipe)
}

// cut closes the connection for a reason of ours.
func (c *conn) cut(reason string) {
	c.cutOnce.Do(func() { c.reason.Store(&reason) })
	_ = c.nc.Close()
}

// stopReading wakes the reading goroutine, which sees that the server drains.
func (c *conn) stopReading() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) }

var (
	errDraining = errors.New("the server drains")
	errIdle     = errors.New("the connection is idle")
)

// read takes requests in until the connection ends. Handlers run under ctx,
// which ends with the connection, or under parent when they must not be cut
// short by a client that hangs up.
func (c *conn) read(ctx, parent context.Context) error {
	for {
		if err := c.await(ctx); err != nil {
			return err
		}
		room := &connRoom{c: c}
		frame, err := readFrame(ctx, c.r, c.s.cfg.FrameBytesMax, room)
		if err != nil {
			c.give(room.taken)
			if c.s.isDraining() {
				return errDraining
			}
			return err
		}
		c.s.metrics.bytesIn.Add(float64(len(frame) + 4))
		if err := c.handle(ctx, parent, frame, room.taken); err != nil {
			return err
		}
	}
}

// await returns when a request has begun to arrive and the connection may have
// another one at work.
func (c *conn) await(ctx context.Context) error {
	for {
		if c.s.isDraining() {
			return errDraining
		}
		_ = c.nc.SetReadDeadline(time.Now().Add(c.s.cfg.IdleMax))
		if c.s.isDraining() { // stopReading may have been overwritten
			return errDraining
		}
		_, err := c.r.Peek(1)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if c.s.isDraining() {
				return errDraining
			}
			if c.held.Load() > 0 {
				continue
			}
			return errIdle
		}
		if err != nil {
			return err
		}
		break
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(c.s.cfg.IdleMax)) // for the whole frame
	if c.s.isDraining() {
		return errDraining
	}
	// The frame limit also bounds what one connection has at work, so that 64
	// large requests of one client do not use up everybody's room.
	for c.held.Load() >= int64(c.s.cfg.FrameBytesMax) {
		select {
		case <-c.answered:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// connRoom takes a frame's bytes from the budget of all requests.
type connRoom struct {
	c     *conn
	taken int64
}

func (r *connRoom) take(ctx context.Context, n int64) error {
	if !r.c.s.requestBytes.TryAcquire(n) {
		ctx, cancel := context.WithTimeout(ctx, r.c.s.cfg.RequestBytesWait)
		defer cancel()
		if err := r.c.s.requestBytes.Acquire(ctx, n); err != nil {
			return fmt.Errorf("%w: %d bytes", errNoRoom, n)
		}
	}
	r.taken += n
	r.c.held.Add(n)
	return nil
}

func (c *conn) give(n int64) {
	c.held.Add(-n)
	c.s.requestBytes.Release(n)
	select {
	case c.answered <- struct{}{}:
	default:
	}
}

// handle parses one frame and puts its request to work. An error ends the
// connection, without an answer.
func (c *conn) handle(ctx, parent context.Context, frame []byte, taken int64) error {
	req, a, err := c.parse(frame)
	if err != nil {
		c.give(taken)
		return err
	}
	sl := &slot{req: req, bytes: taken, ready: make(chan struct{})}
	select {
	case c.queue <- sl:
	case <-ctx.Done():
		c.give(taken)
		return ctx.Err()
	}
	c.dispatch(ctx, parent, sl, a)
	return nil
}

// parse decodes a frame into a request and finds its API.
func (c *conn) parse(frame []byte) (*Request, *api, error) {
	h, err := parseHeader(frame)
	if err != nil {
		return nil, nil, err
	}
	a, ok := c.s.apis[h.key]
	if !ok {
		return nil, nil, fmt.Errorf("%w: %s", errUnsupported, kmsg.NameForKey(h.key))
	}
	if info := c.info.Load(); info.ID != h.clientID {
		next := *info
		next.ID = h.clientID
		c.info.Store(&next)
	}
	req := &Request{Key: h.key, Version: h.version, Client: c.info.Load(), conn: c, received: time.Now(), correlation: h.correlation}
	if h.version > a.max || h.version < a.min {
		if h.key != int16(kmsg.ApiVersions) {
			return nil, nil, fmt.Errorf("%w: %s version %d", errUnsupported, kmsg.NameForKey(h.key), h.version)
		}
		return req, a, nil // answered without a look at the body
	}
	if req.Body, err = decode(&h, c.s.cfg.DecodeBytesMax); err != nil {
		return nil, nil, fmt.Errorf("%s version %d: %w", kmsg.NameForKey(h.key), h.version, err)
	}
	return req, a, nil
}

// write sends answers in arrival order until the queue is closed and empty, or
// the connection fails. It always empties the queue, so that nobody waits.
func (c *conn) write(ctx context.Context) {
	failed := false
	for sl := range c.queue {
		if !failed {
			select {
			case <-sl.ready:
				failed = !c.answer(sl)
			case <-ctx.Done():
				failed = true
			}
			if failed {
				_ = c.nc.Close()
				c.cancel()
			}
		}
		if failed {
			c.abandon(sl)
			continue
		}
		c.give(sl.bytes)
	}
}

// abandon gives a slot's bytes back once its request no longer uses them.
func (c *conn) abandon(sl *slot) {
	c.finishes.Go(func() {
		<-sl.ready
		sl.letGo()
		c.give(sl.bytes)
	})
}

// buffers recycles response buffers up to pooledMax.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const pooledMax = 1 << 20

// answer encodes and sends a slot's response.
func (c *conn) answer(sl *slot) bool {
	defer sl.letGo()
	if sl.resp == nil {
		c.s.finished(sl.req)
		return true
	}
	p := buffers.Get().(*[]byte)
	buf := appendResponse((*p)[:0], sl.req.correlation, sl.resp)
	sl.resp = nil
	err := c.send(buf)
	if cap(buf) <= pooledMax {
		*p = buf
		buffers.Put(p)
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.cut("slow")
		}
		return false
	}
	c.s.finished(sl.req)
	return sl.req.Key != int16(kmsg.Produce) || failpoint.Hit(failpoint.AfterReply) == nil
}

// sendStep is what a client must take within the write timeout.
const sendStep = 256 << 10

func (c *conn) send(b []byte) error {
	for len(b) > 0 {
		if err := c.nc.SetWriteDeadline(time.Now().Add(c.s.cfg.WriteTimeout)); err != nil {
			return err
		}
		n, err := c.nc.Write(b[:min(len(b), sendStep)])
		c.s.metrics.bytesOut.Add(float64(n))
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
