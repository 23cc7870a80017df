// Package object is what Tidemark needs of a bucket: immutable objects under
// flat keys, created once and never overwritten.
//
// Vocabulary: a key is a slash-separated path of printable ASCII; an object is
// the byte string bound to a key; a position is a byte index inside an object
// (the word offset belongs to Kafka logs). The adapters are s3, file and mem;
// objecttest holds the conformance suite they all pass.
//
// Every call takes a context with a deadline set by the caller; an adapter
// never retries a Create by itself, because only the caller knows what an
// ambiguous outcome means for the slot it is writing.
package object

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrExists is returned by Create when the key is already bound. It is a
	// definite answer: this call did not change the object. It says nothing
	// about who bound the key; an earlier attempt of the same caller may have.
	ErrExists = errors.New("object exists")
	// ErrNotFound is returned by Get when the key is not bound. Absent and
	// unreachable are different facts: an adapter never returns it for a
	// request that was not answered.
	ErrNotFound = errors.New("object not found")
	// ErrRefused marks a definite refusal that a retry will not change:
	// authentication, authorization, a missing bucket, an invalid key.
	ErrRefused = errors.New("object store refused the request")
	// ErrThrottled marks a store that asks to be called less often (503
	// SlowDown, 429). The request may or may not have been applied.
	ErrThrottled = errors.New("object store throttled the request")
	// ErrCorrupt is returned by Get when the store's own integrity check of
	// the bytes failed.
	ErrCorrupt = errors.New("object bytes are corrupt")
)

// Info describes one listed object.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time
}

// Store is the bucket. Implementations are safe for concurrent use.
type Store interface {
	// Create binds key to the concatenation of data if the key is unbound,
	// atomically: of any number of racing calls exactly one returns nil. The
	// object is durable when Create returns nil, and also when it returns
	// ErrExists (the bytes found there are as durable as after a nil).
	// ErrRefused is definite: nothing was written. After any other error,
	// context errors included, the object may or may not exist, now or later.
	// The store neither keeps nor changes data after it returns.
	Create(ctx context.Context, key string, data ...[]byte) error

	// Get returns up to length bytes from position pos; fewer only where the
	// object ends. length < 0 means to the end. A range that begins at or past
	// the end yields no bytes and no error. The caller owns the result.
	// Reads are strongly consistent: a Get begun after a Create returned nil
	// or ErrExists finds the object.
	Get(ctx context.Context, key string, pos, length int64) ([]byte, error)

	// Delete unbinds key. A missing key is success.
	Delete(ctx context.Context, key string) error

	// List returns up to limit objects whose keys begin with prefix and sort
	// after the key after, in key order. It is for audits and sweeps: no
	// decision that must be right rests on what a listing shows.
	List(ctx context.Context, prefix, after string, limit int) ([]Info, error)
}

// Checker is an extra ability of a store: it examines settings of the bucket
// that would break the promises above, such as a lifecycle rule that expires
// objects under one of the prefixes. It returns nil when it finds none, and an
// error that names the setting when it does. Where the store has no permission
// to read a setting, the check passes and reports it through warn.
type Checker interface {
	Check(ctx context.Context, prefixes []string, warn func(msg string, err error)) error
}
