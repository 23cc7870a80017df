package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/broker"
	"github.com/tidemark-io/tidemark/broker/cluster"
	"github.com/tidemark-io/tidemark/broker/coordinator"
	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// lateNode is the cluster node as the log's way to its peers: the node needs
// the log first.
type lateNode struct{ node atomic.Pointer[cluster.Node] }

func (l *lateNode) AskRelease(ctx context.Context, from metadata.Incarnation, claims []tiering.Claim) ([]tiering.Released, error) {
	if n := l.node.Load(); n != nil {
		return n.AskRelease(ctx, from, claims)
	}
	return nil, errors.New("not part of the cluster yet")
}

// stack is one incarnation: everything that ends with it.
type stack struct {
	base    *base
	reg     *prometheus.Registry
	session *metadata.Session
	view    *metadata.View
	log     *tiering.Log
	node    *cluster.Node
	groups  *coordinator.Coordinator
	server  *broker.Server
	topics  atomic.Uint32 // created here, to spread their first leaders
}

// incarnation runs one incarnation from its registration to its end, and calls
// ready once clients may connect. A nil error means that ctx ended it and all
// was handed over.
func (b *base) incarnation(ctx context.Context, status *status, ready func()) error {
	listener, err := net.Listen("tcp", b.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	defer listener.Close()
	peers, err := b.listenPeers()
	if err != nil {
		return err
	}
	if peers != nil {
		defer peers.Close()
	}
	s := &stack{base: b, reg: prometheus.NewRegistry()}
	if err := s.assemble(ctx, listener, peers); err != nil {
		return err
	}
	status.attach(s)
	defer status.attach(nil)
	return s.run(ctx, ready)
}

// listenPeers is nil for an embedded broker, which has no peers.
func (b *base) listenPeers() (net.Listener, error) {
	if b.cfg.Embedded() {
		return nil, nil
	}
	l, err := net.Listen("tcp", b.cfg.Peer)
	if err != nil {
		return nil, fmt.Errorf("listen for peers: %w", err)
	}
	return l, nil
}

// assemble registers the incarnation, starts its chain and builds the parts.
func (s *stack) assemble(ctx context.Context, clients, peers net.Listener) (err error) {
	b, cfg := s.base, s.base.cfg
	if cfg.Embedded() {
		if err := b.endOlderSessions(ctx); err != nil {
			return err
		}
	}
	if s.session, err = b.register(ctx); err != nil {
		return err
	}
	inc := s.session.Incarnation()
	late := &lateNode{}
	s.log, err = tiering.Open(ctx, tiering.Config{
		Incarnation: inc, Cluster: b.cluster, Store: b.store, Chains: tiering.NewChains(b.kv), Peers: late, Cache: b.cache,
		FlushSpacing: max(time.Nanosecond, cfg.FlushSpacing), FlushBudget: float64(cfg.FlushBudget), TailBytes: cfg.MemoryTailBytes,
		Registerer: s.reg, Logger: b.log, Tracer: b.tracer,
	})
	if err != nil {
		return err
	}
	s.view = metadata.NewView(b.kv, b.log)
	s.node, err = cluster.New(cluster.Config{
		Incarnation: inc, KV: b.kv, View: s.view, Session: s.session, Log: s.log, Single: cfg.Embedded(),
		PeerListener: peers, Logger: b.log, Registerer: s.reg,
	})
	if err != nil {
		return err
	}
	late.node.Store(s.node)
	s.groups, err = coordinator.New(coordinator.Config{
		Incarnation: inc, KV: b.kv, View: s.view, Logger: b.log, Registerer: s.reg,
		Group: group.Config{InitialRebalanceDelay: cfg.GroupInitialRebalanceDelay},
	})
	if err != nil {
		return err
	}
	s.server, err = broker.New(broker.Config{
		Self: inc, ID: s.session.Broker().ID, ClusterID: b.identity.ClusterID, Listener: clients,
		Log: broker.TieringLog(s.log), View: s.view, Admin: broker.KVAdmin{KV: b.kv, Preferred: s.firstLeader()}, Groups: s.groups,
		Logger: b.log, Registerer: s.reg, Tracer: b.tracer,
		AutoCreateTopics: cfg.AutoCreateTopics, DefaultPartitions: cfg.NumPartitions,
	})
	return err
}

// firstLeader chooses the first leader of each partition of a new topic: live
// brokers in turn, from one that differs from topic to topic. The controller
// moves it if that turns out uneven.
func (s *stack) firstLeader() func(partition int32) metadata.Incarnation {
	return func(partition int32) metadata.Incarnation {
		var able []metadata.Incarnation
		for _, b := range s.view.Brokers() {
			if !b.Draining {
				able = append(able, b.Incarnation)
			}
		}
		if len(able) == 0 {
			return 0 // the controller will choose
		}
		first := int(s.topics.Load())
		if partition == 0 {
			first = int(s.topics.Add(1))
		}
		return able[(first+int(partition))%len(able)]
	}
}

// endOlderSessions frees at once what a process that was killed held: the data
// directory is locked, so every older incarnation is known to be dead.
func (b *base) endOlderSessions(ctx context.Context) error {
	entries, _, err := b.kv.Range(ctx, metadata.PrefixBrokers)
	if err != nil {
		return fmt.Errorf("find older sessions: %w", err)
	}
	for _, e := range entries {
		if e.Lease == 0 {
			continue
		}
		if err := b.kv.Revoke(ctx, e.Lease); err != nil {
			return fmt.Errorf("end older session: %w", err)
		}
	}
	return nil
}

func (b *base) register(ctx context.Context) (*metadata.Session, error) {
	host, portText, err := net.SplitHostPort(b.cfg.Advertise)
	if err != nil {
		return nil, fmt.Errorf("advertise: %w", err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("advertise: port %q: %w", portText, err)
	}
	peer := ""
	if !b.cfg.Embedded() {
		peer = b.cfg.PeerAdvertise
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, errors.New("etcd took too long to register the broker"))
	defer cancel()
	return metadata.Register(ctx, b.kv, metadata.SessionConfig{
		Generation: b.identity.Generation, Log: b.log,
		Broker: metadata.Broker{Host: host, Port: int32(port), Peer: peer, Rack: b.cfg.Rack, Version: versionString()},
	})
}

// run runs the parts. They outlive ctx by the time the drain takes.
func (s *stack) run(ctx context.Context, ready func()) error {
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, alive := errgroup.WithContext(alive)
	for _, part := range []func(context.Context) error{s.session.Run, s.view.Run, s.log.Run, s.node.Run, s.groups.Run, s.serve} {
		g.Go(func() error {
			err := part(alive)
			if ctx.Err() != nil && over(err) {
				return nil // the drain ended the incarnation itself
			}
			return unlessStopped(alive, err)
		})
	}
	g.Go(func() error {
		if s.awaitView(alive, ctx) == nil {
			ready()
		}
		select {
		case <-ctx.Done():
			defer stop()
			return s.drain(context.WithoutCancel(ctx))
		case <-alive.Done():
			return nil
		}
	})
	return g.Wait()
}

// serve answers clients once the view is there: answers without topics and
// brokers would mislead them. Until then connections wait to be accepted.
func (s *stack) serve(ctx context.Context) error {
	if err := s.view.WaitReady(ctx); err != nil {
		return nil // stopped before
	}
	return s.server.Run(ctx)
}

// awaitView returns when the view is there, or either context is done.
func (s *stack) awaitView(alive, ctx context.Context) error {
	alive, cancel := context.WithCancel(alive)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	return s.view.WaitReady(alive)
}

// unlessStopped is err, but for what a part says because it was told to stop.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || over(err)) {
		return nil
	}
	return err
}

// groupsDrainMax is how long group writes may hold up the log's closing: an
// etcd that is slow must not cost every partition its graceful end.
const groupsDrainMax = time.Second

// drain hands everything over in an order that keeps promises: group writes
// first, then the log, which others take over, while clients are still answered
// and told where to go; their connections go last.
func (s *stack) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.base.cfg.DrainTimeout)
	defer cancel()
	s.base.log.Info("draining")
	groups, cancelGroups := context.WithTimeout(ctx, groupsDrainMax)
	err := s.groups.ReleaseAll(groups)
	cancelGroups()
	err = errors.Join(err, s.node.Drain(ctx))
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), 500*time.Millisecond)
	defer cancelLast()
	if e := s.server.Drain(last); e != nil && !errors.Is(e, context.DeadlineExceeded) {
		err = errors.Join(err, e)
	}
	return err
}
