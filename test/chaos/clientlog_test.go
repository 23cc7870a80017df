package chaos

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

// clientLogLines is how many lines a clientLog keeps.
const clientLogLines = 1 << 14

// clientLog keeps what a client logged last, at the level of single requests,
// for the day it does nothing and nobody else can say why.
type clientLog struct {
	name string

	mu    sync.Mutex
	lines []string // a ring once it is full
	n     int
}

// logged keeps a client's log, and leaves it behind when the test fails.
func (r *rig) logged(name string) kgo.Opt {
	r.t.Helper()
	c := &clientLog{name: name}
	path := harness.Keep(r.t, fmt.Sprintf("client-%d-%s.log", r.logs.Add(1), name))
	r.t.Cleanup(func() {
		if r.t.Failed() {
			if err := os.WriteFile(path, []byte(c.String()), 0o644); err != nil {
				r.t.Logf("%v", err)
			}
		}
	})
	return kgo.WithLogger(c)
}

func (c *clientLog) Level() kgo.LogLevel { return kgo.LogLevelDebug }

func (c *clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", time.Now().UTC().Format("15:04:05.000"), level, msg)
	for i := 0; i+1 < len(keyvals); i += 2 {
		fmt.Fprintf(&b, " %v=%v", keyvals[i], keyvals[i+1])
	}
	b.WriteByte('\n')
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.lines) < clientLogLines {
		c.lines = append(c.lines, b.String())
	} else {
		c.lines[c.n%clientLogLines] = b.String()
	}
	c.n++
}

// String is what is kept, oldest first.
func (c *clientLog) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := 0
	if len(c.lines) == clientLogLines {
		first = c.n % clientLogLines
	}
	return strings.Join(c.lines[first:], "") + strings.Join(c.lines[:first], "")
}
