// Package metadata is the state of the cluster in our own words: who lives, who
// leads what, which topics exist. It lies in etcd, below /tidemark/<cluster>/.
//
// Vocabulary: an entry is a key with its value and revisions; a lease is etcd's,
// a session is a broker's registration that hangs on one; an incarnation is one
// run of one broker; a guard is a condition of a transaction on the revision a
// key was last modified at.
//
// KV is the store. Its implementations are etcd (a real server), embedded (the
// same server, in this process) and mem; metatest holds the suite all of them
// pass. Everything else here is built on KV alone:
//
//   - View is a copy of what every broker needs to know, kept by list and watch.
//     It is a hint: whatever must be right is read again inside a transaction.
//   - Session registers an incarnation and keeps it registered.
//   - EnsureIdentity ties the store to a bucket.
//   - CreateTopic and its neighbours are what administrators ask for.
//   - ClaimPartitions, TrimOwners, SetPreferred, UpdateChain and RecordEnd are
//     the steps of leadership, each a guarded transaction.
//
// A write that was answered with ErrUnavailable may have been applied, or be
// applied later. The functions of this package find out by reading again, and
// guard every write so that a late one does no harm; they return ErrUnavailable
// only when their context ended before they knew. Where a context carries no
// deadline they give up after OpTimeout.
package metadata
