package wal

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"time"
)

// ULID names a segment: 48 bits of milliseconds since the epoch, 80 random
// ones. Names say when an object was written; nothing is decided by that.
type ULID [16]byte

// Crockford's alphabet, in which ULIDs are written.
var ulidText = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// NewULID returns a name nobody else has.
func NewULID(now time.Time) ULID {
	var u ULID
	if _, err := rand.Read(u[:]); err != nil {
		panic(err) // crypto/rand does not fail on supported systems
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(u[:6], ms[2:])
	return u
}

// String is 26 characters; their order is that of the time.
func (u ULID) String() string { return ulidText.EncodeToString(u[:]) }

// ParseULID is the inverse of String.
func ParseULID(s string) (u ULID, err error) {
	b, err := ulidText.DecodeString(s)
	if err != nil || len(b) != len(u) {
		return u, fmt.Errorf("%w: segment name %q", ErrMalformed, s)
	}
	copy(u[:], b)
	if u.String() != s { // unused bits of the last character
		return ULID{}, fmt.Errorf("%w: segment name %q", ErrMalformed, s)
	}
	return u, nil
}

// Millis is when the name was made, in milliseconds since the epoch.
func (u ULID) Millis() int64 {
	var ms [8]byte
	copy(ms[2:], u[:6])
	return int64(binary.BigEndian.Uint64(ms[:]))
}
