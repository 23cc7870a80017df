package sim

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark-io/tidemark/broker/node"
	"github.com/tidemark-io/tidemark/cache"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/object"
)

// Process is one broker process: the code that cmd/tidemark runs, on handles of
// its own to bucket, etcd and network.
type Process struct {
	w    *World
	host string // its address; a twin has the same
	name string // unlike any other's

	current  atomic.Pointer[node.Incarnation]
	stop     context.CancelFunc
	stopping atomic.Bool   // told to stop before the end
	gone     chan struct{} // closed by kill
	done     chan struct{} // closed when the code has returned

	mu          sync.Mutex
	dead        bool
	pausedFrom  time.Duration
	pausedUntil time.Duration
}

const (
	clientPort = "9092"
	peerPort   = "9093"
)

// start runs a process at a host.
func (w *World) start(host, name string) *Process {
	ctx, stop := context.WithCancel(context.Background())
	p := &Process{w: w, host: host, name: name, stop: stop, gone: make(chan struct{}), done: make(chan struct{})}
	w.mu.Lock()
	w.processes = append(w.processes, p)
	w.mu.Unlock()
	w.note(name, "start", "at "+host)
	go func() {
		defer close(p.done)
		p.run(ctx)
	}()
	return p
}

// run is the process's life: what ends by itself is started again, as by a
// supervisor.
func (p *Process) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.serve(ctx)
		if p.isDead() {
			return
		}
		p.w.note(p.name, "returned", fmt.Sprint(err))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// serve is what the command does: it opens what a broker rests on and runs it.
func (p *Process) serve(ctx context.Context) error {
	log := slog.New(&logs{w: p.w, who: p.name})
	kv := &keys{p: p}
	bucket := object.Retrying(store{p}, object.RetryConfig{})
	open, cancel := context.WithTimeout(ctx, 12*time.Second)
	identity, err := metadata.EnsureIdentity(open, kv, bucket, metadata.IdentityConfig{Exists: object.ErrExists, NotFound: object.ErrNotFound})
	cancel()
	if err != nil {
		if errors.Is(err, metadata.ErrIdentity) {
			p.w.judge.broken("identity", "%s: %v", p.name, err)
		}
		return err
	}
	id, err := base64.RawURLEncoding.DecodeString(identity.ClusterID)
	if err != nil {
		return err
	}
	chunks, err := cache.Open(cache.Config{Cluster: identity.ClusterID, ChunkBytes: tiering.ChunkLen, Logger: log})
	if err != nil {
		return err
	}
	cfg := node.Config{
		Store: bucket, KV: kv, Cache: chunkCache{chunks}, Identity: identity,
		Broker: metadata.Broker{Host: p.host, Port: 9092, Peer: net.JoinHostPort(p.host, peerPort)},
		Listen: func() (net.Listener, net.Listener, error) {
			if p.isDead() {
				return nil, nil, errDead
			}
			return p.listen(net.JoinHostPort(p.host, clientPort)), p.listen(net.JoinHostPort(p.host, peerPort)), nil
		},
		DialPeer:     func(ctx context.Context, to string) (net.Conn, error) { return p.w.dial(ctx, p.name, p, to) },
		FlushSpacing: p.w.weather.spacing, MemoryTailBytes: p.w.weather.tail,
		Tiering:                    p.w.weather.tiering,
		GroupInitialRebalanceDelay: 500 * time.Millisecond,
		DefaultPartitions:          1,
		Clock:                      p.w.now, Logger: log, Attach: p.current.Store,
	}
	copy(cfg.Cluster[:], id)
	err = node.Run(ctx, cfg)
	if err != nil && ctx.Err() == nil && !p.isDead() {
		p.w.judge.broken("exit", "%s ended by itself: %v", p.name, err)
	}
	return errors.Join(err, kv.Close(), chunks.Close())
}

// chunkCache makes the cache what the log asks for.
type chunkCache struct{ *cache.Cache }

func (c chunkCache) Chunk(ctx context.Context, key string, index int64, load func(context.Context) ([]byte, error)) ([]byte, func(), error) {
	return c.Cache.Chunk(ctx, key, index, load)
}

func (c chunkCache) Prefetch(ctx context.Context, key string, index int64, load func(context.Context) ([]byte, error)) {
	c.Cache.Prefetch(ctx, key, index, load)
}

func (p *Process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// kill ends the process at this instant. Its goroutines go on until they notice,
// but nothing they do reaches anybody any more.
func (p *Process) kill() {
	p.mu.Lock()
	if p.dead {
		p.mu.Unlock()
		return
	}
	p.dead = true
	p.mu.Unlock()
	w := p.w
	w.note(p.name, "killed", "")
	close(p.gone)
	p.stop()
	w.mu.Lock()
	var ls []*listener
	for _, all := range w.listeners {
		for _, l := range all {
			if l.p == p {
				ls = append(ls, l)
			}
		}
	}
	var cs []*conn
	for c := range w.conns {
		if c.p == p {
			cs = append(cs, c)
		}
	}
	w.mu.Unlock()
	for _, l := range ls {
		_ = l.Close()
	}
	for _, c := range cs {
		c.reset(newDice(w.seed, c.name+" killed").chance(0.5))
	}
}

// pause stops everything of the process that others could notice, for d.
func (p *Process) pause(d time.Duration) {
	now := p.w.now()
	p.mu.Lock()
	p.pausedFrom, p.pausedUntil = now, max(p.pausedUntil, now+d)
	p.mu.Unlock()
	p.w.note(p.name, "paused", d.String())
}

func (p *Process) wake() {
	p.mu.Lock()
	p.pausedUntil = 0
	p.mu.Unlock()
}

// paused is how long the process still is.
func (p *Process) paused() time.Duration {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.pausedUntil-p.w.now())
}

// pausedBefore reports whether the process is paused now and has been since
// before something was sent at a time.
func (p *Process) pausedBefore(sent time.Duration) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pausedUntil > p.w.now() && p.pausedFrom <= sent
}

// cut is how long a link still is cut. Clients share their links.
func (w *World) cut(from, to string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	wait := max(w.cuts[[2]string{from, to}], w.cuts[[2]string{"*", to}], w.cuts[[2]string{from, "*"}]) - now
	return max(0, wait)
}
