// Package tiering keeps partitions' logs over objects: it batches what
// producers append, uploads it as one object for all partitions of the broker,
// commits in slot order, reads, recovers, and moves leadership.
//
// Vocabulary: a Log is one incarnation's chain and the partitions it leads; a
// flush is one object on its way into a slot; a slot is durable when the bucket
// has it and committed when every earlier slot is durable too. A partition's
// manifest says where its committed batches lie.
//
// # Who calls what
//
// The Kafka surface calls Admit, Partition, Append, Read and the other methods
// of Partition. The cluster code calls Lead, Release, Seal and Close. Run owns
// every goroutine of the package and waits for them.
//
// # Locks
//
// Log.partsMu, then Partition.mu, then Log.mu, then admission.mu. None is held
// across I/O.
//
// # What a nil error promises
//
// Appended.Err returning nil: the batch is in the bucket at its final offset,
// and so is everything before it in this chain; no failure of a broker, a disk
// or the metadata store undoes that. ErrFenced means that the fate is unknown:
// the batch may or may not be in the log.
package tiering
