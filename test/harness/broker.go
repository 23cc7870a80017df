package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// readyLimit is how long a broker may take to be ready. It is generous: tests
// that promise a time measure it themselves.
const readyLimit = 60 * time.Second

// Broker is a broker at fixed addresses.
type Broker struct {
	*server
	Name string
	Addr string // where it listens for Kafka clients
	Peer string // where it listens for other brokers
	HTTP string
	Dir  string // its data directory

	// What the next start uses; later arguments beat earlier ones.
	Bin  string
	Args []string
	Env  []string // beside the test's own

	// Advertised is where Kafka clients are sent, if that is not Addr.
	Advertised string
}

// NewBroker prepares a broker without starting it. Arguments and environment
// come after the ones every broker of a test has.
func NewBroker(t T, name string, args, env []string) *Broker {
	t.Helper()
	b := &Broker{Name: name, Addr: FreeAddr(t), Peer: FreeAddr(t), HTTP: FreeAddr(t), Dir: filepath.Join(t.TempDir(), "data"),
		Bin: Binary(t), Args: args, Env: env}
	b.server = newServer(t, name, filepath.Join(logDir(t), name+".log"), func() *exec.Cmd {
		cmd := exec.Command(b.Bin, append([]string{
			"serve", "--listen", b.Addr, "--peer", b.Peer, "--http", b.HTTP, "--data-dir", b.Dir,
			"--group-initial-rebalance-delay", "100ms",
		}, b.Args...)...)
		cmd.Env = append(os.Environ(), b.Env...)
		return cmd
	})
	return b
}

// ClientAddr is where Kafka clients find the broker.
func (b *Broker) ClientAddr() string {
	if b.Advertised != "" {
		return b.Advertised
	}
	return b.Addr
}

// Start runs the broker and waits until it is ready.
func (b *Broker) Start() {
	b.t.Helper()
	b.server.Start()
	b.WaitReady()
}

// Launch runs the broker and does not wait.
func (b *Broker) Launch() { b.t.Helper(); b.server.Start() }

// WaitReady waits until the broker says that it is ready.
func (b *Broker) WaitReady() {
	b.t.Helper()
	b.waitReady(readyLimit, "http://"+b.HTTP+"/readyz")
}

// Wipe removes everything the broker keeps on disk. It must not be running.
func (b *Broker) Wipe() {
	b.t.Helper()
	b.remove(b.Dir)
}

// WipeCache removes the disk cache alone. It must not be running.
func (b *Broker) WipeCache() {
	b.t.Helper()
	b.remove(filepath.Join(b.Dir, "cache"))
}

func (b *Broker) remove(dir string) {
	b.t.Helper()
	if b.Running() {
		b.t.Fatalf("%s is running; its disk is not wiped under it", b.Name)
	}
	if err := os.RemoveAll(dir); err != nil {
		b.t.Fatalf("wipe %s: %v", b.Name, err)
	}
}
