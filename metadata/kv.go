package metadata

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrUnavailable: the request was not answered in time, or the cluster has
	// no leader. A write may or may not have been applied, now or later; the
	// caller re-reads before it decides.
	ErrUnavailable = errors.New("metadata store unavailable")
	// ErrCompacted is how a Watch ends when the revision it was asked to go on
	// from is gone: the watcher lists again.
	ErrCompacted = errors.New("metadata revision compacted")
	// ErrLeaseNotFound: the lease has expired or was revoked.
	ErrLeaseNotFound = errors.New("lease not found")
	// ErrNoSpace: the store is over its quota and takes no writes.
	ErrNoSpace = errors.New("metadata store is out of space")
	// ErrTooLarge: the transaction is over the limits below.
	ErrTooLarge = errors.New("metadata transaction too large")
)

// Limits every transaction keeps by construction (etcd's defaults are 128
// operations and 1.5 MiB a request).
const (
	MaxTxnOps   = 120
	MaxTxnBytes = 512 << 10
)

// LeaseID names a lease; zero is none.
type LeaseID int64

// Entry is one key as it was at a revision. An absent key has ModRevision 0.
type Entry struct {
	Key            string
	Value          []byte
	CreateRevision int64
	ModRevision    int64
	Lease          LeaseID
}

// Exists reports whether the key was present.
func (e Entry) Exists() bool { return e.ModRevision != 0 }

// Cond is a guard of a transaction: key was last modified at exactly
// ModRevision; 0 means that it does not exist.
type Cond struct {
	Key         string
	ModRevision int64
}

// Op is one write. Delete removes Key, or every key beginning with Key when
// Prefix is set. Otherwise Key is set to Value and attached to Lease (0: none).
type Op struct {
	Delete bool
	Prefix bool
	Key    string
	Value  []byte
	Lease  LeaseID
}

// Put and Delete build operations.
func Put(key string, value []byte) Op { return Op{Key: key, Value: value} }

// PutLeased is Put under a lease.
func PutLeased(key string, value []byte, l LeaseID) Op {
	return Op{Key: key, Value: value, Lease: l}
}

// Delete removes one key.
func Delete(key string) Op { return Op{Delete: true, Key: key} }

// DeletePrefix removes every key beginning with prefix.
func DeletePrefix(prefix string) Op { return Op{Delete: true, Prefix: true, Key: prefix} }

// Txn is applied whole, or not at all, at one revision: when every condition
// holds, Then is applied; otherwise nothing is written and Else is read.
type Txn struct {
	If   []Cond
	Then []Op
	// Else names keys to read when a condition fails.
	Else []string
}

// TxnResult tells what became of a transaction.
type TxnResult struct {
	Succeeded bool
	// Revision of the store after the transaction: of the write itself when it
	// succeeded and wrote.
	Revision int64
	// Else holds the entries of Txn.Else, in order, when it did not succeed.
	Else []Entry
}

// Event is one change of one key. A deletion has Entry.Value nil and
// Deleted set; its ModRevision is the revision of the deletion.
type Event struct {
	Entry   Entry
	Deleted bool
}

// Events is what a watch delivers: all changes of one or more whole revisions,
// in order. One without Events and Err is progress: every change up to Revision
// has been delivered. Err is set on the last one only, after which the channel
// closes: ErrCompacted, ErrUnavailable, or the context's error (which is left
// out when nobody is receiving).
type Events struct {
	Revision int64
	Events   []Event
	Err      error
}

// KV is the cluster's metadata store: etcd, in words small enough that a real
// one, an embedded one and one in memory all keep the same contract. Keys are
// relative to the cluster's root. Reads are linearizable. Implementations are
// safe for concurrent use and retry nothing that writes.
//
// An error other than those above is definite: nothing was written.
type KV interface {
	// Get reads the keys at one revision, in order; absent keys have
	// ModRevision 0. It returns that revision.
	Get(ctx context.Context, keys ...string) ([]Entry, int64, error)
	// Range reads every key beginning with prefix, in key order, all at one
	// revision, which it returns. It pages internally.
	Range(ctx context.Context, prefix string) ([]Entry, int64, error)
	// Txn applies t atomically. It returns ErrTooLarge before sending anything
	// over MaxTxnOps or MaxTxnBytes. Attaching a key to a lease that is gone
	// is ErrLeaseNotFound and writes nothing.
	Txn(ctx context.Context, t Txn) (TxnResult, error)
	// Watch delivers every change of keys beginning with prefix from revision
	// from on, until ctx is done. A watch is a hint: decisions re-read. A
	// receiver that falls too far behind is told ErrCompacted.
	Watch(ctx context.Context, prefix string, from int64) <-chan Events
	// Progress asks that the open watches of this handle soon deliver an Events
	// with the revision they have reached, also where nothing they watch
	// changed. Nil means asked, not answered.
	Progress(ctx context.Context) error
	// Grant creates a lease that lapses ttl after its last renewal.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)
	// Renew extends a lease once and returns its remaining time, or
	// ErrLeaseNotFound.
	Renew(ctx context.Context, id LeaseID) (time.Duration, error)
	// Revoke ends a lease and deletes its keys. A missing lease is success.
	Revoke(ctx context.Context, id LeaseID) error
	// Close releases the connection.
	Close() error
}

// Compactor is an extra ability of a store: it forgets history before rev, after
// which a Watch from an earlier revision ends with ErrCompacted. A revision that
// is compacted already is success.
type Compactor interface {
	Compact(ctx context.Context, rev int64) error
}
