package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/tidemark-io/tidemark/broker/cluster/peer"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// ErrIncarnationOver: this incarnation's chain is sealed, so this process leads
// nothing any more. The caller starts anew under a new incarnation.
var ErrIncarnationOver = metadata.ErrIncarnationOver

// Config is what a Node is made of.
type Config struct {
	Incarnation metadata.Incarnation
	KV          metadata.KV
	View        View // run by the caller
	Session     Session
	Log         Log // run by the caller
	// Single: this is the only broker there can be (embedded mode). It has no
	// peers, and every older incarnation is known to be dead.
	Single bool
	// PeerListener takes the calls of other brokers. It must be listening
	// before the session registers its address. Nil only if Single. The Node
	// closes it.
	PeerListener net.Listener
	// DialPeer connects to another broker's peer listener; nil means TCP.
	DialPeer func(ctx context.Context, addr string) (net.Conn, error)
	// RegisterPeerServices adds services to the peer listener; may be nil.
	RegisterPeerServices func(grpc.ServiceRegistrar)
	// Witness makes durable, outside the metadata store, that key was modified
	// there at rev. It is called with a claim before anything is opened that
	// rests on it or on an earlier one. Nil: nobody is told.
	Witness    func(ctx context.Context, key string, rev int64) error
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	network network // a test's; else a peer.Pool
}

func (c *Config) validate() error {
	switch {
	case c.Incarnation == 0:
		return errors.New("cluster: no incarnation")
	case c.KV == nil || c.View == nil || c.Session == nil || c.Log == nil:
		return errors.New("cluster: metadata store, view, session and log are all needed")
	case c.PeerListener == nil && !c.Single && c.network == nil:
		return errors.New("cluster: no peer listener")
	}
	return nil
}

// Node is this broker's part in the cluster.
type Node struct {
	cfg        Config
	log        *slog.Logger
	metrics    *metrics
	net        network
	server     *peer.Server // nil without a listener
	detector   *detector
	guardian   *guardian
	controller *controller
	leadership *leadership

	draining atomic.Bool
	drained  chan struct{} // closed when Drain is through
	failing  atomic.Bool   // as last registered
	changed  signal        // draining or failing changed
}

var _ tiering.Peers = (*Node)(nil)

// New prepares a node. It sets the log's checkpoint hook, so it is called
// before the log runs.
func New(cfg Config) (*Node, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer), net: cfg.network, drained: make(chan struct{})}
	if n.net == nil {
		n.net = peer.NewPool(cfg.Incarnation, cfg.DialPeer)
	}
	if cfg.PeerListener != nil {
		n.server = peer.NewServer(cfg.Incarnation, n, cfg.RegisterPeerServices)
	}
	n.detector = newDetector(cfg.Incarnation, cfg.View, n.net, n.log, n.metrics)
	n.guardian = &guardian{n: n}
	n.controller = &controller{n: n}
	n.leadership = newLeadership(n)
	cfg.Log.OnCheckpoint(n.leadership.checkpointed)
	return n, nil
}

// Run takes part in the cluster. It returns ErrIncarnationOver when this
// incarnation has ended, nil after Drain or when ctx is done, and closes the
// peer listener in every case.
func (n *Node) Run(ctx context.Context) error {
	defer n.net.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g, ctx := errgroup.WithContext(ctx)
	if n.server != nil {
		g.Go(func() error { return n.server.Serve(n.cfg.PeerListener) })
		g.Go(func() error { <-ctx.Done(); n.server.Stop(); return nil })
	}
	g.Go(func() error { return n.watchEnd(ctx) })
	g.Go(func() error { return n.work(ctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-n.drained:
			cancel(errDrained)
		}
		return nil
	})
	return g.Wait()
}

var errDrained = errors.New("drained")

// work runs everything that needs the view.
func (n *Node) work(ctx context.Context) error {
	if err := n.cfg.View.WaitReady(ctx); err != nil {
		return ended(ctx, fmt.Errorf("wait for the cluster's metadata: %w", err))
	}
	if n.cfg.Single {
		if err := n.sealOlder(ctx); err != nil {
			return ended(ctx, err)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		n.detector.run, n.guardian.run, n.controller.run, n.leadership.run, n.reportHealth, n.compact,
	} {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// ended drops the error of something that was cut short by ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// watchEnd returns ErrIncarnationOver once the log says so, or once the chain
// is found to have an end while this broker is not registered: an idle log would
// not notice that it was sealed.
func (n *Node) watchEnd(ctx context.Context) error {
	changed, unsubscribe := n.cfg.View.Subscribe()
	defer unsubscribe()
	seen := false
	for {
		var again <-chan time.Time
		_, registered := n.cfg.View.Broker(n.cfg.Incarnation)
		seen = seen || registered
		if seen && !registered {
			if n.sealedByPeer(ctx) {
				return n.over("the chain was sealed by a peer")
			}
			again = time.After(jittered(endInterval))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.cfg.Log.Done():
			return n.over("the log has ended")
		case <-changed:
		case <-again:
		}
	}
}

// endInterval paces looks at the own chain while the registration is gone.
const endInterval = 2 * time.Second

// over is how an incarnation ends: with an error, unless it was meant to.
func (n *Node) over(why string) error {
	if n.draining.Load() {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrIncarnationOver, why)
}

func (n *Node) sealedByPeer(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, controllerTimeout)
	defer cancel()
	chain, _, err := metadata.LoadChain(ctx, n.cfg.KV, n.cfg.Incarnation)
	return err == nil && chain.End != nil // an error says nothing: asked again
}

// situation gathers what decisions about other brokers rest on.
func (n *Node) situation() situation {
	v := n.cfg.View
	_, registered := v.Broker(n.cfg.Incarnation)
	holder, _ := v.Controller()
	return situation{
		self: n.cfg.Incarnation, registered: registered, failing: n.failing.Load(), controller: holder.Incarnation,
		peers: n.detector.standings(), sealing: n.guardian.inProgress(),
	}
}

// exists reports whether a partition belongs to a topic that can be seen.
func (n *Node) exists(tp metadata.TopicPartition) bool {
	t, ok := n.cfg.View.TopicByID(tp.Topic)
	return ok && tp.Partition < t.Partitions
}

// errBehind: the view does not show yet what is known to have been written.
var errBehind = errors.New("the view is behind")

// waitRevision waits until the view shows what was written at rev.
func (n *Node) waitRevision(ctx context.Context, rev int64) error {
	if rev == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, controllerTimeout)
	defer cancel()
	if err := n.cfg.View.WaitRevision(ctx, rev); err != nil {
		return fmt.Errorf("%w: wait for revision %d: %w", errBehind, rev, err)
	}
	return nil
}

// encode writes a value of the store.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs always encode
	}
	return b
}

func decodeEntry[T any](e metadata.Entry) (T, error) {
	var v T
	if err := json.Unmarshal(e.Value, &v); err != nil {
		return v, fmt.Errorf("value of %s: %w", e.Key, err)
	}
	return v, nil
}
