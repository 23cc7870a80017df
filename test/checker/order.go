package checker

import (
	"strconv"
	"strings"
)

func uitoa(v uint64) string { return strconv.FormatUint(v, 10) }

// has tells whether a mode is among those joined in m.
func has(m Mode, one Mode) bool {
	for part := range strings.SplitSeq(string(m), ",") {
		if part == string(one) {
			return true
		}
	}
	return false
}

// order is C10: the records of one producer lie in a partition as they were sent.
type order struct {
	j    *Judge
	sent map[stream][]int32 // sends in the order of their invocation
}

type stream struct{ proc, key int32 }

func (o *order) add(proc, key, n int32) {
	if o.sent == nil {
		o.sent = make(map[stream][]int32)
	}
	s := stream{proc, key}
	o.sent[s] = append(o.sent[s], n)
}

// finish goes through each stream from its end and keeps the lowest offset of
// what was sent later. Only an acknowledged send must lie below that: one of
// unknown outcome may have been under way while its producer, under a new
// identity, had the next ones committed.
func (o *order) finish() {
	j := o.j
	producers := make(map[int32]bool)
	for s, sent := range o.sent {
		producers[s.proc] = true
		lowest := int32(-1)
		for i := len(sent) - 1; i >= 0; i-- {
			at := &j.records.sends[sent[i]]
			if at.seen < 0 || at.plain {
				continue
			}
			if lowest < 0 || at.seen < j.records.sends[lowest].seen {
				lowest = sent[i]
				continue
			}
			later := &j.records.sends[lowest]
			if at.state == OK && at.seen > later.seen {
				j.broken("C10", "%s lies at offset %d, behind %s at offset %d, which was sent later",
					j.records.name(sent[i]), at.seen, j.records.name(lowest), later.seen)
			}
		}
	}
	j.v.Producers = len(producers)
}
