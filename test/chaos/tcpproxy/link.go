package tcpproxy

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Stats counts what a link did.
type Stats struct {
	Connections int64 // accepted
	Refused     int64
	Cuts        int64 // connections reset by the proxy, not by their ends
	Up, Down    int64 // bytes delivered
}

// Link is the way from one source to the proxy's server.
type Link struct {
	mu      sync.Mutex // guards what follows; held for no I/O
	mode    Mode
	changed chan struct{} // closed when the mode changes
	version int           // of the mode
	conns   map[*conn]struct{}
	stats   Stats
}

func newLink() *Link {
	return &Link{changed: make(chan struct{}), conns: make(map[*conn]struct{})}
}

// Set changes the mode, for open connections too.
func (l *Link) Set(m Mode) {
	l.mu.Lock()
	l.mode = m
	l.version++
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	if m.Refuse {
		l.Cut()
	}
}

// Heal passes everything again.
func (l *Link) Heal() { l.Set(Mode{}) }

// Cut resets every open connection, and returns how many.
func (l *Link) Cut() int {
	l.mu.Lock()
	conns := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	n := 0
	for _, c := range conns {
		if c.cut() {
			n++
		}
	}
	l.mu.Lock()
	l.stats.Cuts += int64(n)
	l.mu.Unlock()
	return n
}

// Stats returns the counts so far.
func (l *Link) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// add is false when the link refuses connections.
func (l *Link) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Connections++
	if l.mode.Refuse {
		l.stats.Refused++
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Link) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

func (l *Link) current() (m Mode, version int, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode, l.version, l.changed
}

// gate waits while the mode holds, and is false when done came first.
func (l *Link) gate(done <-chan struct{}, holds func(Mode) bool) bool {
	for {
		m, _, changed := l.current()
		if !holds(m) {
			return true
		}
		select {
		case <-done:
			return false
		case <-changed:
		}
	}
}

// delay is how long a piece that arrives now is held, by latency alone.
func (l *Link) delay(way func(Mode) Way) time.Duration {
	m, _, _ := l.current()
	w := way(m)
	d := w.Latency
	if w.Jitter > 0 {
		d += rand.N(w.Jitter)
	}
	return d
}

func (l *Link) count(up bool, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if up {
		l.stats.Up += int64(n)
	} else {
		l.stats.Down += int64(n)
	}
}

func (l *Link) countCut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Cuts++
}
