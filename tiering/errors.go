package tiering

import (
	"errors"
	"fmt"
)

var (
	// ErrNotLeader: this incarnation does not lead the partition (any more, or
	// yet). The client refreshes its metadata.
	ErrNotLeader = errors.New("not the leader of this partition")
	// ErrFenced: the incarnation is over, because its chain was sealed or
	// closed. The fate of what was not acknowledged is unknown.
	ErrFenced = errors.New("incarnation is fenced")
	// ErrClosed, which is an ErrFenced too: the incarnation has ended its chain
	// itself. Everything it led is closed, and what is to be known of it lies in
	// the checkpoint that the chain's CLOSE names.
	ErrClosed = fmt.Errorf("%w: closed", ErrFenced)
	// ErrOffsetOutOfRange: the offset lies outside [log start, high watermark].
	ErrOffsetOutOfRange = errors.New("offset out of range")
	// ErrOutOfOrderSequence: a producer's batch does not follow its last one.
	ErrOutOfOrderSequence = errors.New("out of order sequence number")
	// ErrInvalidProducerEpoch: a newer instance of the producer has written.
	ErrInvalidProducerEpoch = errors.New("producer epoch is stale")
	// ErrInvalidTxnState: the batch is of no transaction that the coordinator has
	// confirmed, or, not being of one, of a producer that has one open.
	ErrInvalidTxnState = errors.New("record is not part of the producer's ongoing transaction")
	// ErrCoordinatorFenced: a newer owner of the coordinator's shard has written a
	// marker.
	ErrCoordinatorFenced = errors.New("transaction coordinator is fenced")
	// ErrTooManyTxns: no more transactions may be opened in the partition now.
	ErrTooManyTxns = errors.New("too many open transactions in this partition")
	// ErrTimedOut: there was no room to append in time; nothing was appended.
	ErrTimedOut = errors.New("request timed out")
	// ErrStoreUnavailable: neither bucket nor caches can be asked now.
	ErrStoreUnavailable = errors.New("object store unavailable")
	// ErrCorrupt: stored bytes fail their checksum.
	ErrCorrupt = errors.New("stored records are corrupt")
	// ErrDataLoss: an object that the manifest or a chain names is gone. A
	// person must look; the log never ends early because of it.
	ErrDataLoss = errors.New("referenced object is missing")
)
