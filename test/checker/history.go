package checker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Options shape a history.
type Options struct {
	// Writer gets every event as a line of JSON before the call that told it
	// returns, so that a history survives the process that made it.
	Writer io.Writer
	// Forget keeps nothing in memory: a run of hours is judged from its file.
	Forget bool
	// Clock is nanoseconds of one monotonic clock. Without it the history uses
	// time.Since its own beginning, which is fake time inside a synctest bubble.
	Clock func() int64
}

// History records events, from any goroutine. Its order is that of the calls:
// an event that was told after another call had returned comes after it.
type History struct {
	clock  func() int64
	values atomic.Uint64
	forget bool

	mu      sync.Mutex // guards what follows; never held while writing
	next    int64
	last    int64
	events  []Event
	pending []byte // lines not yet handed to the writer
	count   Counts

	wmu sync.Mutex // held while writing; taken before mu
	w   io.Writer
	err error // the first failure of w
}

// Counts is how much a history holds.
type Counts struct {
	Events, Sends, Acked, Failed, Unknown, Polls, Read int
}

// NewHistory is an empty history that keeps its events in memory.
func NewHistory() *History { return NewHistoryWith(Options{}) }

// NewHistoryWith is an empty history.
func NewHistoryWith(o Options) *History {
	h := &History{clock: o.Clock, w: o.Writer, forget: o.Forget}
	if h.clock == nil {
		begun := time.Now()
		h.clock = func() int64 { return int64(time.Since(begun)) }
	}
	return h
}

// CreateHistory is an empty history that is kept in memory and written to a new
// file, whose directory is made if need be. The second value closes the file.
func CreateHistory(path string) (*History, func() error, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, err
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, nil, err
	}
	h := NewHistoryWith(Options{Writer: f})
	return h, func() error {
		h.wmu.Lock()
		defer h.wmu.Unlock()
		h.w = nil
		if err := f.Close(); h.err == nil {
			h.err = err
		}
		return h.err
	}, nil
}

// Now is the history's clock, in nanoseconds.
func (h *History) Now() int64 { return h.clock() }

// Add records an event as it is, but for I and T, which it sets and returns. The
// constructors in this package are the usual way.
func (h *History) Add(e Event) (i, t int64) {
	h.mu.Lock()
	h.next++
	e.I = h.next
	h.last = max(h.last, h.clock())
	e.T = h.last
	h.count.add(&e)
	if !h.forget {
		h.events = append(h.events, e)
	}
	if h.w != nil {
		line, err := json.Marshal(e)
		if err != nil {
			panic(fmt.Sprintf("an event that is no JSON: %v", err)) // only an Op of no known kind
		}
		h.pending = append(append(h.pending, line...), '\n')
	}
	h.mu.Unlock()
	h.write()
	return e.I, e.T
}

// now is the last event so far, and the time.
func (h *History) now() (i, t int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = max(h.last, h.clock())
	return h.next, h.last
}

func (h *History) write() {
	h.wmu.Lock()
	defer h.wmu.Unlock()
	h.mu.Lock()
	lines := h.pending
	h.pending = nil
	h.mu.Unlock()
	if h.w == nil || h.err != nil || len(lines) == 0 {
		return
	}
	_, h.err = h.w.Write(lines)
}

func (c *Counts) add(e *Event) {
	c.Events++
	switch {
	case e.F == FSend && e.Type == Invoke:
		c.Sends++
	case e.F == FSend && e.Type == OK:
		c.Acked++
	case e.F == FSend && e.Type == Fail:
		c.Failed++
	case e.F == FSend:
		c.Unknown++
	case e.F == FPoll || e.F == FScan:
		c.Polls++
		for _, op := range e.Ops {
			c.Read += len(op.Records)
		}
	}
}

// Counts tells how much was recorded so far.
func (h *History) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// Events is everything recorded so far; nothing if the history forgets.
func (h *History) Events() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events[:len(h.events):len(h.events)]
}

// Err is the first failure to write an event, if there was one.
func (h *History) Err() error {
	h.wmu.Lock()
	defer h.wmu.Unlock()
	return h.err
}

// WriteFile writes the history to a file, one event a line.
func (h *History) WriteFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for _, e := range h.Events() {
		if err := enc.Encode(e); err != nil {
			f.Close()
			return err
		}
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
