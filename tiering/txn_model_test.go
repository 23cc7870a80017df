package tiering

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// entry is one batch of a log, as the model knows it: of one record, or a marker.
type entry struct {
	pid         int64 // -1 none
	epoch       int16
	seq         int32
	txn         bool
	marker      bool
	commit      bool
	coordinator int32
	value       string
	done        *Appended // nil once it is known to be committed
}

// modelProducer is what the log up to some entry says of a producer.
type modelProducer struct {
	known       bool
	epoch       int16
	next        int32
	coordinator int32
	open        int64 // -1 none
}

// modelTxns folds a log into its producers, the fate of each of its offsets and
// the last stable offset: the whole semantics, in a page.
type modelTxns struct {
	producers map[int64]*modelProducer
	// fate of an offset: shown to readers of committed records, hidden from them
	// (an aborted batch, or a marker), or open.
	fate   []byte
	stable int64
}

const (
	shown  = '+'
	hidden = '-'
	open   = '?'
)

func fold(log []entry) *modelTxns {
	m := &modelTxns{producers: map[int64]*modelProducer{}, fate: make([]byte, len(log))}
	of := func(pid int64) *modelProducer {
		if m.producers[pid] == nil {
			m.producers[pid] = &modelProducer{coordinator: -1, open: -1}
		}
		return m.producers[pid]
	}
	for at, e := range log {
		if e.pid < 0 {
			m.fate[at] = shown
			continue
		}
		p := of(e.pid)
		p.known = true
		if p.epoch != e.epoch {
			p.epoch, p.next = e.epoch, 0
		}
		switch {
		case e.marker:
			for i := range at {
				if m.fate[i] == open && log[i].pid == e.pid {
					m.fate[i] = hidden
					if e.commit {
						m.fate[i] = shown
					}
				}
			}
			m.fate[at], p.open, p.coordinator = hidden, -1, max(p.coordinator, e.coordinator)
		case e.txn:
			if p.open < 0 {
				p.open = int64(at)
			}
			m.fate[at], p.next = open, e.seq+1
		default:
			m.fate[at], p.next = shown, e.seq+1
		}
	}
	m.stable = int64(slices.Index(m.fate, byte(open)))
	if m.stable < 0 {
		m.stable = int64(len(log))
	}
	return m
}

// txnWorld drives one partition through random schedules and compares it, at
// every step, with the model.
type txnWorld struct {
	*world
	t      *testing.T
	r      *rand.Rand
	n      *node
	all    []*node
	p      *Partition
	log    []entry
	guards map[int64]*TxnGuard // of questions that were answered with yes
	serial int
}

func (w *txnWorld) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("after %d entries: %s", len(w.log), fmt.Sprintf(format, args...))
}

// same compares an outcome with what the model wants.
func (w *txnWorld) same(what string, got, want error) {
	w.t.Helper()
	if !errors.Is(got, want) || want == nil && got != nil {
		w.fail("%s: %v, want %v", what, got, want)
	}
}

// send appends a batch and expects want.
func (w *txnWorld) send(e entry, g *TxnGuard, want error) {
	w.t.Helper()
	w.serial++
	e.value = fmt.Sprintf("value %d", w.serial)
	raw, h := makeBatch(e.pid, e.epoch, e.seq, int64(w.serial), e.value)
	if e.pid < 0 {
		raw, h = makeBatch(-1, -1, -1, int64(w.serial), e.value)
	}
	if e.txn {
		raw, h = transactional(raw)
	}
	a, err := w.p.AppendTxn(raw, h, 0, false, g)
	w.same(fmt.Sprintf("append %+v", e), err, want)
	if err != nil {
		return
	}
	if a.Duplicate || a.BaseOffset != int64(len(w.log)) {
		w.fail("%+v is at offset %d, duplicate %v", e, a.BaseOffset, a.Duplicate)
	}
	e.done = a
	w.log = append(w.log, e)
}

func (w *txnWorld) end(e entry, version int8, want error) {
	w.t.Helper()
	e.marker = true
	a, err := w.p.AppendMarker(marker(e.pid, e.epoch, e.coordinator, e.commit, version), int64(w.serial), false)
	w.same(fmt.Sprintf("marker %+v", e), err, want)
	if err != nil {
		return
	}
	delete(w.guards, e.pid)
	before := fold(w.log).of(e.pid)
	again := before.known && before.epoch == e.epoch && before.coordinator == e.coordinator && before.open < 0
	if a.Duplicate != again {
		w.fail("marker %+v: duplicate %v", e, a.Duplicate)
	}
	if again {
		return
	}
	if a.BaseOffset != int64(len(w.log)) {
		w.fail("marker at offset %d", a.BaseOffset)
	}
	e.done = a
	at := len(w.log)
	w.log = append(w.log, e)
	if w.r.IntN(2) == 0 { // whoever wrote it waits
		<-a.Done()
		if o := w.p.Offsets(); a.Err() != nil || o.HighWatermark <= int64(at) {
			w.fail("a marker at offset %d is acknowledged (%v) with offsets %+v", at, a.Err(), o)
		}
	}
}

func (m *modelTxns) of(pid int64) modelProducer {
	if p := m.producers[pid]; p != nil {
		return *p
	}
	return modelProducer{coordinator: -1, open: -1}
}

// step does something at random, right or wrong.
func (w *txnWorld) step() {
	pid := int64(1 + w.r.IntN(4))
	version := int8(1 + pid%2) // half of the producers are of version 2
	m := fold(w.log).of(pid)
	own := entry{pid: pid, epoch: m.epoch, seq: m.next, txn: true, coordinator: max(m.coordinator, 0)}
	switch k := w.r.IntN(20); {
	case k < 2:
		w.send(entry{pid: -1}, nil, nil)
	case k < 9 && m.open >= 0:
		w.send(own, nil, nil)
	case k < 5: // a question, and the answer
		g, err := w.p.GuardTxn(pid, m.epoch, version == 2)
		w.same("begin", err, nil)
		if m.open >= 0 {
			w.same("a guard for an open transaction", nil, map[bool]error{false: errNetwork}[g == nil])
			return
		}
		w.guards[pid] = g // never given back: the partition ends before the test
	case k < 9:
		g := w.guards[pid]
		if g == nil || g.epoch != m.epoch {
			w.send(own, g, ErrInvalidTxnState)
			return
		}
		w.send(own, g, nil)
	case k < 13: // the coordinator ends it, at its own epoch or a new owner's
		own.commit = w.r.IntN(2) == 0
		own.coordinator += int32(w.r.IntN(5) / 4)
		if version == 2 {
			own.epoch++
		}
		w.end(own, version, nil)
		if w.r.IntN(3) == 0 { // and tries again
			w.end(own, version, nil)
		}
	case k == 13 && m.coordinator > 0:
		own.coordinator = m.coordinator - 1
		own.epoch++
		w.end(own, version, ErrCoordinatorFenced)
	case k == 14 && m.epoch > 0:
		own.epoch--
		if w.r.IntN(2) == 0 {
			w.end(own, version, ErrInvalidProducerEpoch)
			return
		}
		own.seq = 0
		w.send(own, w.guards[pid], ErrInvalidProducerEpoch)
		_, err := w.p.GuardTxn(pid, own.epoch, false)
		w.same("begin at an old epoch", err, ErrInvalidProducerEpoch)
	case k == 15 && m.open >= 0:
		own.txn = false
		w.send(own, nil, ErrInvalidTxnState)
		if version == 2 {
			w.end(own, 2, ErrInvalidProducerEpoch) // of the transaction before
		}
	case k == 16 && m.open >= 0 && w.log[len(w.log)-1].pid == pid && !w.log[len(w.log)-1].marker:
		last := w.log[len(w.log)-1]
		raw, _ := makeBatch(pid, last.epoch, last.seq, 0, "again")
		raw, h := transactional(raw)
		a, err := w.p.AppendTxn(raw, h, 0, false, nil)
		if err != nil || !a.Duplicate || a.BaseOffset != int64(len(w.log)-1) {
			w.fail("the last batch again: %+v, %v", a, err)
		}
	case k == 17:
		w.look()
	case k == 18:
		time.Sleep(time.Duration(w.r.IntN(8)) * time.Millisecond)
	}
	w.bounds()
}

// bounds compares what clients are told with what is committed by then.
func (w *txnWorld) bounds() {
	o := w.p.Offsets()
	if want := fold(w.log[:o.HighWatermark]).stable; o.LastStable != want {
		w.fail("last stable offset %d at high watermark %d, want %d", o.LastStable, o.HighWatermark, want)
	}
}

// look reads committed records from somewhere and filters them as a client does.
func (w *txnWorld) look() {
	o := w.p.Offsets()
	from := w.r.Int64N(o.HighWatermark + 1)
	res, err := w.p.ReadCommitted(w.t.Context(), from, 1+w.r.IntN(2000))
	if err != nil {
		w.fail("read from %d: %v", from, err)
	}
	m := fold(w.log[:res.HighWatermark])
	if res.LastStable != m.stable {
		w.fail("a read says last stable offset %d, want %d", res.LastStable, m.stable)
	}
	got, next := committed(res, from)
	if next > res.LastStable && len(res.Records) > 0 || next == from && from < res.LastStable {
		w.fail("a read from %d ends at %d, last stable offset %d", from, next, res.LastStable)
	}
	var want []string
	for at := from; at < next; at++ {
		if m.fate[at] == shown {
			want = append(want, w.log[at].value)
		}
	}
	if !slices.Equal(got, want) {
		w.fail("a read from %d to %d shows %q, want %q; aborted %v", from, next, got, want, res.Aborted)
	}
	available := w.p.AvailableCommitted(from, 1<<40)
	if (available > 0) != (from < w.p.Offsets().LastStable) && res.LastStable == w.p.Offsets().LastStable {
		w.fail("%d bytes available from %d, last stable offset %d", available, from, res.LastStable)
	}
	res.Release()
}

// committed returns the values that a client shows of a read, and the offset
// behind them.
func committed(res *ReadResult, from int64) (values []string, next int64) {
	byFirst := slices.Clone(res.Aborted)
	slices.SortFunc(byFirst, func(a, b wal.AbortedTxn) int { return int(a.First - b.First) })
	next = from
	aborted := map[int64]bool{}
	for b := res.Records; len(b) > 0; {
		h, err := batch.Parse(b)
		if err != nil {
			panic(err)
		}
		for len(byFirst) > 0 && byFirst[0].First <= h.LastOffset() {
			aborted[byFirst[0].ProducerID] = true
			byFirst = byFirst[1:]
		}
		switch {
		case h.Control():
			m, err := batch.ParseMarker(b, &h)
			if err != nil {
				panic(err)
			}
			if !m.Commit {
				delete(aborted, h.ProducerID)
			}
		case h.Transactional() && aborted[h.ProducerID]:
		case h.BaseOffset >= from:
			err := batch.Scan(b[:h.Length], &h, 1<<20, func(r *batch.Record) error {
				values = append(values, string(r.Value))
				return nil
			})
			if err != nil {
				panic(err)
			}
		}
		next = h.LastOffset() + 1
		b = b[h.Length:]
	}
	return values, next
}

// move hands the partition over: by consent, by a closed chain, or from the dead.
func (w *txnWorld) move() {
	old := w.n
	switch w.r.IntN(4) {
	case 0:
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		if err := old.Close(ctx); err != nil {
			w.fail("close: %v", err)
		}
		cancel()
	case 1: // it releases
	default:
		old.kill()
	}
	w.n = w.start(w.store)
	w.all = append(w.all, w.n)
	w.p = w.lead(w.n, partition(0), owners(w.all...))
	w.guards = map[int64]*TxnGuard{}
	end := w.p.Offsets().HighWatermark
	for at := range w.log {
		if a := w.log[at].done; a != nil && int64(at) >= end {
			select {
			case <-a.Done():
				if a.Err() == nil {
					w.fail("offset %d was acknowledged, the successor ends at %d", at, end)
				}
			default:
				w.fail("offset %d is still on its way, the successor ends at %d", at, end)
			}
		}
	}
	w.log = w.log[:end]
	for at := range w.log {
		w.log[at].done = nil
	}
	w.bounds()
	w.producers()
}

// producers compares the producers' state with the model's.
func (w *txnWorld) producers() {
	m := fold(w.log)
	for _, p := range w.p.Producers() {
		want := m.of(p.ID)
		if p.Epoch != want.epoch || p.CoordinatorEpoch != want.coordinator || p.TxnStart != want.open || p.LastSequence != want.next-1 {
			w.fail("producer %+v, want %+v", p, want)
		}
		delete(m.producers, p.ID)
	}
	if len(m.producers) > 0 {
		w.fail("producers %v are unknown", m.producers)
	}
}

// TestTxnModel compares transactions with a model of a page, over takeovers of all
// kinds at random moments, checkpoints, and segments in place of extents.
func TestTxnModel(t *testing.T) {
	first, seeds := uint64(0), uint64(12)
	if testing.Short() {
		seeds = 3
	}
	if v := os.Getenv("TIDEMARK_FIRST_SEED"); v != "" {
		var err error
		if first, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			base := newWorld(t)
			base.tune = func(cfg *Config) {
				tiny(cfg)
				cfg.Collects = func() bool { return false }
				cfg.SweepInterval = time.Hour // this world has no owner lists, which sweeps go by
				cfg.SegmentBytes, cfg.SegmentBytesMax, cfg.BlockBytes = 1500, 3000, 200
				cfg.TierInterval, cfg.TierAge = 10*time.Millisecond, 50*time.Millisecond
				cfg.TailBytes = 8 << 10
				cfg.CheckpointSlots = 5
			}
			w := &txnWorld{world: base, t: t, r: rand.New(rand.NewPCG(seed, 9)), guards: map[int64]*TxnGuard{}}
			w.n = w.start(w.store)
			w.all = []*node{w.n}
			w.p = w.lead(w.n, partition(0), owners(w.n))
			for range 6 {
				for range 100 + w.r.IntN(100) {
					w.step()
				}
				w.move()
			}
			for range 50 {
				w.look()
			}
		})
	}
}
