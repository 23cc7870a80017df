package tiering

// Available is about how many bytes lie between offset and the high watermark,
// counting no further than limit. It reads nothing.
func (p *Partition) Available(offset, limit int64) int64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.manifest.available(offset, p.manifest.end, limit)
}

// AvailableCommitted is Available up to the last stable offset.
func (p *Partition) AvailableCommitted(offset, limit int64) int64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.manifest.available(offset, p.manifest.lastStable(), limit)
}

// available is about how many bytes lie between offset and end.
func (m *manifest) available(offset, end, limit int64) int64 {
	if offset >= end || offset < m.logStart || limit <= 0 {
		return 0
	}
	n := int64(0)
	// add takes an entry into account and tells whether to go on.
	add := func(bytes, base, last int64) bool {
		if base >= end {
			return false
		}
		n += share(bytes, base, last, offset, end)
		return n < limit
	}
	for i := findPage(m.segmentPages, offset); i < len(m.segmentPages); i++ {
		if e := &m.segmentPages[i]; !add(e.Bytes, e.Base, e.Last) {
			return atLeastOne(n, limit)
		}
	}
	for i := findSegment(m.segments, offset); i < len(m.segments); i++ {
		if e := &m.segments[i]; !add(e.Data.Bytes, e.Base, e.Last) {
			return atLeastOne(n, limit)
		}
	}
	offset = max(offset, m.tiered) // of a page that is partly tiered, the rest
	for i := findPage(m.pages, offset); i < len(m.pages); i++ {
		if e := &m.pages[i]; !add(e.Bytes, e.Base, e.Last) {
			return atLeastOne(n, limit)
		}
	}
	for i := find(m.tail, offset); i < len(m.tail); i++ {
		if e := &m.tail[i]; !add(e.RawLen, e.Base, e.Last) {
			break
		}
	}
	return atLeastOne(n, limit)
}

func atLeastOne(n, limit int64) int64 { return max(1, min(n, limit)) }

// share is about how many of an entry's bytes lie between two offsets. Products of
// two int64 may not fit.
func share(bytes, base, last, from, end int64) int64 {
	if from <= base && last < end {
		return bytes
	}
	covered := min(last, end-1) - max(base, from) + 1
	return int64(float64(bytes) * float64(covered) / float64(last-base+1))
}
