// Package embedded runs a real etcd server inside the process: one member, on a
// port of the loopback interface, with its data in a directory. What clients get
// from it is what they get from any etcd, so package etcd is how to talk to it.
//
// The data survive Close and being killed; the port may be another one after
// each start. The directory is locked: a second server on it is ErrInUse.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// ErrInUse: another server runs on the directory.
var ErrInUse = errors.New("etcd data directory is in use")

const (
	// One member elects itself, as soon as the election timeout has passed;
	// nobody can outvote it when it is late. 250 ms is the price of each start,
	// and the shortest lease etcd then grants is a second.
	tick             = 50 * time.Millisecond
	electionTimeout  = 250 * time.Millisecond
	compactRetention = "5m"
	quotaBytes       = 4 << 30
	// defragMegabytes is how much a start must be able to give back to the file
	// system for it to take the time.
	defragMegabytes = 64
	// startTimeout is for a server that will never be ready; one that reads a
	// large log may take seconds.
	startTimeout = time.Minute

	lockFile  = "LOCK"
	memberDir = "member"
	firstDir  = "member.new"
)

// Server is a running etcd.
type Server struct {
	etcd *embed.Etcd
	rpc  *grpc.Server // etcd's own, for clients
	lock *os.File
}

// Start starts etcd on dir, which is created if it does not exist, and returns
// when it takes requests.
func Start(ctx context.Context, dir string, log *slog.Logger) (*Server, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcd data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s, err := startIn(ctx, dir, log)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("start etcd in %s: %w", dir, err)
	}
	s.lock = lock
	return s, nil
}

// startIn starts the member. Its first start is done in a directory that is
// given its name only when it succeeded: etcd killed in the middle of that would
// leave behind a member of no cluster, which never elects itself.
func startIn(ctx context.Context, dir string, log *slog.Logger) (*Server, error) {
	member, first := filepath.Join(dir, memberDir), filepath.Join(dir, firstDir)
	_, err := os.Stat(member)
	if err == nil {
		return start(ctx, member, log)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.RemoveAll(first); err != nil {
		return nil, err
	}
	s, err := start(ctx, first, log)
	if err != nil {
		return nil, err
	}
	s.stop()
	if err := os.Rename(first, member); err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	return start(ctx, member, log)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockDir takes the lock that ends with the process, if not before.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("etcd data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrInUse, dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

func start(ctx context.Context, dir string, log *slog.Logger) (*Server, error) {
	cfg := config(dir, log)
	rpc := make(chan *grpc.Server, 1) // handed over once the server is ready
	cfg.ServiceRegister = func(s *grpc.Server) { rpc <- s }
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case s := <-rpc:
		return &Server{etcd: e, rpc: s}, nil
	case err = <-e.Err():
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.Server.HardStop() // before it is ready there is nothing to hand over or finish
	e.Close()
	return nil, err
}

func config(dir string, log *slog.Logger) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "tidemark"
	cfg.Dir = dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&logCore{log: log}))

	// The system picks the port. No peer will ever connect: the address of the
	// member is a name for it, the same at every start, and nobody listens.
	client := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = nil, []url.URL{peer}
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	cfg.EnableGRPCGateway = false // no JSON over HTTP, which web pages could send
	cfg.CORS = nil

	cfg.TickMs, cfg.ElectionMs = uint(tick.Milliseconds()), uint(electionTimeout.Milliseconds())
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, compactRetention
	cfg.QuotaBackendBytes = quotaBytes
	cfg.BootstrapDefragThresholdMegabytes = defragMegabytes
	return cfg
}

// Endpoints returns the client URL.
func (s *Server) Endpoints() []string {
	return []string{"http://" + s.etcd.Clients[0].Addr().String()}
}

// Err delivers an error when the server has failed by itself; it is closed by
// Close.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Close stops the server. Clients should be closed before: their calls fail.
func (s *Server) Close() error {
	s.stop()
	return s.lock.Close()
}

func (s *Server) stop() {
	// etcd would wait seconds for watches to end; they are nobody's any more.
	s.rpc.Stop()
	s.etcd.Close()
}
