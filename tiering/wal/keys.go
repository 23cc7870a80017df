package wal

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/tidemark-io/tidemark/metadata"
)

// Prefixes of the bucket that must never be expired.
var Prefixes = []string{"_cluster/", "w/", "k/", "m/"}

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

// PageKey is the key of a manifest page. The leader epoch in it keeps a deposed
// leader's page from being taken for its successor's.
func PageKey(tp metadata.TopicPartition, epoch int32, number uint32) string {
	h := spread(binary.BigEndian.AppendUint32(tp.Topic[:], uint32(tp.Partition)))
	return fmt.Sprintf("m/%s/%s/%d/%08x-%d", h, tp.Topic.Hex(), tp.Partition, epoch, number)
}
