package cluster

import (
	"context"
	"time"

	"github.com/tidemark-io/tidemark/broker/cluster/peer"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// Log is this broker's log, tiering.Log.
type Log interface {
	// Seal ends the chain of another incarnation, records the end and takes its
	// session away. Any broker may, any number of times.
	Seal(ctx context.Context, inc metadata.Incarnation) (end uint64, err error)
	// Lead closes the predecessors of each request, loads what they left and
	// opens the partition. It blocks until each has been opened, which a missing
	// or nil error says, or has failed. A request that was released meanwhile,
	// or is open already, is not opened again.
	Lead(ctx context.Context, requests []tiering.LeadRequest) map[metadata.TopicPartition]error
	// Release stops appends to partitions, whether or not they were ever opened,
	// and returns where the RELEASE of each is committed. A claim released
	// before yields the same answer. It may run beside Lead of the same claims,
	// which then must not open them afterwards.
	Release(ctx context.Context, claims []tiering.Claim) ([]tiering.Released, error)
	// Forget drops what is remembered of released claims. It is called once the
	// partition's owner list has the entry no longer, or the topic is gone.
	Forget(claims []tiering.Claim)
	// Drop stops serving a partition of a deleted topic.
	Drop(tp metadata.TopicPartition)
	// OnCheckpoint sets what is called after each durable checkpoint with the
	// claims it describes. It is called before the log runs.
	OnCheckpoint(f func([]tiering.Claim))
	// BucketFailing reports that writes have been stuck for a while.
	BucketFailing() bool
	// StuckSince returns since when the oldest write has been stuck.
	StuckSince() (time.Time, bool)
	// Close commits what was appended and ends the chain with a CLOSE.
	Close(ctx context.Context) error
	// Done closes when the incarnation is over.
	Done() <-chan struct{}
}

// View is the part of metadata.View that the cluster code reads.
type View interface {
	// WaitReady returns when the view holds a first whole copy.
	WaitReady(ctx context.Context) error
	// WaitRevision returns when the view holds everything up to rev.
	WaitRevision(ctx context.Context, rev int64) error
	// Subscribe returns a channel that yields at least once after any change.
	Subscribe() (<-chan struct{}, func())
	Revision() int64
	Brokers() []metadata.Broker
	Broker(i metadata.Incarnation) (metadata.Broker, bool)
	Controller() (metadata.Controller, bool)
	TopicByID(id metadata.TopicID) (*metadata.Topic, bool)
	PartitionEntry(tp metadata.TopicPartition) (*metadata.Partition, int64, bool)
	Partitions(f func(tp metadata.TopicPartition, p *metadata.Partition) bool)
	Coordinator(shard int) (metadata.Coordinator, int64, bool)
}

// Session is this broker's registration.
type Session interface {
	// Lease is the lease its keys hang on; another one after it was registered
	// again.
	Lease() metadata.LeaseID
	// State tells whether it is known to be valid.
	State() metadata.SessionState
	// Update changes the registration and returns when the change is written.
	Update(ctx context.Context, change func(*metadata.Broker)) error
	// Close ends the registration and frees its keys.
	Close(ctx context.Context) error
}

var (
	_ Log     = (*tiering.Log)(nil)
	_ View    = (*metadata.View)(nil)
	_ Session = (*metadata.Session)(nil)
)

// network is how peers are reached; *peer.Pool is the real one.
type network interface {
	Attend(ctx context.Context, inc metadata.Incarnation, addr string, attended func()) error
	Probe(ctx context.Context, inc metadata.Incarnation, addr string) (peer.Status, error)
	AskRelease(ctx context.Context, inc metadata.Incarnation, addr string, claims []tiering.Claim) ([]tiering.Released, error)
	Forget(inc metadata.Incarnation)
	Close()
}

var _ network = (*peer.Pool)(nil)
