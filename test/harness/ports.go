package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// ports hands out loopback ports. A port stays taken for the life of the test
// binary, so that a server that was killed finds its own again. They come from
// below the range the kernel gives to outgoing connections, where a client's
// socket could take one between two runs of a server; and from a block that a
// lock keeps from other test binaries, whose killed servers' ports look free.
var ports struct {
	mu    sync.Mutex
	block int      // the first port of the block, 0 before one is held
	next  int      // counted from block
	lock  *os.File // held open, and so locked, until the process ends
}

const (
	portLow   = 20000
	portHigh  = 32000
	portBlock = 1000
)

// FreeAddr is a loopback address nothing listens on.
func FreeAddr(t T) string {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.block == 0 {
		if err := takeBlock(); err != nil {
			t.Fatalf("no block of ports: %v", err)
		}
	}
	for range portBlock {
		addr := fmt.Sprintf("127.0.0.1:%d", ports.block+ports.next)
		ports.next = (ports.next + 1) % portBlock
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		return addr
	}
	t.Fatalf("no free port")
	return ""
}

// takeBlock locks the first block that no other process has. ports.mu is held.
func takeBlock() error {
	for block := portLow; block < portHigh; block += portBlock {
		f, err := os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf("tidemark-ports-%d.lock", block)), os.O_CREATE|os.O_RDWR, 0o666)
		if err != nil {
			return err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			ports.block, ports.lock = block, f
			return nil
		}
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
	}
	return errors.New("other processes hold them all")
}
