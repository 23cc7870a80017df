// Package peer is how brokers talk to each other: a small gRPC service on the
// peer listener of every broker, and the pool of connections to all others.
//
// Words: to attend a peer is to hold one stream open to it, which ends the
// moment its process dies; to probe it is to ask, on a connection of its own,
// whether it still answers; to ask it for a release is to have it give up
// partitions and say where it committed that.
//
// Every request names the incarnation it is meant for and every answer the one
// that answers. A different incarnation on the same address, usually a new
// process where an old one died, is reported as WrongIncarnationError and
// never as an answer.
//
// Only package cluster calls this package. It takes no decisions: what silence
// means is for the caller to judge.
package peer

import (
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

const (
	// maxMessageBytes bounds every message. The largest one that is sent is a
	// full list of releases: maxPartitions entries of at most 48 bytes.
	maxMessageBytes = 1 << 20
	// maxPartitions bounds one AskRelease; longer lists are sent in pieces.
	maxPartitions = 10_000
	// maxConnections and maxStreams bound what a server holds open. A cluster
	// has one connection per pair of brokers and a handful of calls on each.
	maxConnections = 1024
	maxStreams     = 64
	// serveTimeout bounds a call whose caller set no deadline.
	serveTimeout = 10 * time.Second
)

// ErrUnreachable: the peer could not be asked, or its answer was lost. Whether
// it acted on the request is unknown.
var ErrUnreachable = errors.New("peer unreachable")

// WrongIncarnationError tells that another incarnation answers at the address.
type WrongIncarnationError struct {
	Want, Got metadata.Incarnation
}

func (e *WrongIncarnationError) Error() string {
	return fmt.Sprintf("asked incarnation %s, incarnation %s answered", e.Want, e.Got)
}

// Status is what a broker tells about itself.
type Status struct {
	// BucketFailing: it cannot write to the bucket at present.
	BucketFailing bool
	// SessionValid: as far as it knows it is registered.
	SessionValid bool
	// StuckFor is the age of its oldest write without an outcome.
	StuckFor time.Duration
}
