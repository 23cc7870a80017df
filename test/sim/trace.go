package sim

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

// trace is what happened, in order: releases, faults, what brokers log, what
// clients saw. It is text as it grows, so that memory which outlives the process
// shows how far it came.
type trace struct {
	mu   sync.Mutex
	text []byte
	max  int
	full bool
}

// traceMax bounds a trace; what comes later is dropped.
const traceMax = 64 << 20

// newTrace makes a trace in memory, or one without memory of its own in nil.
func newTrace(memory []byte) *trace {
	if memory == nil {
		return &trace{max: traceMax}
	}
	return &trace{text: memory[:0], max: len(memory)}
}

// lineOverhead is more than a line takes beside its words.
const lineOverhead = 64

func (t *trace) add(at time.Duration, who, what, detail string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full = t.full || len(t.text)+len(who)+len(what)+len(detail)+lineOverhead > t.max; t.full {
		return
	}
	var number [32]byte
	seconds := strconv.AppendFloat(number[:0], at.Seconds(), 'f', 6, 64)
	b := spaces(t.text, 12-len(seconds))
	b = append(append(b, seconds...), "  "...)
	b = append(spaces(append(b, who...), 6-len(who)), ' ')
	b = append(spaces(append(b, what...), 14-len(what)), ' ')
	t.text = append(append(b, detail...), '\n')
}

// spaces appends n spaces, none if n is negative.
func spaces(b []byte, n int) []byte {
	for ; n > 0; n-- {
		b = append(b, ' ')
	}
	return b
}

func (t *trace) write(out io.Writer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := out.Write(t.text); err != nil || !t.full {
		return err
	}
	_, err := fmt.Fprintln(out, "the rest is missing: the trace was full")
	return err
}

// note adds a line to the trace.
func (w *World) note(who, what, detail string) { w.trace.add(w.now(), who, what, detail) }

// logs hands what a process logs to the trace.
type logs struct {
	w     *World
	who   string
	attrs string
}

// stackKey is what a broker logs the stack of a panic under that it survives.
const stackKey = "stack"

func (l *logs) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (l *logs) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	panicked := false
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		panicked = panicked || a.Key == stackKey
		return true
	})
	b.WriteString(l.attrs)
	l.w.note(l.who, r.Level.String(), b.String())
	if panicked {
		l.w.judge.broken("panic", "%s: %s", l.who, b.String())
	}
	return nil
}

func (l *logs) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *l
	for _, a := range attrs {
		next.attrs += fmt.Sprintf(" %s=%v", a.Key, a.Value)
	}
	return &next
}

func (l *logs) WithGroup(string) slog.Handler { return l }
