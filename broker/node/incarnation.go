package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemark-io/tidemark/broker"
	"github.com/tidemark-io/tidemark/broker/cluster"
	"github.com/tidemark-io/tidemark/broker/coordinator"
	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/broker/internal/producerid"
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

// Incarnation is one incarnation: everything that ends with it.
type Incarnation struct {
	cfg     *Config
	reg     *prometheus.Registry
	session *metadata.Session
	view    *metadata.View
	log     *tiering.Log
	node    *cluster.Node
	groups  *coordinator.Coordinator
	peers   *broker.Peers
	server  *broker.Server
	topics  atomic.Uint32 // created here, to spread their first leaders
}

// runIncarnation runs one incarnation from its registration to its end. A nil
// error means that ctx ended it and all was handed over.
func runIncarnation(ctx context.Context, cfg *Config) error {
	clients, peers, err := cfg.Listen()
	if err != nil {
		return err
	}
	defer clients.Close()
	if peers != nil {
		defer peers.Close()
	}
	i := &Incarnation{cfg: cfg, reg: prometheus.NewRegistry()}
	if err := i.assemble(ctx, clients, peers); err != nil {
		// Told to stop before it led anything: there is nothing to hand over.
		return unlessStopped(ctx, err)
	}
	defer i.peers.Close()
	cfg.Attach(i)
	defer cfg.Attach(nil)
	return i.run(ctx)
}

// Log is the incarnation's log.
func (i *Incarnation) Log() *tiering.Log { return i.log }

// Gatherer yields the incarnation's metrics.
func (i *Incarnation) Gatherer() prometheus.Gatherer { return i.reg }

// Check tells why clients should not be sent here, or nil.
func (i *Incarnation) Check(ctx context.Context) error {
	select {
	case <-i.log.Done():
		return errors.New("the incarnation is over")
	default:
	}
	if i.session.Lost() {
		return errors.New("the etcd session is lost")
	}
	if i.log.BucketFailing() {
		return errors.New("the object store does not take writes")
	}
	now, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := i.view.WaitReady(now); err != nil {
		return errors.New("the cluster's metadata is not loaded yet")
	}
	return nil
}

// assemble registers the incarnation, starts its chain and builds the parts.
func (i *Incarnation) assemble(ctx context.Context, clients, peers net.Listener) (err error) {
	cfg := i.cfg
	if err := cfg.witness.await(ctx, func(err error) {
		cfg.Logger.Warn("waiting for bucket and etcd before registering", "error", err)
	}); err != nil {
		return err
	}
	if cfg.Single {
		if err := endOlderSessions(ctx, cfg.KV); err != nil {
			return err
		}
	}
	if i.session, err = register(ctx, cfg); err != nil {
		return err
	}
	inc := i.session.Incarnation()
	i.view = metadata.NewView(cfg.KV, cfg.Logger)
	late := &lateNode{}
	i.log, err = tiering.Open(ctx, tiering.Config{
		Incarnation: inc, Cluster: cfg.Cluster, Store: cfg.Store, Chains: witnessed{tiering.NewChains(cfg.KV), cfg.witness}, Peers: late, Cache: cfg.Cache,
		FlushSpacing: max(time.Nanosecond, cfg.FlushSpacing), FlushBudget: float64(cfg.FlushBudget), TailBytes: cfg.MemoryTailBytes,
		TierInterval: cfg.Tiering.Interval, TierAge: cfg.Tiering.Age, TierBytes: cfg.Tiering.Bytes,
		SegmentBytes: cfg.Tiering.SegmentBytes, SegmentBytesMax: cfg.Tiering.SegmentBytesMax,
		CollectInterval: cfg.Tiering.CollectInterval, SweepInterval: cfg.Tiering.SweepInterval, SweepAge: cfg.Tiering.SweepAge,
		BlockBytes: cfg.Tiering.BlockBytes, CheckpointInterval: cfg.Tiering.CheckpointInterval, CheckpointSlots: cfg.Tiering.CheckpointSlots,
		AbandonedAge: cfg.Tiering.AbandonedAge, DeleteGrace: cfg.Tiering.DeleteGrace, RetentionInterval: cfg.Tiering.RetentionInterval,
		// Not before the log runs, by when there is a server.
		Fresh:    i.fresh,
		Policy:   func(topic metadata.TopicID) tiering.Policy { return i.server.Policy(topic) },
		Collects: i.controls,
		Clock:    cfg.Clock, Registerer: i.reg, Logger: cfg.Logger, Tracer: cfg.Tracer,
	})
	if err != nil {
		return err
	}
	i.node, err = cluster.New(cluster.Config{
		Incarnation: inc, KV: cfg.KV, View: i.view, Session: i.session, Log: i.log, Single: cfg.Single,
		PeerListener: peers, DialPeer: cfg.DialPeer, Witness: cfg.witness.Note, Logger: cfg.Logger, Registerer: i.reg,
	})
	if err != nil {
		return err
	}
	late.node.Store(i.node)
	var offsets coordinator.OffsetsLog
	if cfg.OffsetsTopicInterval > 0 {
		offsets = broker.OffsetsLog{Log: broker.TieringLog(i.log), View: i.view, KV: cfg.KV}
	}
	i.peers = broker.NewPeers(inc, cfg.DialPeer)
	i.groups, err = coordinator.New(coordinator.Config{
		Peers: i.peers, ProducerIDs: producerid.New(func(ctx context.Context, n int64) (int64, error) {
			return metadata.AllocateProducerIDs(ctx, cfg.KV, n)
		}),
		TransactionTimeoutMax: cfg.TransactionTimeoutMax, TransactionalIDExpiration: cfg.TransactionalIDExpiration,
		Incarnation: inc, KV: cfg.KV, View: i.view, Logger: cfg.Logger, Registerer: i.reg,
		Group: group.Config{InitialRebalanceDelay: cfg.GroupInitialRebalanceDelay}, Consumer: cfg.Consumer,
		OffsetsRetention: cfg.OffsetsRetention, OffsetsLog: offsets, MirrorInterval: cfg.OffsetsTopicInterval,
	})
	if err != nil {
		return err
	}
	i.server, err = broker.New(broker.Config{
		Self: inc, ID: i.session.Broker().ID, ClusterID: cfg.Identity.ClusterID, Listener: clients,
		Log: broker.TieringLog(i.log), View: i.view, Admin: broker.KVAdmin{KV: cfg.KV, Preferred: i.firstLeader()}, Groups: i.groups, Transactions: i.groups,
		Logger: cfg.Logger, Registerer: i.reg, Tracer: cfg.Tracer,
		AutoCreateTopics: cfg.AutoCreateTopics, DefaultPartitions: cfg.DefaultPartitions, Settings: i.groups.Settings(),
	})
	if err == nil {
		i.peers.Serve(i.server)
	}
	return err
}

// fresh returns once the view shows what was so after the call.
func (i *Incarnation) fresh(ctx context.Context) error {
	_, rev, err := i.cfg.KV.Get(ctx, metadata.KeyController)
	if err != nil {
		return err
	}
	return i.view.WaitRevision(ctx, rev)
}

// reconsiderPause spaces looks at configs while the view changes all the time.
const reconsiderPause = time.Second

// followConfigs has the log reconsider what its partitions may let go of whenever
// configs may have changed.
func (i *Incarnation) followConfigs(ctx context.Context) error {
	changed, stop := i.view.Subscribe()
	defer stop()
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		i.log.Reconsider()
		select {
		case <-time.After(reconsiderPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// controls reports whether this incarnation is the controller, as far as it has
// heard: of those who collect one is enough, and two do no harm.
func (i *Incarnation) controls() bool {
	c, ok := i.view.Controller()
	return ok && c.Incarnation == i.session.Incarnation()
}

// firstLeader chooses the first leader of each partition of a new topic: live
// brokers in turn, from one that differs from topic to topic. The controller
// moves it if that turns out uneven.
func (i *Incarnation) firstLeader() func(partition int32) metadata.Incarnation {
	return func(partition int32) metadata.Incarnation {
		var able []metadata.Incarnation
		for _, b := range i.view.Brokers() {
			if !b.Draining {
				able = append(able, b.Incarnation)
			}
		}
		if len(able) == 0 {
			return 0 // the controller will choose
		}
		first := int(i.topics.Load())
		if partition == 0 {
			first = int(i.topics.Add(1))
		}
		return able[(first+int(partition))%len(able)]
	}
}

// endOlderSessions frees at once what a process that was killed held: the data
// directory is locked, so every older incarnation is known to be dead.
func endOlderSessions(ctx context.Context, kv metadata.KV) error {
	entries, _, err := kv.Range(ctx, metadata.PrefixBrokers)
	if err != nil {
		return fmt.Errorf("find older sessions: %w", err)
	}
	for _, e := range entries {
		if e.Lease == 0 {
			continue
		}
		if err := kv.Revoke(ctx, e.Lease); err != nil {
			return fmt.Errorf("end older session: %w", err)
		}
	}
	return nil
}

func register(ctx context.Context, cfg *Config) (*metadata.Session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.RegisterTimeout, errors.New("etcd took too long to register the broker"))
	defer cancel()
	return metadata.Register(ctx, cfg.KV, metadata.SessionConfig{
		Generation: cfg.Identity.Generation, Log: cfg.Logger, Broker: cfg.Broker,
	})
}
