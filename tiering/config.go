package tiering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sys/unix"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// Chains is what the log keeps outside the bucket: one small value a chain.
type Chains interface {
	// Load reads the chain of inc, linearizably.
	Load(ctx context.Context, inc metadata.Incarnation) (metadata.Chain, error)
	// Checkpointed records slot as the newest durable checkpoint of inc. It
	// never lowers it. ErrFenced when the chain's end is recorded.
	Checkpointed(ctx context.Context, inc metadata.Incarnation, slot uint64) error
	// RecordEnd records end unless an end is recorded, ends the session of inc,
	// and returns the end that stands.
	RecordEnd(ctx context.Context, inc metadata.Incarnation, end uint64) (uint64, error)
	// Trimmed publishes that nobody needs the slots of inc below slot, and that
	// those below deleted are gone. It lowers neither. ErrFenced when the chain's
	// end is recorded.
	Trimmed(ctx context.Context, inc metadata.Incarnation, slot, deleted uint64) error
	// Owe writes the lowest slot of the chain of that a manifest of heir's lies in,
	// nil when none does. ErrFenced when the end of heir's chain is recorded.
	Owe(ctx context.Context, heir, of metadata.Incarnation, slot *uint64) error
	// LowestDebt returns the lowest slot of inc that any heir owes, as it is at some
	// moment after the call; false when none owes any.
	LowestDebt(ctx context.Context, inc metadata.Incarnation) (slot uint64, any bool, err error)
	// Collect raises the marks of sealed chains that nobody needs to recover any
	// more, and returns what may be deleted of them. A chain keeps the newest keep
	// slots below its end.
	Collect(ctx context.Context, keep uint64) ([]metadata.SealedChain, error)
	// Abandoned returns the chains that have no end and whose broker is not
	// registered.
	Abandoned(ctx context.Context) ([]metadata.Incarnation, error)
	// Collected notes that everything of a sealed chain below slot is deleted and,
	// with all, that nothing more ever will be.
	Collected(ctx context.Context, inc metadata.Incarnation, slot uint64, all bool) error
	// Owners returns the owner lists of all partitions as they are at one moment
	// after the call.
	Owners(ctx context.Context) (map[metadata.TopicPartition][]metadata.Owner, error)
}

// Peers is how a successor asks a live predecessor to give partitions up. Any
// error, a missed deadline included, leads to the predecessor being sealed.
type Peers interface {
	AskRelease(ctx context.Context, from metadata.Incarnation, claims []Claim) ([]Released, error)
}

// Claim names a partition and the epoch of one entry of its owner list.
type Claim struct {
	Partition metadata.TopicPartition
	Epoch     int32
}

// Released tells in which slot of the releasing chain a RELEASE was committed.
type Released struct {
	Claim
	Slot uint64
}

// Cache holds chunks of immutable objects.
type Cache interface {
	// Chunk returns chunk index (ChunkLen bytes, fewer at the object's end) of
	// the object at key, calling load on a miss, which takes turns with others by
	// the flow of ctx (see package flow). The bytes are read-only and
	// valid until release.
	Chunk(ctx context.Context, key string, index int64, load func(context.Context) ([]byte, error)) (b []byte, release func(), err error)
	// Prefetch starts loading a chunk that a reader will want; it may do nothing.
	// The end of ctx does not end it.
	Prefetch(ctx context.Context, key string, index int64, load func(context.Context) ([]byte, error))
	// Drop forgets a chunk whose bytes turned out to be damaged.
	Drop(key string, index int64)
}

// ChunkLen is the unit of caching and of ranged reads.
const ChunkLen = 4 << 20

// Config is what Open needs. Zero values of the settings below Peers mean the
// defaults given.
type Config struct {
	Incarnation metadata.Incarnation
	Cluster     wal.ClusterID
	Store       object.Store
	Chains      Chains
	Peers       Peers
	Cache       Cache // nil: none

	// FlushSpacing is the least time between two flushes that are not full
	// (25 ms): longer costs latency, shorter costs requests.
	FlushSpacing time.Duration
	// FlushBudget is how many flushes a second may start because time passed
	// rather than because the buffer was full; 0 is no limit.
	FlushBudget float64
	// FlushBytes is a full buffer (4 MiB), FlushBytesMax what one object may
	// grow to while the store is behind (16 MiB).
	FlushBytes, FlushBytesMax int
	// UnflushedBytesMax bounds appended but uncommitted bytes (256 MiB): beyond
	// it, producers' connections are not read.
	UnflushedBytesMax int64
	// TailBytes bounds recent objects kept in memory for readers (256 MiB).
	TailBytes int64
	// ExtentCacheBytes bounds verified extents kept in memory for readers of
	// older data (64 MiB).
	ExtentCacheBytes int64
	// PutTimeout bounds one attempt of a PUT (10 s).
	PutTimeout time.Duration
	// CheckpointInterval (30 s) and CheckpointSlots (256): a checkpoint is
	// written when either has passed since the last and the chain has moved.
	CheckpointInterval time.Duration
	CheckpointSlots    uint64
	// ReleaseTimeout is how long a predecessor may take to give partitions up
	// before its chain is sealed (2 s).
	ReleaseTimeout time.Duration
	// ProducerExpiration forgets idempotent producers idle for longer (24 h;
	// Kafka's producer.id.expiration.ms).
	ProducerExpiration time.Duration

	// TierInterval (10 s) is how often partitions are looked at that hold something
	// in write-ahead objects. One with SegmentBytes (32 MiB) of it gets a segment of
	// its own. When something has waited for TierAge (10 min), or all together are
	// TierBytes (4 GiB), the rest goes into segments that partitions share. No
	// segment is larger than SegmentBytesMax (128 MiB), which also bounds the memory
	// that tiering takes. Longer costs recovery and disk cache, shorter costs more,
	// smaller objects.
	TierInterval, TierAge         time.Duration
	TierBytes                     int64
	SegmentBytes, SegmentBytesMax int64
	// BlockBytes is how much of a segment is read at least (1 MiB).
	BlockBytes int
	// CollectInterval (1 min) is how often a broker with something to delete looks
	// whether it may, DeleteRate (500) how many objects a second it deletes then.
	CollectInterval time.Duration
	DeleteRate      int
	// AbandonedAge (10 min) is how long a chain may be seen without an end and
	// without a registered broker before whoever collects seals it. A broker that
	// led nothing when it died is missed by nobody else, and what it owed would stay
	// for ever.
	AbandonedAge time.Duration
	// SweepInterval (6 h) is how often objects are listed that failures left
	// behind, SweepAge (24 h) the age from which such an object is deleted. It is a
	// courtesy to whoever looks into a failure; nothing rests on it.
	SweepInterval, SweepAge time.Duration
	// DeleteGrace (1 h) is how long objects stay that the log start offset has
	// passed, or whose topic was deleted: whoever reads them still need not begin
	// anew. Nothing rests on it.
	DeleteGrace time.Duration
	// Policy tells what the configs of a topic say about retention; it must not
	// wait for anything. nil: everything is kept. RetentionInterval (1 min) is how
	// often a partition is looked at, at most.
	Policy            func(metadata.TopicID) Policy
	RetentionInterval time.Duration
	// Fresh returns once Policy tells what was so at some moment after the call. A
	// broker that cannot know deletes nothing. nil: Policy always does.
	Fresh func(context.Context) error
	// Collects tells whether this broker deletes what sealed chains leave; one of
	// the cluster at a time is enough. nil: it does.
	Collects func() bool

	// Clock measures time that also passes while the machine is suspended.
	Clock      func() time.Duration
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	Tracer     trace.Tracer
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (c *Config) ensureDefaults() {
	setDefault(&c.FlushSpacing, 25*time.Millisecond)
	setDefault(&c.FlushBytes, 4<<20)
	setDefault(&c.FlushBytesMax, 16<<20)
	setDefault(&c.UnflushedBytesMax, 256<<20)
	setDefault(&c.TailBytes, 256<<20)
	setDefault(&c.ExtentCacheBytes, 64<<20)
	setDefault(&c.PutTimeout, 10*time.Second)
	setDefault(&c.CheckpointInterval, 30*time.Second)
	setDefault(&c.CheckpointSlots, 256)
	setDefault(&c.ReleaseTimeout, 2*time.Second)
	setDefault(&c.ProducerExpiration, 24*time.Hour)
	setDefault(&c.TierInterval, 10*time.Second)
	setDefault(&c.TierAge, 10*time.Minute)
	setDefault(&c.TierBytes, 4<<30)
	setDefault(&c.SegmentBytes, 32<<20)
	setDefault(&c.SegmentBytesMax, 128<<20)
	setDefault(&c.BlockBytes, 1<<20)
	setDefault(&c.CollectInterval, time.Minute)
	setDefault(&c.DeleteRate, 500)
	setDefault(&c.AbandonedAge, 10*time.Minute)
	setDefault(&c.SweepInterval, 6*time.Hour)
	setDefault(&c.SweepAge, 24*time.Hour)
	setDefault(&c.DeleteGrace, time.Hour)
	setDefault(&c.RetentionInterval, time.Minute)
	if c.Fresh == nil {
		c.Fresh = func(context.Context) error { return nil }
	}
	if c.Collects == nil {
		c.Collects = func() bool { return true }
	}
	if c.Clock == nil {
		c.Clock = bootTime
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Tracer == nil {
		c.Tracer = noop.NewTracerProvider().Tracer("")
	}
}

// flushBytesLimit keeps the index of an object full of the smallest batches (68
// bytes, 38 in the index) well below wal.MaxHead.
const flushBytesLimit = 32 << 20

// segmentBytesLimit keeps a segment, which may be a batch larger than it was
// meant to be, below what one request may carry.
const segmentBytesLimit = 512 << 20

func (c *Config) validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(c.Incarnation != 0, "no incarnation")
	need(c.Store != nil, "no object store")
	need(c.Chains != nil, "no chain registry")
	need(c.FlushBytesMax >= c.FlushBytes, "largest object (%d bytes) below the flush size (%d bytes)", c.FlushBytesMax, c.FlushBytes)
	need(c.FlushBytesMax <= flushBytesLimit, "largest object (%d bytes) above %d bytes, whose index is sure to be readable", c.FlushBytesMax, flushBytesLimit)
	need(c.UnflushedBytesMax >= int64(c.FlushBytesMax), "unflushed limit (%d bytes) below the largest object (%d bytes)", c.UnflushedBytesMax, c.FlushBytesMax)
	need(c.SegmentBytesMax >= c.SegmentBytes, "largest segment (%d bytes) below the least of a partition's own (%d bytes)", c.SegmentBytesMax, c.SegmentBytes)
	need(c.SegmentBytesMax <= segmentBytesLimit, "largest segment (%d bytes) above %d bytes", c.SegmentBytesMax, int64(segmentBytesLimit))
	return errors.Join(errs...)
}

// bootTime is CLOCK_BOOTTIME: a machine that was suspended finds its authority
// expired, which Go's monotonic clock would not show.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // the call has no failure mode for a valid clock
	}
	return time.Duration(ts.Nano())
}
