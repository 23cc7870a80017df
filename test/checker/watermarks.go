package checker

import "sort"

// watermarks are C12.
type watermarks struct {
	j    *Judge
	by   map[int32]*marked // by key
	own  map[stream]*marked
	lags []lag // last stable offsets below the high watermark
}

// marked is what was told of a partition, or to one client.
type marked struct {
	start, lso, hw rising
	acked          rising
}

// rising is the highest value known, and since when.
type rising []level

type level struct {
	t     int64
	value int64
	by    ref
}

func (r *rising) add(value int64, by ref) {
	if value < 0 || len(*r) > 0 && (*r)[len(*r)-1].value >= value {
		return
	}
	*r = append(*r, level{by.t, value, by})
}

// at is the highest value known at t.
func (r rising) at(t int64) (level, bool) {
	n := sort.Search(len(r), func(i int) bool { return r[i].t > t })
	if n == 0 {
		return level{}, false
	}
	return r[n-1], true
}

// lag is a last stable offset that is not the high watermark.
type lag struct {
	key int32
	m   Marks
	by  ref
}

func (w *watermarks) key(k int32) *marked {
	if w.by == nil {
		w.by, w.own = make(map[int32]*marked), make(map[stream]*marked)
	}
	if w.by[k] == nil {
		w.by[k] = new(marked)
	}
	return w.by[k]
}

func (w *watermarks) ofProc(s stream) *marked {
	if w.own[s] == nil {
		w.own[s] = new(marked)
	}
	return w.own[s]
}

// acked is told of every acknowledgement, in order.
func (w *watermarks) acked(k int32, offset int64, by ref) { w.key(k).acked.add(offset, by) }

// list judges a ListOffsets, whose time is known: what was told or acknowledged
// before it began, but for the staleness allowed, is not undone.
func (w *watermarks) list(e *Event, at ref) {
	if e.Type != OK {
		return
	}
	for i := range e.Ops {
		if op := &e.Ops[i]; op.Kind == 'w' {
			w.reading(w.j.keys.id(op.Key), op.Marks, e, at, true)
		}
	}
}

// poll judges what came along with records. A client that reads ahead does not
// tell when it asked, so that its answers are only compared with each other,
// unless it is Direct.
func (w *watermarks) poll(e *Event, at ref) {
	for i := range e.Ops {
		if op := &e.Ops[i]; op.Kind == 'w' {
			w.reading(w.j.keys.id(op.Key), op.Marks, e, at, has(e.Mode, Direct))
		}
	}
}

func (w *watermarks) reading(k int32, m Marks, e *Event, at ref, timed bool) {
	j, all := w.j, w.key(k)
	j.v.Watermarks++
	w.consistent(k, m, at)
	slack := int64(j.rules.Staleness)
	if timed {
		since := e.Begun - slack
		w.fell(k, m, at, all, since)
		told := []int64{m.HW, m.LSO}
		if w.j.txns.keys[k] {
			told = told[:1] // an open transaction holds the other back
		}
		for _, told := range told {
			if ack, ok := all.acked.at(since); ok && told >= 0 && told <= ack.value {
				j.broken("C12", "%s is told that %s ends at %d; offset %d was acknowledged before to %s", j.at(at), j.key(k), told, ack.value, j.at(ack.by))
				break
			}
		}
	}
	own := w.ofProc(stream{at.proc, k})
	since := at.t - slack - 1
	if has(e.Mode, Epochs) {
		since = at.t // it names the newest epoch it has seen: no older leader may answer
	}
	w.fell(k, m, at, own, since)
	for _, to := range []*marked{all, own} {
		to.start.add(m.Start, at)
		to.lso.add(m.LSO, at)
		to.hw.add(m.HW, at)
	}
	if l := j.records.log(k); m.Start > l.start {
		l.start = m.Start
	}
}

// fell compares with what was known at a time.
func (w *watermarks) fell(k int32, m Marks, at ref, known *marked, since int64) {
	for _, one := range []struct {
		name  string
		now   int64
		known rising
	}{{"log start", m.Start, known.start}, {"last stable offset", m.LSO, known.lso}, {"high watermark", m.HW, known.hw}} {
		if before, ok := one.known.at(since); ok && one.now >= 0 && one.now < before.value {
			w.j.broken("C12", "the %s of %s falls to %d for %s, after %d for %s", one.name, w.j.key(k), one.now, w.j.at(at), before.value, w.j.at(before.by))
		}
	}
}

func (w *watermarks) consistent(k int32, m Marks, at ref) {
	start, lso, hw := m.Start, m.LSO, m.HW
	if start >= 0 && lso >= 0 && start > lso || lso >= 0 && hw >= 0 && lso > hw || start >= 0 && hw >= 0 && start > hw {
		w.j.broken("C12", "%s is told of %s: log start %d, last stable offset %d, high watermark %d", w.j.at(at), w.j.key(k), start, lso, hw)
	}
	if lso >= 0 && hw >= 0 && lso < hw {
		w.lags = append(w.lags, lag{k, m, at})
	}
}

// finish: without transactions nothing holds the last stable offset back, and
// with them nothing does once each has ended or is too old.
func (w *watermarks) finish() {
	for _, l := range w.lags {
		if w.j.txns.keys[l.key] {
			if l.by.t > w.j.txns.over() {
				w.j.broken("C17", "the last stable offset of %s is still %d and its high watermark %d for %s; the last end of a transaction, or of a fault, is %s past",
					w.j.key(l.key), l.m.LSO, l.m.HW, w.j.at(l.by), seconds(l.by.t-w.j.txns.last()))
			}
			continue
		}
		w.j.broken("C17", "without any transaction, the last stable offset of %s is %d and its high watermark %d for %s", w.j.key(l.key), l.m.LSO, l.m.HW, w.j.at(l.by))
	}
}
