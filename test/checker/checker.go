// Package checker judges a history of produce and fetch by value: whether
// everything that was acknowledged is in the log, once, unchanged and in order.
//
// Vocabulary: a stream is what one producer sends to one partition, numbered
// from 0; an id names one record of one stream; a payload is the bytes of that
// record, made from its id alone, so that content is checked and not only
// presence. A poll is any sight of a record by any consumer at any time; the
// scan is the last one, of the whole log, after every fault is healed.
//
// The history is told through Acked, Polled and Scanned, from any goroutine;
// Judge then returns every rule that was broken. The rules:
//
//	lost        an acknowledged record is in the scan
//	changed     a (partition, offset) shows one record, in acknowledgements, polls and scan
//	duplicate   a record is at one offset
//	reordered   the records of a stream lie in the order they were sent
//	gap         the scan's offsets are dense
//	corrupt     a record seen is one that was sent, byte for byte
package checker

import (
	"fmt"
	"sort"
	"sync"
)

// Stream is what one producer sends to one partition.
type Stream struct {
	Producer  uint32
	Partition int32
}

// ID names one record.
type ID struct {
	Stream
	Seq uint64
}

func (id ID) String() string {
	return fmt.Sprintf("record %d of producer %d to partition %d", id.Seq, id.Producer, id.Partition)
}

type place struct {
	partition int32
	offset    int64
}

// Checker collects a history. Its memory grows with the records told, one map
// entry each.
type Checker struct {
	mu    sync.Mutex // guards everything below
	at    map[place]ID
	acked map[ID]int64
	scan  map[int32][]scanned
	found []Violation
}

type scanned struct {
	offset int64
	id     ID
}

// Violation is one broken rule and what broke it.
type Violation struct {
	Rule   string
	Detail string
}

func (v Violation) String() string { return v.Rule + ": " + v.Detail }

// New is a checker of an empty history.
func New() *Checker {
	return &Checker{at: make(map[place]ID), acked: make(map[ID]int64), scan: make(map[int32][]scanned)}
}

// Acked tells that the broker acknowledged a record at an offset.
func (c *Checker) Acked(id ID, offset int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if offset < 0 {
		c.breakLocked("changed", "%v acknowledged at offset %d", id, offset)
		return
	}
	c.seeLocked(place{id.Partition, offset}, id)
	c.acked[id] = offset
}

// Polled tells that a consumer read payload at an offset.
func (c *Checker) Polled(partition int32, offset int64, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := c.readLocked(partition, offset, payload); ok {
		c.seeLocked(place{partition, offset}, id)
	}
}

// Scanned tells one record of the last read of the whole log, in the order it
// was read.
func (c *Checker) Scanned(partition int32, offset int64, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := c.readLocked(partition, offset, payload); ok {
		c.seeLocked(place{partition, offset}, id)
		c.scan[partition] = append(c.scan[partition], scanned{offset, id})
	}
}

func (c *Checker) readLocked(partition int32, offset int64, payload []byte) (ID, bool) {
	id, err := Parse(payload)
	if err != nil {
		c.breakLocked("corrupt", "partition %d offset %d: %v", partition, offset, err)
		return ID{}, false
	}
	if id.Partition != partition {
		c.breakLocked("corrupt", "partition %d offset %d holds %v", partition, offset, id)
		return ID{}, false
	}
	return id, true
}

func (c *Checker) seeLocked(p place, id ID) {
	before, ok := c.at[p]
	if ok && before != id {
		c.breakLocked("changed", "partition %d offset %d was %v and is %v", p.partition, p.offset, before, id)
	}
	c.at[p] = id
}

func (c *Checker) breakLocked(rule, format string, args ...any) {
	c.found = append(c.found, Violation{rule, fmt.Sprintf(format, args...)})
}

// Summary counts what a verdict rests on.
type Summary struct {
	Acked, Scanned, Streams int
}

// Judge returns every broken rule, and how much history there was.
func (c *Checker) Judge() ([]Violation, Summary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := append([]Violation(nil), c.found...)
	sum := Summary{Acked: len(c.acked)}
	home := make(map[ID]int64)
	streams := make(map[Stream]ID)
	for partition, log := range c.scan {
		sum.Scanned += len(log)
		for i, r := range log {
			if r.offset != int64(i) {
				found = append(found, Violation{"gap", fmt.Sprintf("partition %d: offset %d where %d was due", partition, r.offset, i)})
				break // the rest would repeat it
			}
		}
		for _, r := range log {
			if first, twice := home[r.id]; twice {
				found = append(found, Violation{"duplicate", fmt.Sprintf("%v at offsets %d and %d", r.id, first, r.offset)})
				continue
			}
			home[r.id] = r.offset
			if last, ok := streams[r.id.Stream]; ok && last.Seq > r.id.Seq {
				found = append(found, Violation{"reordered", fmt.Sprintf("%v after %v", r.id, last)})
			}
			streams[r.id.Stream] = r.id
		}
	}
	sum.Streams = len(streams)
	for id, offset := range c.acked {
		if _, ok := home[id]; !ok {
			found = append(found, Violation{"lost", fmt.Sprintf("%v, acknowledged at offset %d", id, offset)})
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].String() < found[j].String() })
	return found, sum
}
