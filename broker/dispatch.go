package broker

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Request is one decoded request.
type Request struct {
	Key, Version int16
	Body         kmsg.Request
	Client       *ClientInfo

	conn        *conn
	correlation int32
	received    time.Time
	worst       int16 // error code for the metrics; the finish's until ready
	release     func()
}

// note remembers the gravest error code of the answer for the metrics.
func (r *Request) note(code int16) int16 {
	if code != 0 && (r.worst == 0 || class(code) == "fatal") {
		r.worst = code
	}
	return code
}

// code maps an error and notes it; an unforeseen one is logged.
func (r *Request) code(err error) int16 {
	code := kafkaCode(err)
	if code == -1 {
		r.conn.log.Error("request failed", keyAPI, kmsg.NameForKey(r.Key), keyVersion, r.Version, keyError, err)
	}
	return r.note(code)
}

// hold has f called when the response is sent or given up.
func (r *Request) hold(f func()) {
	if f == nil {
		return
	}
	prior := r.release
	r.release = func() {
		f()
		if prior != nil {
			prior()
		}
	}
}

// lane says what a request waits for before its finish runs.
type lane int

const (
	free    lane = iota // nothing
	changes             // the connection's earlier requests that change state
	fetches             // the connection's earlier fetches
	laneCount
)

// finish completes a request. A nil response without an error is no answer; an
// error closes the connection.
type finish func(ctx context.Context) (kmsg.Response, error)

// api is one row of the table of what is served.
type api struct {
	key, min, max int16
	lane          lane
	// bound: the finish is cancelled when the client hangs up. Otherwise it
	// runs to its end, as a client may send its last commit or its leave and
	// hang up without waiting.
	bound bool
	// start runs in arrival order; what it returns may overlap.
	start func(ctx context.Context, req *Request) finish
}

// detachedMax bounds work whose client hung up.
const detachedMax = time.Minute

// dispatch starts a request on the reading goroutine and finishes it on its own.
func (c *conn) dispatch(ctx, parent context.Context, sl *slot, a *api) {
	if !a.bound {
		ctx = parent
	}
	ctx, span := c.trace(ctx, sl.req)
	var previous, done chan struct{}
	if a.lane != free {
		previous, done = c.lanes[a.lane], make(chan struct{})
		c.lanes[a.lane] = done
	}
	end := c.begin(ctx, sl.req, a)
	c.finishes.Go(func() {
		defer close(sl.ready)
		defer span.End()
		if done != nil {
			defer close(done)
		}
		if previous != nil {
			<-previous
		}
		ctx, cancel := ctx, func() {}
		if !a.bound {
			ctx, cancel = context.WithTimeout(ctx, detachedMax)
		}
		defer cancel()
		resp, err := c.end(ctx, sl.req, end)
		sl.resp, sl.release = resp, sl.req.release
		if err != nil {
			sl.resp = nil
			c.log.Debug("request ends its connection", keyAPI, kmsg.NameForKey(a.key), keyError, err)
			c.cut("request")
		}
	})
}

var errPanic = errors.New("handler panicked")

// begin runs start. A panic costs this connection alone.
func (c *conn) begin(ctx context.Context, req *Request, a *api) (f finish) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(req, p)
			f = func(context.Context) (kmsg.Response, error) { return nil, errPanic }
		}
	}()
	return a.start(ctx, req)
}

func (c *conn) end(ctx context.Context, req *Request, f finish) (resp kmsg.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(req, p)
			resp, err = nil, errPanic
		}
	}()
	return f(ctx)
}

func (c *conn) panicked(req *Request, p any) {
	c.s.metrics.panics.Inc()
	c.log.Error("request handler panicked", keyAPI, kmsg.NameForKey(req.Key), keyVersion, req.Version,
		keyError, p, keyStack, string(debug.Stack()))
}

// trace begins a span for the APIs worth following.
func (c *conn) trace(ctx context.Context, req *Request) (context.Context, trace.Span) {
	if req.Key != int16(kmsg.Produce) && req.Key != int16(kmsg.Fetch) {
		return ctx, trace.SpanFromContext(context.Background())
	}
	return c.s.cfg.Tracer.Start(ctx, "kafka."+kmsg.NameForKey(req.Key), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.Int("messaging.kafka.api_version", int(req.Version)),
			attribute.String("messaging.client.id", c.info.Load().ID)))
}

// finished accounts for a request whose answer is sent.
func (s *Server) finished(req *Request) {
	name := kmsg.NameForKey(req.Key)
	s.metrics.requests.WithLabelValues(name, class(req.worst)).Inc()
	s.metrics.seconds.WithLabelValues(name).Observe(since(req.received))
}

// later makes a start of a handler that has no part that must run in order.
func later[Req kmsg.Request](h func(ctx context.Context, r *Request, req Req) kmsg.Response) func(context.Context, *Request) finish {
	return func(_ context.Context, r *Request) finish {
		return func(ctx context.Context) (kmsg.Response, error) {
			body := r.Body.(Req)
			resp := h(ctx, r, body)
			resp.SetVersion(r.Version)
			return resp, nil
		}
	}
}
