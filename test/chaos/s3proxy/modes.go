package s3proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

const (
	slowRate = 64 << 10
	slowStep = 50 * time.Millisecond
	// lateTimeout bounds a request that is delivered late.
	lateTimeout = 30 * time.Second
)

// do is where a mode acts.
func (x *exchange) do(a *Active) {
	switch a.rule.Mode {
	case SlowDown:
		x.fail(http.StatusServiceUnavailable, "SlowDown")
	case Internal:
		x.fail(http.StatusInternalServerError, "InternalError")
	case Expired:
		x.fail(http.StatusForbidden, "ExpiredToken")
	case Conflict:
		x.fail(http.StatusConflict, "ConditionalRequestConflict")
	case MissingOnce:
		x.fail(http.StatusNotFound, "NoSuchKey")
	case HangBefore:
		x.hang(a)
	case AmbiguousOK:
		x.ambiguous(a)
	case Late:
		x.late(a)
	case Slow:
		x.slow(a)
	case Flip:
		x.flip(a)
	case Truncate, TruncateHide:
		x.truncate(a)
	case ListEmpty, ListStale, ListCut:
		x.list(a)
	default:
		panic("s3proxy: no such mode: " + string(a.rule.Mode))
	}
}

// fail answers in the store's name without asking it.
func (x *exchange) fail(status int, code string) {
	body := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>injected</Message></Error>`, code)
	x.w.Header().Set("Content-Type", "application/xml")
	x.w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = io.WriteString(x.w, body)
	}
}

// hang holds the request until its client gives up or Delay is over.
func (x *exchange) hang(a *Active) {
	select {
	case <-x.r.Context().Done():
		a.outcome("given up")
	case <-x.p.ctx.Done():
	case <-time.After(x.p.wait(a.rule)):
		a.outcome("held to the end")
	}
	x.reset()
}

// ambiguous lets the store do it and keeps a success from the client.
func (x *exchange) ambiguous(a *Active) {
	resp, err := x.forward(context.WithoutCancel(x.r.Context()), x.body)
	if err != nil {
		a.outcome("not delivered")
		x.reset()
		return
	}
	a.outcome(fmt.Sprint(resp.StatusCode))
	drain(resp)
	x.reset()
}

// late resets the client and lets the store do it much later.
func (x *exchange) late(a *Active) {
	x.reset()
	ctx, cancel := context.WithCancel(x.p.ctx)
	x.p.running.Go(func() {
		defer cancel()
		select {
		case <-time.After(x.p.wait(a.rule)):
		case <-ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(ctx, lateTimeout)
		defer cancel()
		resp, err := x.forward(ctx, x.body)
		if err != nil {
			a.outcome("not delivered")
			return
		}
		a.outcome(fmt.Sprint(resp.StatusCode))
		drain(resp)
	})
}

// slow carries the body, of a PUT up or of a GET down, at a low rate.
func (x *exchange) slow(a *Active) {
	rate := a.rule.Rate
	if rate == 0 {
		rate = slowRate
	}
	if x.op == Put {
		x.r.Body = io.NopCloser(&trickle{x.r.Body, rate})
		if err := x.readBody(); err != nil {
			a.outcome("given up")
			x.reset()
			return
		}
	}
	resp, err := x.forward(x.r.Context(), x.body)
	if err != nil {
		x.reset()
		return
	}
	defer resp.Body.Close()
	x.head(resp, resp.ContentLength)
	var from io.Reader = resp.Body
	if x.op == Get {
		from = &trickle{resp.Body, rate}
	}
	if _, err := io.Copy(flushing{x.w}, from); err != nil {
		a.outcome("given up")
		x.reset()
	}
}

// trickle reads at most rate bytes a second.
type trickle struct {
	r    io.Reader
	rate int
}

func (t *trickle) Read(p []byte) (int, error) {
	step := max(1, int(float64(t.rate)*slowStep.Seconds()))
	n, err := t.r.Read(p[:min(len(p), step)])
	time.Sleep(time.Duration(float64(n) / float64(t.rate) * float64(time.Second)))
	return n, err
}

// flushing sends each write on at once.
type flushing struct{ w http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = http.NewResponseController(f.w).Flush()
	}
	return n, err
}

// flip changes one bit on the way to the store, or on the way back.
func (x *exchange) flip(a *Active) {
	body := x.body
	if x.op == Put {
		body = x.flipped(a, body)
	}
	resp, err := x.forward(x.r.Context(), body)
	if err != nil {
		x.reset()
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, bodyMax))
	if err != nil {
		x.reset()
		return
	}
	switch {
	case x.op == Put:
		a.outcome(fmt.Sprint(resp.StatusCode))
	case resp.StatusCode/100 == 2:
		answer = x.flipped(a, answer)
	}
	x.answer(resp, answer)
}

// flipped is a copy with one bit changed.
func (x *exchange) flipped(a *Active, b []byte) []byte {
	if len(b) == 0 {
		a.outcome("nothing to flip")
		return b
	}
	a.outcome("flipped")
	b = slices.Clone(b)
	b[x.p.chance(len(b))] ^= 1 << x.p.chance(8)
	return b
}

// truncate ends the answer's body early, openly or with headers to match.
func (x *exchange) truncate(a *Active) {
	resp, err := x.forward(x.r.Context(), x.body)
	if err != nil {
		x.reset()
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, bodyMax))
	if err != nil {
		x.reset()
		return
	}
	if resp.StatusCode/100 != 2 || len(b) == 0 {
		a.outcome("nothing to cut")
		x.answer(resp, b)
		return
	}
	a.outcome("cut")
	short := b[:x.p.chance(len(b))]
	if a.rule.Mode == Truncate {
		x.cutShort(resp, b, len(short))
		return
	}
	// A proxy that hides the loss makes the object look shorter than it is.
	var first, last, total int
	if n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total); n == 3 && len(short) > 0 {
		last = first + len(short) - 1
		resp.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, last+1))
	}
	x.answer(resp, short)
}

// cutShort promises the whole body, sends n bytes of it and ends the connection.
func (x *exchange) cutShort(resp *http.Response, b []byte, n int) {
	x.head(resp, int64(len(b)))
	_, _ = flushing{x.w}.Write(b[:n])
	x.reset()
}

// list lies about what there is.
func (x *exchange) list(a *Active) {
	resp, err := x.forward(x.r.Context(), x.body)
	if err != nil {
		x.reset()
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, bodyMax))
	if err != nil {
		x.reset()
		return
	}
	if resp.StatusCode != http.StatusOK {
		x.answer(resp, b)
		return
	}
	switch a.rule.Mode {
	case ListEmpty:
		x.answer(resp, []byte(`<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>`))
	case ListStale:
		old, ok := x.p.recall(x.r.URL.RawQuery)
		if !ok {
			a.outcome("nothing older")
			old = b
		}
		x.answer(resp, old)
	case ListCut:
		x.cutShort(resp, b, len(b)/2)
	}
}

func drain(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, bodyMax))
	_ = resp.Body.Close()
}
