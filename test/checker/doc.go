// Package checker records what clients of a cluster saw and judges whether a log
// may be seen like that.
//
// Vocabulary: a history is a sequence of events, told from any goroutine and
// written as lines of JSON (Event); an operation is invoked and then completed
// ok, fail or info, or never; a value names one record in a whole history, and
// the record's bytes are made from it alone, so that content is checked and not
// only presence; a sight is a record at an offset, in an acknowledgement or a
// poll; a scan is the last read of a whole log, by a fresh consumer, after every
// fault is healed.
//
// A test tells its history through Producer, Consumer, Scanner, ListOffsets,
// OffsetCommit, OffsetFetch, Txn, Stable and Fault; History.Check, or Check for the
// events of a file, returns every invariant that is broken:
//
//	C0  content      what is read was sent, byte for byte, to that partition
//	C1  lost         what was acknowledged at or below the highest offset read was read by someone
//	C2  unseen       each of two fresh consumers at every broker scans all that was acknowledged or read, without holes
//	C3  changed      a (partition, offset) is one record, in acknowledgements, polls and scans
//	C4  duplicate    a record is at one offset, unless its producer has no id and retries
//	C5  failed-read  what was refused for good is not read, and at read_committed nothing of an aborted transaction
//	C6  early-read   at read_committed nothing is read before its commit was asked for, by its own transaction or another
//	C7  cycle        no transaction reads at read_committed what depends on it
//	C8  int-poll     inside a poll, the records of a partition are contiguous and ascending, unless it was reassigned meanwhile
//	C9  poll         so they are across the polls of an assigned consumer; and nobody's position is reset
//	C10 order        the records of a producer lie in the order they were sent; a send of unknown outcome may lie later
//	C11 torn         of a committed transaction everything is read, or nothing is known of it yet; its offsets are those of C13
//	C12 watermarks   ListOffsets invoked after an acknowledgement lies beyond it; no watermark falls;
//	                 start <= LSO <= HW; up to Rules.Staleness in the past is allowed
//	C13 offsets      OffsetFetch sees the last commit before it, or a later one; -1 if and only if there is none
//	C14 exclusive    no commit of a generation succeeds once a later one is stable; no partition has two owners in one
//	C15 copy         a topic that transactions copied (Rules.Copies) has one copy of each record, in the order of its partitions
//	C16 storage      the audit of etcd and bucket is clean, and holds what was acknowledged
//	C17 liveness     acknowledgements within 15 s of a heal; nothing stuck for a minute without a fault; LSO = HW,
//	                 10 s after the last open transaction is too old
//	C18 progress     under a fault of a minority, acknowledgements in every 15 s once it failed over
package checker
