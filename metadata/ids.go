package metadata

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
)

// TopicID is Kafka's topic id (KIP-516): a UUID that is never reused, so that a
// topic created again under an old name is a different topic.
type TopicID [16]byte

// NewTopicID returns a random (version 4) topic id.
func NewTopicID() TopicID {
	var id TopicID
	for {
		if _, err := rand.Read(id[:]); err != nil {
			panic(err) // crypto/rand does not fail on supported systems
		}
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		// Kafka never hands out an id whose text begins with a dash: such an id
		// cannot be passed to command-line tools.
		if id.String()[0] != '-' {
			return id
		}
	}
}

// String is Kafka's text form: unpadded URL-safe base64, 22 characters.
func (id TopicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// Hex is the form used in keys of the bucket and of etcd.
func (id TopicID) Hex() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is Kafka's "no topic id".
func (id TopicID) IsZero() bool { return id == TopicID{} }

// MarshalText encodes the id as Hex does.
func (id TopicID) MarshalText() ([]byte, error) { return []byte(id.Hex()), nil }

// UnmarshalText parses the Hex form.
func (id *TopicID) UnmarshalText(b []byte) error {
	parsed, err := ParseTopicIDHex(string(b))
	if err == nil {
		*id = parsed
	}
	return err
}

// ParseTopicIDHex parses what Hex printed.
func ParseTopicIDHex(s string) (TopicID, error) {
	var id TopicID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return TopicID{}, fmt.Errorf("topic id %q is not 32 hex digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// Incarnation names one run of one broker process and is never reused: the
// cluster generation in the upper 16 bits, the etcd revision that first
// registered it in the lower 48. Zero is no incarnation. Of two incarnations of
// one generation the smaller registered first.
type Incarnation uint64

// MakeIncarnation combines a cluster generation and an etcd revision.
func MakeIncarnation(generation uint16, revision int64) Incarnation {
	return Incarnation(uint64(generation)<<48 | uint64(revision)&(1<<48-1))
}

// String is 16 hex digits, the form used in keys.
func (i Incarnation) String() string { return fmt.Sprintf("%016x", uint64(i)) }

// MarshalText encodes the incarnation as String does.
func (i Incarnation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText parses what String printed.
func (i *Incarnation) UnmarshalText(b []byte) error {
	parsed, err := ParseIncarnation(string(b))
	if err == nil {
		*i = parsed
	}
	return err
}

// ParseIncarnation parses what String printed.
func ParseIncarnation(s string) (Incarnation, error) {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 {
		return 0, fmt.Errorf("incarnation %q is not 16 hex digits", s)
	}
	return Incarnation(v), nil
}

// TopicPartition names a partition by topic id, so that it cannot be mistaken
// for one of a deleted topic of the same name.
type TopicPartition struct {
	Topic     TopicID
	Partition int32
}

// String is for logs and errors.
func (tp TopicPartition) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }
