package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// clientLog keeps what a client logged last, at the level of single requests,
// for the day it did nothing and nobody else can say why.
type clientLog struct {
	name string

	mu    sync.Mutex
	lines [4096]string // a ring
	n     int
}

func (c *clientLog) Level() kgo.LogLevel { return kgo.LogLevelDebug }

func (c *clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s", time.Now().UTC().Format("15:04:05.000"), c.name, level, msg)
	for i := 0; i+1 < len(keyvals); i += 2 {
		fmt.Fprintf(&b, " %v=%v", keyvals[i], keyvals[i+1])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines[c.n%len(c.lines)] = b.String()
	c.n++
}

// dump writes what is kept, oldest first, to a file of dir.
func (c *clientLog) dump(dir, why string) (string, error) {
	c.mu.Lock()
	var b strings.Builder
	for i := max(0, c.n-len(c.lines)); i < c.n; i++ {
		b.WriteString(c.lines[i%len(c.lines)])
		b.WriteByte('\n')
	}
	c.mu.Unlock()
	path := filepath.Join(dir, c.name+"-"+why+".log")
	return path, os.WriteFile(path, []byte(b.String()), 0o644)
}
