package tiering

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// What a judgment lets go of, and when it wants to look again.
func TestJudgment(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	type piece struct{ newest, bytes int64 }
	ages := func(ages ...int64) (out []piece) { // oldest first, 10 bytes each
		for _, age := range ages {
			out = append(out, piece{now.UnixMilli() - age, 10})
		}
		return out
	}
	const forever = math.MaxInt64
	for _, c := range []struct {
		name   string
		policy Policy
		pieces []piece
		gone   int   // pieces
		look   int64 // in milliseconds from now; 0: never
		room   int64
	}{
		{"no policy", Policy{}, ages(900_000, 1), 0, 0, 1},
		{"compacted topics keep everything", Policy{RetentionMillis: 1, RetentionBytes: 0}, ages(900_000, 1), 0, 0, 1},
		{"unlimited", Policy{Delete: true, RetentionMillis: -1, RetentionBytes: -1}, ages(900_000), 0, 0, 1},
		{"by age, the newest record of a piece counts", Policy{Delete: true, RetentionMillis: 500, RetentionBytes: -1}, ages(900, 501, 500, 20), 2, 1, forever},
		{"what is young keeps what comes after it", Policy{Delete: true, RetentionMillis: 500, RetentionBytes: -1}, ages(100, 900), 0, 401, forever},
		{"all of it", Policy{Delete: true, RetentionMillis: 0, RetentionBytes: -1}, ages(3, 2, 1), 3, 0, 1},
		{"nothing yet", Policy{Delete: true, RetentionMillis: 10, RetentionBytes: 10}, nil, 0, 0, 1},
		{"by size, as much as is asked for stays", Policy{Delete: true, RetentionMillis: -1, RetentionBytes: 25}, ages(4, 3, 2, 1), 1, 0, 5},
		{"by size, to the byte", Policy{Delete: true, RetentionMillis: -1, RetentionBytes: 20}, ages(4, 3, 2, 1), 2, 0, 10},
		{"by size, everything", Policy{Delete: true, RetentionMillis: -1, RetentionBytes: 0}, ages(2, 1), 2, 0, 1},
		{"by size, far from it", Policy{Delete: true, RetentionMillis: -1, RetentionBytes: math.MaxInt64}, ages(2, 1), 0, 0, forever - 10},
		{"one by size, the next by age", Policy{Delete: true, RetentionMillis: 500, RetentionBytes: 5}, []piece{{now.UnixMilli() - 5, 10}, {now.UnixMilli() - 700, 10}, {now.UnixMilli(), 1}}, 2, 501, 5},
		{"of the future", Policy{Delete: true, RetentionMillis: 500, RetentionBytes: -1}, ages(-1000, 900), 0, 1501, forever},
		{"of no time", Policy{Delete: true, RetentionMillis: 500, RetentionBytes: -1}, []piece{{-1, 10}}, 0, unknownTime.Milliseconds(), forever},
		{"of the end of time", Policy{Delete: true, RetentionMillis: math.MaxInt64, RetentionBytes: -1}, []piece{{math.MaxInt64, 10}}, 0, 0, forever},
	} {
		var total int64
		for _, p := range c.pieces {
			total += p.bytes
		}
		j := judge(c.policy, now, 100, total)
		for i, p := range c.pieces {
			if !j.take(int64(100+i), p.newest, p.bytes) {
				break
			}
		}
		look := int64(0)
		if !j.look.IsZero() {
			look = j.look.UnixMilli() - now.UnixMilli()
		}
		if j.start != int64(100+c.gone) || look != c.look || j.room != c.room {
			t.Errorf("%s: keeps from %d, looks again in %d ms, has room for %d; want %d, %d, %d", c.name, j.start-100, look, j.room, c.gone, c.look, c.room)
		}
	}
}

// policies is what the configs of topics say.
type policies struct {
	mu sync.Mutex
	p  Policy
}

func (p *policies) set(policy Policy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.p = policy
}

func (p *policies) of(metadata.TopicID) Policy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.p
}

func retaining(w *world, policy Policy) *policies {
	ps := &policies{p: policy}
	tune := w.tune
	w.tune = func(cfg *Config) { tune(cfg); cfg.Policy = ps.of }
	return ps
}

// readable wants exactly the offsets from start on to be readable.
func (w *world) readable(p *Partition, start int64, values []string) {
	w.t.Helper()
	if o := p.Offsets(); o.LogStart != start || o.HighWatermark != int64(len(values)) {
		w.t.Errorf("offsets %+v, want [%d, %d]", o, start, len(values))
		return
	}
	equal(w.t, readAll(w.t, p, start, 1<<20), values[start:])
	if start > 0 {
		if _, err := p.Read(context.Background(), start-1, 100); !errors.Is(err, ErrOffsetOutOfRange) {
			w.t.Errorf("read below the log start: %v", err)
		}
	}
}

// Records leave when they are too old, and not before: from write-ahead objects
// alone, with nothing tiered, at the extent. An idle broker is woken for it, and
// for nothing else.
func TestRetentionByTimeUntiered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		retaining(w, Policy{Delete: true, RetentionMillis: time.Hour.Milliseconds(), RetentionBytes: -1})
		tune := w.tune
		w.tune = func(cfg *Config) { tune(cfg); cfg.TierAge, cfg.TierInterval = 100*time.Hour, 100*time.Hour }
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		values := numbered("v", 10)
		for i := range values {
			raw, h := makeBatch(-1, -1, -1, time.Now().UnixMilli(), values[i])
			ap, err := p.Append(raw, h, 0, false)
			if err != nil {
				t.Fatal(err)
			}
			<-ap.Done()
			time.Sleep(time.Minute)
		}
		w.readable(p, 0, values)
		time.Sleep(50*time.Minute + time.Second)
		w.readable(p, 1, values)
		time.Sleep(5 * time.Minute)
		w.readable(p, 6, values)
		time.Sleep(time.Hour)
		w.readable(p, 10, values)
		time.Sleep(time.Minute)
		if left := w.keys("w/"); len(left) > slotsKept {
			t.Errorf("left of the write-ahead objects: %d", len(left))
		}
		slots := a.committed.Load()
		time.Sleep(24 * time.Hour)
		if now := a.committed.Load(); now != slots {
			t.Errorf("an idle chain grew from %d to %d slots", slots, now)
		}
		w.readable(p, 10, values)
		write(t, p, "again") // its timestamp is long gone
		time.Sleep(time.Minute)
		w.readable(p, 11, append(values, "again"))
	})
}

// Size is kept within bounds while more comes; what is let go of leaves the
// bucket, and a change of the config is obeyed at once.
func TestRetentionBySize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		configs := retaining(w, Policy{Delete: true, RetentionMillis: -1, RetentionBytes: 30_000})
		a := w.start(w.store)
		p, q := w.lead(a, partition(0), owners(a)), w.lead(a, partition(1), owners(a))
		values := numbered("large", 2000)
		writeSpread(t, p, values...)
		writeSpread(t, q, "small")
		time.Sleep(5 * time.Second)
		o := p.Offsets()
		held := int64(0)
		for _, s := range p.seen().segments {
			held += s.Data.Bytes
		}
		if o.LogStart == 0 || held < 20_000 || held > 40_000 {
			t.Errorf("%d bytes are held in segments, offsets %+v", held, o)
		}
		w.readable(p, o.LogStart, values)
		if got := len(w.keys("s/")); got != len(p.seen().segments) {
			t.Errorf("%d segments in the bucket, %d in the manifest", got, len(p.seen().segments))
		}
		w.readable(q, 0, []string{"small"})
		configs.set(Policy{Delete: true, RetentionMillis: -1, RetentionBytes: 0})
		a.Reconsider()
		time.Sleep(5 * time.Second)
		w.readable(p, 2000, values)
		w.readable(q, 1, []string{"small"})
		if left := append(w.keys("s/"), w.keys("x/")...); len(left) > 0 {
			t.Errorf("segments are left of nothing: %v", left)
		}
		configs.set(Policy{Delete: false, RetentionMillis: 0, RetentionBytes: 0})
		a.Reconsider()
		writeSpread(t, p, "kept")
		time.Sleep(time.Hour)
		w.readable(p, 2000, append(values, "kept"))
	})
}

// Records below an offset are deleted for good: for the leader, for whoever
// reads the chain after a kill, and in the bucket; shared segments go with the
// last of their sections.
func TestDeleteRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		a := w.start(w.store)
		large, small, other := w.lead(a, partition(0), owners(a)), w.lead(a, partition(1), owners(a)), w.lead(a, partition(2), owners(a))
		values, few := numbered("v", 300), numbered("small", 4)
		writeSpread(t, large, values...)
		writeSpread(t, small, few...)
		writeSpread(t, other, few...)
		time.Sleep(3 * time.Second)
		if len(w.keys("x/")) == 0 || len(w.keys("s/")) < 2 {
			t.Fatal("nothing is tiered")
		}
		deleteTo := func(p *Partition, to, want int64) {
			t.Helper()
			if low, err := p.DeleteRecords(t.Context(), to); err != nil || low != want {
				t.Fatalf("delete records below %d: %d, %v, want %d", to, low, err, want)
			}
		}
		for _, wrong := range []int64{301, -2, math.MaxInt64, math.MinInt64} {
			if low, err := large.DeleteRecords(t.Context(), wrong); !errors.Is(err, ErrOffsetOutOfRange) {
				t.Fatalf("delete records below %d: %d, %v", wrong, low, err)
			}
		}
		deleteTo(large, 0, 0)
		deleteTo(large, 133, 133)
		w.readable(large, 133, values)
		deleteTo(large, 7, 133)
		deleteTo(small, HighWatermark, 4)
		w.readable(small, 4, few)
		time.Sleep(3 * time.Second)
		w.readable(other, 0, few)
		// In a batch, too, and over a kill.
		writeBatch(t, large, "in", "one", "batch")
		values = append(values, "in", "one", "batch")
		deleteTo(large, 301, 301)
		a.kill()
		b := w.start(w.store)
		large, small, other = w.lead(b, partition(0), owners(a, b)), w.lead(b, partition(1), owners(a, b)), w.lead(b, partition(2), owners(a, b))
		if o := large.Offsets(); o.LogStart != 301 || o.HighWatermark != 303 {
			t.Errorf("offsets %+v", o)
		}
		equal(t, readAll(t, large, 301, 1<<20), values[301:])
		if res, err := large.Read(t.Context(), 301, 1<<20); err != nil || int64(binary.BigEndian.Uint64(res.Records)) != 300 {
			t.Errorf("the batch is sent whole, as with Kafka: %v", err)
		}
		w.readable(small, 4, few)
		w.readable(other, 0, few)
		deleteTo(other, HighWatermark, 4)
		deleteTo(large, HighWatermark, 303)
		time.Sleep(10 * time.Second) // sweeps find what a left behind
		if left := append(w.keys("s/"), append(w.keys("x/"), w.keys("m/")...)...); len(left) > 0 {
			t.Errorf("left of nothing: %v", left)
		}
		if left := w.keys("w/"); len(left) > 2*(slotsKept+2) {
			t.Errorf("left of the write-ahead objects: %d", len(left))
		}
		w.readable(other, 4, few)
	})
}

// writeBatch writes values as one batch.
func writeBatch(t *testing.T, p *Partition, values ...string) {
	t.Helper()
	raw, h := makeBatch(-1, -1, -1, 1, values...)
	ap, err := p.Append(raw, h, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	<-ap.Done()
	if ap.Err() != nil {
		t.Fatal(ap.Err())
	}
}

// What a deposed leader deletes is not deleted.
func TestZombieDeletesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		configs := retaining(w, Policy{})
		g := &gated{Store: w.store}
		a := w.start(g)
		p := w.lead(a, partition(0), owners(a))
		values := numbered("v", 200)
		writeSpread(t, p, values...)
		time.Sleep(3 * time.Second)
		g.stop()
		deleted := make(chan error, 1)
		go func() {
			_, err := p.DeleteRecords(context.Background(), 100)
			deleted <- err
		}()
		configs.set(Policy{Delete: true, RetentionBytes: 0, RetentionMillis: 0})
		a.Reconsider()
		configs.set(Policy{})
		synctest.Wait()
		b := w.start(w.store)
		q := w.lead(b, partition(0), owners(a, b))
		g.resume()
		if err := <-deleted; err == nil {
			t.Error("a deposed leader deleted records")
		}
		time.Sleep(10 * time.Second)
		w.readable(q, 0, values)
	})
}

// A broker that cannot know what configs say deletes nothing, and goes on when it
// can; what they say by then counts.
func TestRetentionNeedsToKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		configs := retaining(w, Policy{Delete: true, RetentionMillis: 1, RetentionBytes: -1})
		var mu sync.Mutex
		var away, change bool
		tune := w.tune
		w.tune = func(cfg *Config) {
			tune(cfg)
			cfg.Fresh = func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				if away {
					return errors.New("cut off")
				}
				if change { // it was changed, and nobody has told us yet
					configs.set(Policy{Delete: true, RetentionMillis: -1, RetentionBytes: -1})
				}
				return nil
			}
		}
		away = true
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		values := numbered("v", 50)
		writeSpread(t, p, values...)
		time.Sleep(time.Minute)
		w.readable(p, 0, values)
		mu.Lock()
		away, change = false, true
		mu.Unlock()
		time.Sleep(time.Minute)
		w.readable(p, 0, values)
		mu.Lock()
		change = false
		mu.Unlock()
		configs.set(Policy{Delete: true, RetentionMillis: 1, RetentionBytes: -1})
		a.Reconsider()
		time.Sleep(time.Minute)
		w.readable(p, 50, values)
	})
}

// A request that is not answered in time keeps nobody else waiting for its turn.
func TestDeleteRecordsTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		g := &gated{Store: w.store}
		a := w.start(g)
		p := w.lead(a, partition(0), owners(a))
		writeSpread(t, p, numbered("v", 10)...)
		g.stop()
		for _, to := range []int64{3, 5} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := p.DeleteRecords(ctx, to); to == 3 && !errors.Is(err, ErrTimedOut) || err == nil {
				t.Errorf("delete records below %d with the bucket away: %v", to, err)
			}
			cancel()
		}
		g.resume()
		if low, err := p.DeleteRecords(t.Context(), 6); err != nil || low != 6 {
			t.Errorf("%d, %v", low, err)
		}
		a.kill()
		b := w.start(w.store)
		if o := w.lead(b, partition(0), owners(a, b)).Offsets(); o.LogStart != 6 {
			t.Errorf("%+v", o)
		}
	})
}

// Somebody who reads while the log start passes him is told that his offset is
// out of range: no gap, and no alarm.
func TestReadingWhileTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		values := numbered("v", 400)
		writeSpread(t, p, values...)
		time.Sleep(3 * time.Second)
		a.hot = newLRU[extentID](&a.tasks, 1, func([]byte) int64 { return 2 })
		var wg sync.WaitGroup
		for r := range 4 {
			wg.Go(func() {
				for at := int64(0); at < 400; {
					res, err := p.Read(context.Background(), at, 300)
					if errors.Is(err, ErrOffsetOutOfRange) {
						if start := p.Offsets().LogStart; start > at {
							at = start
							continue
						}
					}
					if err != nil {
						t.Errorf("read at %d: %v", at, err)
						return
					}
					if h, err := batch.Parse(res.Records); err != nil || h.BaseOffset != at || !bytes.Contains(res.Records[:h.Length], []byte(values[at])) {
						t.Errorf("read at %d: %+v, %v", at, h, err)
						return
					}
					at = lastOffset(res.Records) + 1
					time.Sleep(time.Duration(10+r) * time.Millisecond)
				}
			})
		}
		for to := int64(20); to <= 400; to += 20 {
			time.Sleep(100 * time.Millisecond)
			if _, err := p.DeleteRecords(t.Context(), to); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
	})
}

// What a deleted topic had goes, its part of shared segments as well.
func TestDeletedTopicFreesItsObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		tune := w.tune
		w.tune = func(cfg *Config) { tune(cfg); cfg.SweepInterval = 1000 * time.Hour }
		a := w.start(w.store)
		large, small := w.lead(a, partition(0), owners(a)), w.lead(a, partition(1), owners(a))
		writeSpread(t, large, numbered("v", 200)...)
		writeSpread(t, small, numbered("v", 4)...)
		time.Sleep(3 * time.Second)
		a.Drop(partition(0)) // the topic is there: somebody was mistaken
		time.Sleep(3 * time.Second)
		if len(w.keys("s/")) == 0 {
			t.Error("a topic that exists has lost its segments")
		}
		for _, tp := range []metadata.TopicPartition{partition(0), partition(1)} {
			if _, err := w.kv.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.Delete(metadata.PartitionKey(tp))}}); err != nil {
				t.Fatal(err)
			}
		}
		a.Drop(partition(1))
		time.Sleep(3 * time.Second)
		if left := w.keys("x/"); len(left) > 0 {
			t.Errorf("left of deleted topics: %v", left)
		}
	})
}

// Offsets by time do not name what lies below the log start, wherever that is.
func TestTimestampsAboveLogStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		// Offset n has the timestamp 10000-n: the newest one is always at the start.
		for i := range 100 {
			raw, h := datedBatch(int64(10000-3*i), fmt.Sprint(3*i), fmt.Sprint(3*i+1), fmt.Sprint(3*i+2))
			ap, err := p.Append(raw, h, 0, false)
			if err != nil {
				t.Fatal(err)
			}
			<-ap.Done()
			if i == 60 {
				time.Sleep(3 * time.Second)
			}
		}
		for start := int64(1); start <= 300; start += 7 {
			if _, err := p.DeleteRecords(t.Context(), start); err != nil {
				t.Fatal(err)
			}
			newest, err := p.MaxTimestamp(t.Context())
			if err != nil || newest.Offset != start || newest.Timestamp != 10000-start {
				t.Fatalf("log start %d: max timestamp %+v, %v", start, newest, err)
			}
			if at, err := p.OffsetForTimestamp(t.Context(), 1); err != nil || at.Offset != start {
				t.Fatalf("log start %d: first record %+v, %v", start, at, err)
			}
			if at, err := p.OffsetForTimestamp(t.Context(), 10000-start+1); err != nil || at.Offset >= 0 {
				t.Fatalf("log start %d: a record from below it: %+v, %v", start, at, err)
			}
		}
		if _, err := p.DeleteRecords(t.Context(), HighWatermark); err != nil {
			t.Fatal(err)
		}
		if at, err := p.MaxTimestamp(t.Context()); err != nil || at.Offset >= 0 {
			t.Fatalf("of an empty log: %+v, %v", at, err)
		}
	})
}

// segment.bytes and segment.ms bound what a topic's segments are.
func TestSegmentConfigs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		retaining(w, Policy{SegmentBytes: 1000, SegmentMillis: 100})
		tune := w.tune
		w.tune = func(cfg *Config) {
			tune(cfg)
			cfg.TierAge, cfg.TierBytes, cfg.SegmentBytes, cfg.SegmentBytesMax = time.Hour, 1<<30, 1<<20, 4<<20
		}
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		values := numbered("v", 200)
		writeSpread(t, p, values...)
		time.Sleep(2 * time.Second)
		m := p.seen()
		if m.tiered != 200 {
			t.Errorf("tiered %d of 200", m.tiered)
		}
		for _, s := range m.segments {
			if s.Data.Bytes > 1000 {
				t.Errorf("a segment of %d bytes", s.Data.Bytes)
			}
		}
		w.readable(p, 0, values)
	})
}

// datedBatch is makeBatch of records a millisecond apart, the newest first.
func datedBatch(ts int64, values ...string) ([]byte, batch.Header) {
	var records []byte
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), TimestampDelta64: int64(-i), Value: []byte(v)}
		body := r.AppendTo(nil)
		r.Length = int32(len(body) - 1)
		records = r.AppendTo(records)
	}
	b := kmsg.RecordBatch{
		Magic: 2, LastOffsetDelta: int32(len(values) - 1), FirstTimestamp: ts, MaxTimestamp: ts,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(values)), Records: records,
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	h, err := batch.Parse(raw)
	if err != nil {
		panic(err)
	}
	return raw, h
}

// The log start passes through manifest pages, of extents and of segments: what
// lies below goes, also what a page names that stays.
func TestLogStartInPages(t *testing.T) {
	const n = 2*wal.PageEntries + 100
	for _, kind := range []string{"extents", "segments"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTieringWorld(t)
				w.tune = func(cfg *Config) {
					tiny(cfg)
					cfg.TierInterval, cfg.SegmentBytes, cfg.SegmentBytesMax = 10*time.Millisecond, 1, 1
					if kind == "extents" {
						cfg.TierInterval, cfg.TierAge = 1000*time.Hour, 1000*time.Hour
					}
				}
				a := w.start(w.store)
				p := w.lead(a, partition(0), owners(a))
				values := numbered("v", n)
				for i := range values {
					raw, h := makeBatch(-1, -1, -1, int64(i+1), values[i])
					ap, err := p.Append(raw, h, 0, false)
					if err != nil {
						t.Fatal(err)
					}
					<-ap.Done()
				}
				time.Sleep(time.Minute)
				m := p.seen()
				if kind == "extents" && len(m.pages) == 0 || kind == "segments" && (len(m.segmentPages) == 0 || m.tiered != n) {
					t.Fatalf("%d pages of extents, %d of segments, tiered %d", len(m.pages), len(m.segmentPages), m.tiered)
				}
				check := func(p *Partition, start int64) {
					t.Helper()
					if _, err := p.DeleteRecords(t.Context(), start); err != nil {
						t.Fatal(err)
					}
					w.readable(p, start, values)
					if at, err := p.OffsetForTimestamp(t.Context(), 1); err != nil || at.Offset != start {
						t.Errorf("first record above %d: %+v, %v", start, at, err)
					}
					if at, err := p.MaxTimestamp(t.Context()); err != nil || at.Offset != n-1 {
						t.Errorf("newest record above %d: %+v, %v", start, at, err)
					}
					time.Sleep(5 * time.Second)
					if got := len(w.keys("s/")); kind == "segments" && got != n-int(start) {
						t.Errorf("the log begins at %d, %d segments are left of %d", start, got, n)
					}
				}
				for _, start := range []int64{1, 500, 501, wal.PageEntries - 1} {
					check(p, start)
				}
				a.kill()
				b := w.start(w.store)
				q := w.lead(b, partition(0), owners(a, b))
				for _, start := range []int64{wal.PageEntries, wal.PageEntries + 1, n - 1} {
					check(q, start)
				}
				if _, err := q.DeleteRecords(t.Context(), HighWatermark); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				if left := append(w.keys("s/"), w.keys("m/")...); len(left) > 0 {
					t.Errorf("%d objects are left of nothing: %.200v", len(left), left)
				}
				if m := q.seen(); len(m.pages)+len(m.segmentPages)+len(m.segments)+len(m.tail) > 0 || m.untiered != 0 {
					t.Errorf("an empty log is not empty: %+v", m)
				}
			})
		})
	}
}

// Retention goes by whole pages where it can, and into one where it has to.
func TestRetentionThroughPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTieringWorld(t)
		configs := retaining(w, Policy{})
		tune := w.tune
		w.tune = func(cfg *Config) {
			tune(cfg)
			cfg.TierInterval, cfg.SegmentBytes, cfg.SegmentBytesMax = 10*time.Millisecond, 1, 1
			cfg.SweepInterval, cfg.CollectInterval = 1000*time.Hour, 1000*time.Hour // that is not for here, and takes long
		}
		a := w.start(w.store)
		p := w.lead(a, partition(0), owners(a))
		const n = 3*wal.PageEntries + 100
		begun := time.Now()
		values := make([]string, n)
		for i := range values {
			values[i] = fmt.Sprintf("%05d", i)
			raw, h := makeBatch(-1, -1, -1, begun.UnixMilli()+int64(i)*1000, values[i])
			ap, err := p.Append(raw, h, 0, false)
			if err != nil {
				t.Fatal(err)
			}
			<-ap.Done()
		}
		time.Sleep(time.Until(begun.Add(5000*time.Second)) - 500*time.Millisecond)
		if m := p.seen(); len(m.segmentPages) < 2 {
			t.Fatalf("%d pages", len(m.segmentPages))
		}
		size := p.seen().segments[0].Data.Bytes
		for _, c := range []struct {
			policy Policy
			start  int64
		}{
			{Policy{Delete: true, RetentionMillis: 4_900_000, RetentionBytes: -1}, 100},
			{Policy{Delete: true, RetentionMillis: -1, RetentionBytes: (n - 1000) * size}, 1000},
			{Policy{Delete: true, RetentionMillis: -1, RetentionBytes: (n-wal.PageEntries-7)*size + 1}, wal.PageEntries + 6},
			{Policy{Delete: true, RetentionMillis: -1, RetentionBytes: 50 * size}, n - 50},
		} {
			configs.set(c.policy)
			a.Reconsider()
			time.Sleep(200 * time.Millisecond)
			w.readable(p, c.start, values)
		}
	})
}
