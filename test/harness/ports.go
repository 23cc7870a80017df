package harness

import (
	"fmt"
	"net"
	"sync"
)

// ports hands out loopback ports. A port stays taken for the life of the test
// binary, so that a server that was killed finds its own again. They come from
// below the range the kernel gives to outgoing connections, where a client's
// socket could take one between two runs of a server.
var ports = struct {
	mu   sync.Mutex
	next int
}{next: 20000}

const (
	portLow  = 20000
	portHigh = 32000
)

// FreeAddr is a loopback address nothing listens on.
func FreeAddr(t T) string {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range portHigh - portLow {
		port := ports.next
		if ports.next++; ports.next >= portHigh {
			ports.next = portLow
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
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
