package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// Config is what a broker runs on and how. What it names outlives every
// incarnation and is the caller's to close.
type Config struct {
	Store    object.Store
	KV       metadata.KV
	Cache    tiering.Cache // nil: none
	Identity metadata.Identity
	Cluster  wal.ClusterID

	// Broker is what is registered of this broker: addresses, rack, version.
	Broker metadata.Broker
	// Single: this is the only broker there can be (embedded mode).
	Single bool
	// Listen opens the listeners of one incarnation; peers is nil if Single.
	Listen func() (clients, peers net.Listener, err error)
	// DialPeer connects to another broker, to its peer listener or to that for
	// clients; nil means TCP.
	DialPeer func(ctx context.Context, addr string) (net.Conn, error)

	FlushSpacing    time.Duration // 0: as short as possible
	FlushBudget     int           // time-triggered flushes a second; 0: unlimited
	MemoryTailBytes int64         // 0: tiering's default
	Tiering         Tiering

	AutoCreateTopics           bool
	DefaultPartitions          int32
	GroupInitialRebalanceDelay time.Duration
	// Consumer and OffsetsRetention are for the coordinator; zero fields are
	// its defaults.
	Consumer         consumer.Config
	OffsetsRetention time.Duration
	// TransactionTimeoutMax and TransactionalIDExpiration are as well.
	TransactionTimeoutMax     time.Duration
	TransactionalIDExpiration time.Duration
	// OffsetsTopicInterval is how long a commit may wait to be copied into
	// __consumer_offsets; 0: it is not.
	OffsetsTopicInterval time.Duration

	// RegisterTimeout bounds a registration (12 s).
	RegisterTimeout time.Duration
	// DrainTimeout bounds the handing over at the end (4 s).
	DrainTimeout time.Duration

	// Clock measures time that also passes while the machine is suspended; nil
	// means the machine's.
	Clock  func() time.Duration
	Logger *slog.Logger
	Tracer trace.Tracer

	// Attach, if set, is called with each incarnation before it runs, and with
	// nil after it ended.
	Attach func(*Incarnation)
	// Ready, if set, is called each time clients may connect.
	Ready func()

	// What notices that the metadata store was put back in time.
	forward *forward
	witness *witness
}

// Tiering says how write-ahead objects become segments, when partitions' state is
// written down, and when what nobody needs is deleted; zero values mean the
// defaults of package tiering.
type Tiering struct {
	Interval, Age                 time.Duration
	Bytes                         int64
	SegmentBytes, SegmentBytesMax int64
	CollectInterval               time.Duration
	SweepInterval, SweepAge       time.Duration
	BlockBytes                    int
	CheckpointInterval            time.Duration
	CheckpointSlots               uint64
	AbandonedAge                  time.Duration
	DeleteGrace                   time.Duration
	RetentionInterval             time.Duration
}

const (
	defaultRegisterTimeout = 12 * time.Second
	defaultDrainTimeout    = 4 * time.Second
)

func (c *Config) ensureDefaults() {
	if c.RegisterTimeout == 0 {
		c.RegisterTimeout = defaultRegisterTimeout
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = defaultDrainTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Tracer == nil {
		c.Tracer = noop.NewTracerProvider().Tracer("")
	}
	if c.Attach == nil {
		c.Attach = func(*Incarnation) {}
	}
	if c.Ready == nil {
		c.Ready = func() {}
	}
	if c.forward == nil {
		c.forward = newForward(c.KV)
		c.KV = c.forward
		c.witness = &witness{store: c.Store, kv: c.KV, cluster: c.Identity.ClusterID}
	}
}

func (c *Config) validate() error {
	switch {
	case c.Store == nil || c.forward.KV == nil:
		return errors.New("node: bucket and metadata store are both needed")
	case c.Listen == nil:
		return errors.New("node: no listeners")
	case c.Identity.Generation == 0:
		return errors.New("node: no identity of the cluster")
	}
	return nil
}
