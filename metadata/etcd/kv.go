// Package etcd is the metadata store on a real etcd.
//
// Every member has a connection of its own, and a call goes to the member that
// answered last; when it fails there, later calls go to the next one. Reads are
// linearizable and are tried again, at other members too, as long as their time
// allows. A write is sent once: whether it was applied when no answer came is
// for the caller to find out. Leases are renewed by single requests that ask one
// member after the other within a second; etcd's keep-alive stream is not used,
// because it loses healthy leases when the member it hangs on stalls.
//
// Watches share one stream over all members, which moves on by itself when its
// member is lost. They are asked for progress every minute, so that one that
// saw no change for long does not fall behind compaction.
//
// History must be compacted, or etcd's store fills up: by its own
// auto-compaction (--auto-compaction-mode=periodic
// --auto-compaction-retention=5m does), or through Compact.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/tidemark-io/tidemark/metadata"
)

// KV is the store below /tidemark/<cluster>/ of an etcd.
type KV struct {
	cfg     Config
	root    string
	metrics *metrics

	members []*member
	current atomic.Uint32 // index of the member to ask first
	watcher *clientv3.Client

	closing context.Context
	close   context.CancelFunc
	// running counts the goroutines of watches and of progress.
	running sync.WaitGroup
	watches atomic.Int64
}

var (
	_ metadata.KV        = (*KV)(nil)
	_ metadata.Compactor = (*KV)(nil)
)

// member is one endpoint.
type member struct {
	endpoint    string
	client      *clientv3.Client
	kv          pb.KVClient
	lease       pb.LeaseClient
	maintenance pb.MaintenanceClient
}

// callOptions fail a call at once when its member cannot be reached (another
// may), and admit a page of large values.
var callOptions = []grpc.CallOption{
	grpc.WaitForReady(false), grpc.MaxCallSendMsgSize(4 << 20), grpc.MaxCallRecvMsgSize(1 << 30),
}

// connect builds the clients; nothing is sent yet.
func connect(cfg Config) (*KV, error) {
	ctx, cancel := context.WithCancel(context.Background())
	k := &KV{
		cfg: cfg, root: "/tidemark/" + cfg.Cluster + "/",
		closing: ctx, close: cancel,
	}
	var err error
	for _, ep := range cfg.Endpoints {
		m := &member{endpoint: ep}
		if m.client, err = newClient(cfg, ep); err != nil {
			k.closeClients()
			return nil, fmt.Errorf("etcd endpoint %s: %w", ep, err)
		}
		conn := m.client.ActiveConnection()
		m.kv, m.lease, m.maintenance = pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewMaintenanceClient(conn)
		k.members = append(k.members, m)
	}
	if k.watcher, err = newClient(cfg, cfg.Endpoints...); err != nil {
		k.closeClients()
		return nil, fmt.Errorf("etcd endpoints %v: %w", cfg.Endpoints, err)
	}
	k.current.Store(rand.Uint32N(uint32(len(k.members)))) // brokers spread over members
	return k, nil
}

func newClient(cfg Config, endpoints ...string) (*clientv3.Client, error) {
	reconnect := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	return clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  cfg.TLS,
		Username:             cfg.Username,
		Password:             cfg.Password,
		DialTimeout:          cfg.OpenTimeout,
		DialKeepAliveTime:    6 * time.Second, // servers refuse less than 5 s
		DialKeepAliveTimeout: 3 * time.Second,
		MaxUnaryRetries:      2, // the second is for a token that expired; writes are not sent twice
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{
			// gRPC's default backs off up to two minutes: far longer than a
			// broker may stay without etcd once that is back.
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: 2 * time.Second}),
		},
	})
}

// Close ends the watches and connections.
func (k *KV) Close() error {
	k.close()
	err := k.closeClients()
	k.running.Wait()
	return err
}

func (k *KV) closeClients() error {
	var errs []error
	for _, m := range k.members {
		errs = append(errs, ignoreCanceled(m.client.Close()))
	}
	if k.watcher != nil {
		errs = append(errs, ignoreCanceled(k.watcher.Close()))
	}
	return errors.Join(errs...)
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// pick returns the member to ask and its index for failed.
func (k *KV) pick() (*member, uint32) {
	i := k.current.Load()
	return k.members[int(i)%len(k.members)], i
}

// failed moves on from the member at index i, unless somebody has already.
func (k *KV) failed(i uint32) {
	if len(k.members) > 1 {
		k.current.CompareAndSwap(i, (i+1)%uint32(len(k.members)))
	}
}

// once makes one attempt of a call, bounded by timeout.
func (k *KV) once(ctx context.Context, op string, timeout time.Duration, f func(context.Context, *member) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m, i := k.pick()
	begun := time.Now()
	err := f(ctx, m)
	if errors.Is(err, errConflict) {
		k.metrics.observe(op, "conflict", begun)
		return nil
	}
	err = ours(err)
	k.metrics.observe(op, outcome(err), begun)
	if errors.Is(err, metadata.ErrUnavailable) {
		if !errors.Is(err, context.Canceled) {
			k.failed(i)
		}
		err = fmt.Errorf("%w (%s at %s)", err, op, m.endpoint)
	}
	return err
}

// errConflict tells once that a transaction's conditions failed; it is an
// outcome, not an error.
var errConflict = errors.New("conditions failed")

// read attempts a call that changes nothing until it is answered.
func (k *KV) read(ctx context.Context, op string, f func(context.Context, *member) error) error {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.CallTimeout)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := k.once(ctx, op, readAttempt, f)
		if !errors.Is(err, metadata.ErrUnavailable) {
			return err
		}
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
		k.cfg.Log.LogAttrs(ctx, slog.LevelDebug, "etcd read tried again", slog.String("op", op), slog.Any("error", err))
	}
}

func (k *KV) key(key string) []byte { return []byte(k.root + key) }
