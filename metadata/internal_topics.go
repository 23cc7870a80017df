package metadata

import "crypto/sha256"

// The internal topics are listed because clients and monitors expect them.
// Their partitions are the shards of the coordinators, and the coordinators'
// brokers lead them; the state itself is in the cluster's metadata. Of the
// offsets there is a copy in the log, made when the first is committed; of
// transactions there is none.
const (
	OffsetsTopic      = "__consumer_offsets"
	TransactionsTopic = "__transaction_state"
)

// InternalTopicID derives an internal topic's id from its name, so that it is
// the same before and after the topic was made.
func InternalTopicID(name string) TopicID {
	sum := sha256.Sum256([]byte("tidemark internal topic " + name))
	var id TopicID
	copy(id[:], sum[:])
	id[0] &= 0x7f             // its text does not begin with a dash
	id[6] = id[6]&0x0f | 0x80 // version 8: made by rules of our own
	id[8] = id[8]&0x3f | 0x80
	return id
}
