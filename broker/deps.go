package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/coordinator"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/batch"
)

// Log is what the Kafka surface needs of the log of this incarnation. Its
// errors are those of package tiering.
type Log interface {
	// Admit waits for room for bytes of records that are not committed yet.
	// The caller releases what it was given once it has appended.
	Admit(ctx context.Context, bytes int) (release func(), err error)
	// Partition returns a partition that this incarnation leads, or
	// tiering.ErrNotLeader.
	Partition(tp metadata.TopicPartition) (Partition, error)
	// Await is Partition, but waits until ctx ends for a partition that this
	// incarnation is about to lead.
	Await(ctx context.Context, tp metadata.TopicPartition) (Partition, error)
	// Check returns nil when this incarnation is known not to have been sealed
	// by a check begun at most maxAge ago; with 0, begun after the call. It is
	// the authority for answers that a deposed leader would get wrong.
	Check(ctx context.Context, maxAge time.Duration) error
}

// Partition is a partition that this incarnation leads. Every method may
// return tiering.ErrNotLeader or tiering.ErrFenced once it does not any more.
type Partition interface {
	LeaderEpoch() int32
	// Append gives one validated batch its offset. The batch becomes the
	// log's, which changes its header in place. now, in milliseconds, is
	// stamped on it when stamp is set (message.timestamp.type=LogAppendTime).
	// It does not wait for I/O: batches appended one after the other are
	// committed in that order. An error means that nothing was appended.
	Append(records []byte, h batch.Header, now int64, stamp bool) (Appended, error)
	// AppendTxn is Append with a guard, or nil.
	AppendTxn(records []byte, h batch.Header, now int64, stamp bool, guard *tiering.TxnGuard) (Appended, error)
	// GuardTxn returns the guard that the next batch of a producer's transaction
	// has to be appended with once the coordinator, asked from now on, has
	// confirmed that the partition is part of it; nil when it has before. bumps:
	// the transaction is one of version 2. The caller gives it back by UnguardTxn.
	GuardTxn(producerID int64, epoch int16, bumps bool) (*tiering.TxnGuard, error)
	UnguardTxn(g *tiering.TxnGuard)
	// AppendMarker ends a producer's transaction. It does not wait either.
	AppendMarker(m tiering.TxnMarker, now int64, stamp bool) (Appended, error)
	// Producers returns the committed state of the producers, by id.
	Producers() []tiering.ProducerState
	Offsets() tiering.Offsets
	// Read returns whole batches from the one that holds offset: at least one
	// when offset is below the high watermark, none at the high watermark, and
	// tiering.ErrOffsetOutOfRange outside of [log start, high watermark].
	Read(ctx context.Context, offset int64, maxBytes int) (*tiering.ReadResult, error)
	// ReadCommitted is Read up to the last stable offset, from which on it returns
	// nothing, and tells which transactions in what it returns were aborted.
	ReadCommitted(ctx context.Context, offset int64, maxBytes int) (*tiering.ReadResult, error)
	// Subscribe has ch sent to, without blocking, whenever the high watermark
	// or the leadership changes.
	Subscribe(ch chan<- struct{}) (cancel func())
	// Available estimates the bytes from offset to the high watermark, counting
	// no further than limit.
	Available(offset, limit int64) int64
	// AvailableCommitted is Available up to the last stable offset.
	AvailableCommitted(offset, limit int64) int64
	// Behind reports whether what is at offset has left memory.
	Behind(offset int64) bool
	// EpochEnd returns the largest leader epoch <= epoch and the offset where
	// it ended; -1, -1 when there is none.
	EpochEnd(epoch int32) tiering.EpochEnd
	// EpochOf is the leader epoch that a committed offset was written under.
	EpochOf(offset int64) int32
	// OffsetForTimestamp finds the first record at or after a time, and
	// MaxTimestamp the first one that has the largest. Offset -1: none.
	OffsetForTimestamp(ctx context.Context, millis int64) (tiering.TimestampOffset, error)
	MaxTimestamp(ctx context.Context) (tiering.TimestampOffset, error)
	// DeleteRecords has the log begin at offset, tiering.HighWatermark for the high
	// watermark, and returns where it begins once that is committed;
	// tiering.ErrOffsetOutOfRange above the high watermark.
	DeleteRecords(ctx context.Context, offset int64) (low int64, err error)
}

// Appended is a batch that has its offset.
type Appended struct {
	BaseOffset    int64
	LogAppendTime int64 // milliseconds, -1 under CreateTime
	LogStart      int64
	// Duplicate: the batch was in the log already, at BaseOffset.
	Duplicate bool
	// Commit tells the batch's fate.
	Commit Commit
}

// Commit is the fate of an append.
type Commit interface {
	// Done closes when the outcome is known.
	Done() <-chan struct{}
	// Err, once Done is closed, is nil when the batch is committed.
	Err() error
}

// View is a local, possibly stale copy of the cluster's metadata. What it
// returns is immutable.
type View interface {
	Brokers() []metadata.Broker
	Broker(i metadata.Incarnation) (metadata.Broker, bool)
	Controller() (metadata.Controller, bool)
	Topic(name string) (*metadata.Topic, bool)
	TopicByID(id metadata.TopicID) (*metadata.Topic, bool)
	Topics() []*metadata.Topic
	Partition(tp metadata.TopicPartition) (*metadata.Partition, bool)
	Coordinator(shard int) (c metadata.Coordinator, modRevision int64, ok bool)
	Config(kind, name string) map[string]string
	// Subscribe delivers at least one value after any change.
	Subscribe() (ch <-chan struct{}, cancel func())
	// WaitRevision returns once the view shows what was written at rev.
	WaitRevision(ctx context.Context, rev int64) error
}

// Admin changes the cluster's metadata. The revisions it returns are for
// View.WaitRevision. Its errors are those of package metadata.
type Admin interface {
	// CreateTopic fills in the topic's id and time of creation;
	// metadata.ErrTopicExists when the name is taken.
	CreateTopic(ctx context.Context, spec metadata.TopicSpec) (*metadata.Topic, int64, error)
	// DeleteTopic and the methods after it return metadata.ErrUnknownTopic
	// when there is no such topic.
	DeleteTopic(ctx context.Context, id metadata.TopicID) (int64, error)
	CreatePartitions(ctx context.Context, id metadata.TopicID, total int32) (int64, error)
	// AlterTopicConfigs changes a topic's explicit configs. change gets a copy
	// to modify and may run several times; its error ends the call.
	AlterTopicConfigs(ctx context.Context, id metadata.TopicID, change func(configs map[string]string) error) (int64, error)
	// AlterConfigs does the same for configs of another kind.
	AlterConfigs(ctx context.Context, kind, name string, change func(configs map[string]string) error) (int64, error)
	// AllocateProducerIDs reserves a block of n ids, never handed out again,
	// and returns its first.
	AllocateProducerIDs(ctx context.Context, n int64) (int64, error)
}

// GroupCoordinator serves the group APIs: one method an API. The methods see
// to errors themselves and always return a response; they may block until ctx
// is done. The caller sets the response's version.
type GroupCoordinator interface {
	// Coordinator returns the broker that serves a group.
	Coordinator(group string) (metadata.Broker, error)

	OffsetCommit(ctx context.Context, c ClientInfo, req *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse
	OffsetFetch(ctx context.Context, c ClientInfo, req *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse
	JoinGroup(ctx context.Context, c ClientInfo, req *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse
	Heartbeat(ctx context.Context, c ClientInfo, req *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse
	LeaveGroup(ctx context.Context, c ClientInfo, req *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse
	SyncGroup(ctx context.Context, c ClientInfo, req *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse
	DescribeGroups(ctx context.Context, c ClientInfo, req *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse
	ListGroups(ctx context.Context, c ClientInfo, req *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse
	DeleteGroups(ctx context.Context, c ClientInfo, req *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse
	OffsetDelete(ctx context.Context, c ClientInfo, req *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse
	ConsumerGroupHeartbeat(ctx context.Context, c ClientInfo, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse
	ConsumerGroupDescribe(ctx context.Context, c ClientInfo, req *kmsg.ConsumerGroupDescribeRequest) *kmsg.ConsumerGroupDescribeResponse
}

// TransactionCoordinator serves the transaction APIs in the same manner.
type TransactionCoordinator interface {
	// TxnCoordinator returns the broker that serves a transactional id.
	TxnCoordinator(transactionalID string) (metadata.Broker, error)
	// AskTxn asks the coordinator of a transaction, whichever broker that is.
	AskTxn(ctx context.Context, q coordinator.TxnQuestion) ([]int16, error)
	// EndOffsets has a marker take effect in a partition of __consumer_offsets.
	EndOffsets(partition int, m coordinator.OffsetsMarker) *coordinator.Fate

	InitProducerID(ctx context.Context, c ClientInfo, req *kmsg.InitProducerIDRequest) *kmsg.InitProducerIDResponse
	AddPartitionsToTxn(ctx context.Context, c ClientInfo, req *kmsg.AddPartitionsToTxnRequest) *kmsg.AddPartitionsToTxnResponse
	AddOffsetsToTxn(ctx context.Context, c ClientInfo, req *kmsg.AddOffsetsToTxnRequest) *kmsg.AddOffsetsToTxnResponse
	EndTxn(ctx context.Context, c ClientInfo, req *kmsg.EndTxnRequest) *kmsg.EndTxnResponse
	TxnOffsetCommit(ctx context.Context, c ClientInfo, req *kmsg.TxnOffsetCommitRequest) *kmsg.TxnOffsetCommitResponse
	DescribeTransactions(ctx context.Context, c ClientInfo, req *kmsg.DescribeTransactionsRequest) *kmsg.DescribeTransactionsResponse
	ListTransactions(ctx context.Context, c ClientInfo, req *kmsg.ListTransactionsRequest) *kmsg.ListTransactionsResponse
}

// ClientInfo is who sent a request.
type ClientInfo = coordinator.ClientInfo

var (
	_ View                   = (*metadata.View)(nil)
	_ GroupCoordinator       = (*coordinator.Coordinator)(nil)
	_ TransactionCoordinator = (*coordinator.Coordinator)(nil)
)
