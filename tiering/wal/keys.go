package wal

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/tidemark-io/tidemark/metadata"
)

// Prefixes of the bucket that must never be expired.
var Prefixes = []string{"_cluster/", "w/", "k/", "s/", "x/", "m/"}

// spread is two hex digits that scatter keys over the store's partitions.
func spread(b []byte) string { return fmt.Sprintf("%02x", byte(xxhash.Sum64(b))) }

func spreadIncarnation(i metadata.Incarnation) string {
	return spread(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

// SlotKey is the key of a slot of a chain.
func SlotKey(i metadata.Incarnation, slot uint64) string {
	return fmt.Sprintf("w/%s/%s/%012x", spreadIncarnation(i), i, slot)
}

// CheckpointKey is the key of a checkpoint of everything before slot.
func CheckpointKey(i metadata.Incarnation, slot uint64) string {
	return fmt.Sprintf("k/%s/%s/%012x", spreadIncarnation(i), i, slot)
}

// ParseSlotKey takes the key of a slot apart.
func ParseSlotKey(key string) (i metadata.Incarnation, slot uint64, ok bool) {
	i, slot, ok = parseChainKey(key)
	return i, slot, ok && SlotKey(i, slot) == key
}

// ParseCheckpointKey takes the key of a checkpoint apart.
func ParseCheckpointKey(key string) (i metadata.Incarnation, slot uint64, ok bool) {
	i, slot, ok = parseChainKey(key)
	return i, slot, ok && CheckpointKey(i, slot) == key
}

func parseChainKey(key string) (i metadata.Incarnation, slot uint64, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 {
		return 0, 0, false
	}
	i, err1 := metadata.ParseIncarnation(parts[2])
	slot, err2 := strconv.ParseUint(parts[3], 16, 64)
	return i, slot, err1 == nil && err2 == nil
}

// PageKey is the key of a manifest page. The leader epoch in it keeps a deposed
// leader's page from being taken for its successor's.
func PageKey(tp metadata.TopicPartition, epoch int32, number uint32) string {
	return fmt.Sprintf("%s%08x-%d", PagePrefix(tp), epoch, number)
}

// PagePrefix is what the keys of a partition's manifest pages begin with.
func PagePrefix(tp metadata.TopicPartition) string { return "m/" + partitionPath(tp) }

// SegmentPrefix is what the keys of a partition's own segments begin with.
func SegmentPrefix(tp metadata.TopicPartition) string { return "s/" + partitionPath(tp) }

func partitionPath(tp metadata.TopicPartition) string {
	h := spread(binary.BigEndian.AppendUint32(tp.Topic[:], uint32(tp.Partition)))
	return fmt.Sprintf("%s/%s/%d/", h, tp.Topic.Hex(), tp.Partition)
}

// SegmentKey is the key of the segment that s, an entry of the manifest of tp,
// names. That of a partition's own segment tells the leader epoch that wrote it,
// that of a shared one the incarnation: only these may ever name it first.
func SegmentKey(tp metadata.TopicPartition, s *SegmentRef) string {
	if s.Shared {
		return SharedKey(s.Incarnation, s.ID)
	}
	return fmt.Sprintf("%s%016x-%08x-%s", SegmentPrefix(tp), s.Base, s.Epoch, s.ID)
}

// SharedPrefix is what the keys of an incarnation's shared segments begin with.
func SharedPrefix(i metadata.Incarnation) string {
	return fmt.Sprintf("x/%s/%s/", spreadIncarnation(i), i)
}

// SharedKey is the key of a shared segment.
func SharedKey(i metadata.Incarnation, id ULID) string { return SharedPrefix(i) + id.String() }

// ParseSegmentKey takes the key of a partition's own segment apart.
func ParseSegmentKey(key string) (tp metadata.TopicPartition, s SegmentRef, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 5 {
		return tp, s, false
	}
	name := strings.Split(parts[4], "-")
	tp, err := metadata.ParsePartitionKey(metadata.PrefixPartitions + parts[2] + "/" + parts[3])
	if err != nil || len(name) != 3 {
		return tp, s, false
	}
	base, err1 := strconv.ParseInt(name[0], 16, 64)
	epoch, err2 := strconv.ParseUint(name[1], 16, 31)
	id, err3 := ParseULID(name[2])
	s = SegmentRef{Base: base, Epoch: int32(epoch), ID: id}
	return tp, s, err1 == nil && err2 == nil && err3 == nil && SegmentKey(tp, &s) == key
}

// ParseSharedKey takes the key of a shared segment apart.
func ParseSharedKey(key string) (i metadata.Incarnation, id ULID, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 {
		return 0, id, false
	}
	i, err1 := metadata.ParseIncarnation(parts[2])
	id, err2 := ParseULID(parts[3])
	return i, id, err1 == nil && err2 == nil && SharedKey(i, id) == key
}

// ParsePageKey takes the key of a manifest page apart.
func ParsePageKey(key string) (tp metadata.TopicPartition, epoch int32, number uint32, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 5 {
		return tp, 0, 0, false
	}
	tp, err := metadata.ParsePartitionKey(metadata.PrefixPartitions + parts[2] + "/" + parts[3])
	epochText, numberText, _ := strings.Cut(parts[4], "-")
	e, err1 := strconv.ParseUint(epochText, 16, 31)
	n, err2 := strconv.ParseUint(numberText, 10, 32)
	if err != nil || err1 != nil || err2 != nil || PageKey(tp, int32(e), uint32(n)) != key {
		return tp, 0, 0, false
	}
	return tp, int32(e), uint32(n), true
}
