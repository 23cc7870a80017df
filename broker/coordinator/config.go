package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/metadata"
)

// View is what the coordinator needs of the local copy of the cluster's state.
type View interface {
	// Coordinator tells who coordinates the shard, and the revision of that.
	Coordinator(shard int) (c metadata.Coordinator, modRevision int64, ok bool)
	// Subscribe delivers at least one value after any change.
	Subscribe() (ch <-chan struct{}, cancel func())
	// Topic and TopicByID return topics that the caller does not modify.
	Topic(name string) (*metadata.Topic, bool)
	TopicByID(id metadata.TopicID) (*metadata.Topic, bool)
	// Topics returns all topics by name, the same slice until one changes.
	Topics() []*metadata.Topic
	Broker(i metadata.Incarnation) (metadata.Broker, bool)
	Partition(tp metadata.TopicPartition) (*metadata.Partition, bool)
	// Config returns the dynamic configs of a resource.
	Config(kind, name string) map[string]string
	// WaitRevision returns once the view has everything up to rev.
	WaitRevision(ctx context.Context, rev int64) error
}

// ProducerIDs hands out producer ids that nobody else gets.
type ProducerIDs interface {
	Get(ctx context.Context) (int64, error)
}

// Config is what a Coordinator is made of. Zero limits take their defaults.
type Config struct {
	// Incarnation is this broker's: the shards whose key names it are ours.
	Incarnation metadata.Incarnation
	KV          metadata.KV
	View        View
	Logger      *slog.Logger
	Registerer  prometheus.Registerer

	// Group holds the limits of classic groups and members, Consumer those of
	// the new protocol.
	Group    group.Config
	Consumer consumer.Config
	// GroupsPerShardMax bounds the groups of one shard, so that joins with
	// ever new ids cannot fill memory.
	GroupsPerShardMax int

	// Peers and ProducerIDs are for transactions. Without them there are none.
	Peers       Peers
	ProducerIDs ProducerIDs
	// TransactionTimeoutMax bounds what producers may ask for
	// (transaction.max.timeout.ms).
	TransactionTimeoutMax time.Duration
	// TransactionalIDExpiration is how long a transactional id is remembered that
	// nobody uses (transactional.id.expiration.ms).
	TransactionalIDExpiration time.Duration
	// TxnsPerShardMax bounds the transactional ids of one shard.
	TxnsPerShardMax int

	// OffsetsLog, when not nil, is given a copy of what is committed, at most
	// MirrorInterval later: a commit that waits is copied with those that come
	// after it. MirrorRefresh is how often everything is copied once more; the
	// topic must keep its records for twice as long.
	OffsetsLog     OffsetsLog
	MirrorInterval time.Duration
	MirrorRefresh  time.Duration

	// OffsetMetadataMax is the longest text that may go with an offset, in
	// UTF-16 units as Kafka counts (offset.metadata.max.bytes).
	OffsetMetadataMax int
	// OffsetsRetention is how long offsets outlive their group's last member
	// (offsets.retention.minutes). OffsetsRetentionCheck is how often expired
	// ones are looked for, in memory.
	OffsetsRetention      time.Duration
	OffsetsRetentionCheck time.Duration
	// Gather is how long a commit waits for company: it is what a commit pays
	// at most so that many share one transaction. Negative is not at all.
	Gather time.Duration
	// WriteTimeout bounds how long a write is tried before its fate is called
	// unknown (offsets.commit.timeout.ms); AttemptTimeout bounds one try.
	WriteTimeout   time.Duration
	AttemptTimeout time.Duration
}

// Fixed bounds.
const (
	// commitsInFlight transactions of offsets and groupWritesInFlight groups
	// are written at a time: enough to cover a round trip, few enough to
	// leave the store to others.
	commitsInFlight     = 4
	groupWritesInFlight = 8
	// queuedCommitsMax and queuedBytesMax bound what waits to be committed.
	queuedCommitsMax = 16 << 10
	queuedBytesMax   = 32 << 20
	// idBytesMax is the longest string that every version of the protocol can
	// carry.
	idBytesMax = 32767
	// nameBytesMax is how much of a client id goes into member ids.
	nameBytesMax = 1024
)

func (c *Config) ensureDefaults() {
	c.Group.EnsureDefaults()
	if c.Consumer.ClassicMembersMax == 0 {
		c.Consumer.ClassicMembersMax = c.Group.MembersMax
	}
	c.Consumer.EnsureDefaults()
	orDefault(&c.GroupsPerShardMax, 20_000)
	orDefault(&c.TxnsPerShardMax, 20_000)
	orDefault(&c.TransactionTimeoutMax, 15*time.Minute)
	orDefault(&c.TransactionalIDExpiration, 7*24*time.Hour)
	orDefault(&c.MirrorInterval, time.Second)
	orDefault(&c.MirrorRefresh, 6*time.Hour)
	orDefault(&c.OffsetMetadataMax, 4096)
	orDefault(&c.OffsetsRetention, 7*24*time.Hour)
	orDefault(&c.OffsetsRetentionCheck, 10*time.Minute)
	orDefault(&c.Gather, 5*time.Millisecond)
	orDefault(&c.WriteTimeout, 5*time.Second)
	orDefault(&c.AttemptTimeout, 2*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
}

func orDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func (c *Config) validate() error {
	errs := []error{c.Group.Validate(), c.Consumer.Validate()}
	if c.KV == nil || c.View == nil || c.Incarnation == 0 {
		errs = append(errs, errors.New("a coordinator needs a store, a view and an incarnation"))
	}
	if (c.Peers == nil) != (c.ProducerIDs == nil) {
		errs = append(errs, errors.New("transactions need both peers and producer ids"))
	}
	if c.TransactionTimeoutMax < 0 || c.TransactionalIDExpiration < 0 {
		errs = append(errs, fmt.Errorf("transaction timeout limit %s and transactional id expiration %s must not be negative", c.TransactionTimeoutMax, c.TransactionalIDExpiration))
	}
	if c.OffsetMetadataMax < 0 || c.OffsetMetadataMax > 64<<10 {
		errs = append(errs, fmt.Errorf("offset metadata limit %d is not within 0 and 65536", c.OffsetMetadataMax))
	}
	if c.OffsetsRetention < 0 || c.OffsetsRetentionCheck < 0 {
		errs = append(errs, fmt.Errorf("offset retention %s and its check interval %s must not be negative", c.OffsetsRetention, c.OffsetsRetentionCheck))
	}
	if c.WriteTimeout < 0 || c.AttemptTimeout < 0 || c.AttemptTimeout > c.WriteTimeout {
		errs = append(errs, fmt.Errorf("write attempt timeout %s must not be above the write timeout %s", c.AttemptTimeout, c.WriteTimeout))
	}
	return errors.Join(errs...)
}

// Attribute keys of this package's logs.
const (
	logShard    = "shard"
	logGroup    = "group"
	logRevision = "revision"
	logError    = "error"
	logGroups   = "groups"
	logTxn      = "transactional_id"
	logTxns     = "transactional_ids"
	logProducer = "producer_id"
	logKey      = "key"
	logTook     = "took"
	logReason   = "reason"
	logMember   = "member"
)
