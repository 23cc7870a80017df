package checker

import "testing"

func id(producer uint32, seq uint64) ID { return ID{Stream{producer, 0}, seq} }

// history tells a good history of five records, some of which an editor spoils.
type history struct {
	acks map[ID]int64
	poll []ID
	scan []ID
	skip int64 // added to offsets of the scan from the third on
}

func good() *history {
	h := &history{acks: make(map[ID]int64)}
	for i := range 5 {
		r := id(uint32(i%2), uint64(i/2))
		h.acks[r] = int64(i)
		h.poll = append(h.poll, r)
		h.scan = append(h.scan, r)
	}
	return h
}

func (h *history) judge() []Violation {
	c := New()
	for r, offset := range h.acks {
		c.Acked(r, offset)
	}
	for i, r := range h.poll {
		c.Polled(0, int64(i), Payload(r, 40))
	}
	for i, r := range h.scan {
		offset := int64(i)
		if i >= 2 {
			offset += h.skip
		}
		c.Scanned(0, offset, Payload(r, 40))
	}
	found, _ := c.Judge()
	return found
}

func TestEveryRuleCanBreak(t *testing.T) {
	f := func(rule string, spoil func(h *history)) {
		t.Helper()
		h := good()
		spoil(h)
		found := h.judge()
		if rule == "" && len(found) == 0 {
			return
		}
		for _, v := range found {
			if v.Rule == rule {
				return
			}
		}
		t.Errorf("want %q broken, found %v", rule, found)
	}
	f("", func(*history) {})
	f("", func(h *history) { delete(h.acks, id(0, 2)) }) // unacknowledged and there: allowed
	f("lost", func(h *history) { h.scan = h.scan[:4] })
	f("lost", func(h *history) { h.acks[id(7, 0)] = 9 })
	f("changed", func(h *history) { h.acks[id(0, 0)] = 1 })
	f("changed", func(h *history) { h.acks[id(0, 0)] = -1 })
	f("changed", func(h *history) { h.poll[0] = id(5, 5) })
	f("changed", func(h *history) { h.scan[0], h.scan[1] = h.scan[1], h.scan[0] })
	f("duplicate", func(h *history) { h.scan = append(h.scan, h.scan[4]) })
	f("reordered", func(h *history) { h.acks, h.poll = nil, nil; h.scan[0], h.scan[2] = h.scan[2], h.scan[0] })
	f("gap", func(h *history) { h.acks, h.poll = nil, nil; h.skip = 1 })
}

func TestCorruptPayloadsAreSeen(t *testing.T) {
	p := Payload(id(1, 2), 100)
	if got, err := Parse(p); err != nil || got != id(1, 2) || len(p) != 100 {
		t.Fatalf("%v, %v, %d bytes", got, err, len(p))
	}
	for i := range p {
		p[i] ^= 1
		c := New()
		c.Scanned(0, 0, p)
		if found, _ := c.Judge(); len(found) != 1 || found[0].Rule != "corrupt" {
			t.Errorf("byte %d flipped: %v", i, found)
		}
		p[i] ^= 1
	}
	c := New()
	c.Polled(3, 0, p) // of partition 0
	c.Polled(0, 0, p[:10])
	if found, _ := c.Judge(); len(found) != 2 {
		t.Errorf("wrong partition and short payload: %v", found)
	}
}
