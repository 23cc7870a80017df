package sim

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// trace is what happened, in order: releases, faults, what brokers log, what
// clients saw.
type trace struct {
	mu    sync.Mutex
	lines []line
}

type line struct {
	at        time.Duration
	who, what string
	detail    string
}

// linesMax bounds a trace; what comes later is dropped and counted.
const linesMax = 1 << 20

func (t *trace) add(at time.Duration, who, what, detail string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) < linesMax {
		t.lines = append(t.lines, line{at, who, what, detail})
	}
}

func (t *trace) write(out io.Writer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := bufio.NewWriter(out)
	for _, l := range t.lines {
		fmt.Fprintf(w, "%12.6f  %-6s %-14s %s\n", l.at.Seconds(), l.who, l.what, l.detail)
	}
	if len(t.lines) == linesMax {
		fmt.Fprintln(w, "the rest is missing: the trace was full")
	}
	return w.Flush()
}

// note adds a line to the trace.
func (w *World) note(who, what, detail string) { w.trace.add(w.now(), who, what, detail) }

// logs hands what a process logs to the trace.
type logs struct {
	w     *World
	who   string
	attrs string
}

func (l *logs) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (l *logs) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	b.WriteString(l.attrs)
	l.w.note(l.who, r.Level.String(), b.String())
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
