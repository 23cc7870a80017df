// Package tiering keeps partitions' logs over objects: it batches what
// producers append, uploads it as one object for all partitions of the broker,
// commits in slot order, reads, recovers, and moves leadership.
//
// Vocabulary: a Log is one incarnation's chain and the partitions it leads; a
// flush is one object on its way into a slot; a slot is durable when the bucket
// has it and committed when every earlier slot is durable too. A partition's
// manifest says where its committed batches lie: in segments up to some offset,
// in extents of write-ahead objects from there on.
//
// # From write-ahead objects to segments, and to nothing
//
// The tiering loop lays extents out as segments, uploads them, and commits an ADD
// in the leader's chain, which publishes them: what a deposed leader uploads is
// never named. An extent that is not tiered holds its slot: for the leader, by the
// newest durable checkpoint; for one that released the partition, until the owner
// list has its entry no longer; for an heir, by a debt in the metadata store that
// is written before that entry goes. The slots of a chain below all of these are
// trimmed: TRIM is committed in the chain, published, obeyed. Of a sealed chain
// whoever collects does the same, once no owner list has an entry of it. Sweeps
// find what failures leave behind. test/model enumerates all of this.
//
// # How records leave
//
// A LOGSTART, committed in the leader's chain, lets a log begin later: by
// retention, which is looked at when the oldest piece may go (policy.go, retain.go),
// or because a client said so (logstart.go). Objects that manifests name no more
// are deleted after a grace (graves.go).
//
// # Who calls what
//
// The Kafka surface calls Admit, Partition, Append, Read and the other methods
// of Partition. The cluster code calls Lead, Release, Seal and Close. Run owns
// every goroutine of the package and waits for them: those that flush, commit,
// checkpoint, tier, retain, collect, delete and sweep.
//
// # Locks
//
// Log.partsMu, then Partition.mu, then Log.mu, then admission.mu; the others guard
// one thing each and nothing is called under them. None is held across I/O. The
// turns (Log.checkpointing, Partition.editing) are.
//
// # What a nil error promises
//
// Appended.Err returning nil: the batch is in the bucket at its final offset,
// and so is everything before it in this chain; no failure of a broker, a disk
// or the metadata store undoes that. ErrFenced means that the fate is unknown:
// the batch may or may not be in the log.
package tiering
