package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	records "github.com/tidemark-io/tidemark/tiering/batch"
)

// fakeOffsets is a topic of offsets that keeps what it is given.
type fakeOffsets struct {
	mu      sync.Mutex
	epoch   int32 // 0: not led
	failing bool
	created int
	// latest is the newest offset by "group/topic/partition", -1 for a
	// tombstone; groups the generations of classic groups.
	latest  map[string]int64
	groups  map[string]int32
	records int
	wrong   error
}

func (f *fakeOffsets) Create(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.created++
	return nil
}

func (f *fakeOffsets) Led(int) (int32, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epoch, f.epoch > 0
}

func (f *fakeOffsets) Append(_ context.Context, shard int, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing {
		return errors.New("the log is in trouble")
	}
	h, err := records.Validate(b, records.Rules{BytesMax: 1 << 20, Keys: true, InflatedMax: 1 << 20, TimestampMax: 1 << 62})
	if err == nil {
		err = records.Scan(b, &h, 1<<20, func(r *records.Record) error { f.records++; return nil })
	}
	if err == nil {
		var payload []byte
		if payload, err = records.Payload(b, &h, 1<<20); err == nil {
			err = records.Walk(payload, h.Records, func(r *records.Record) error { return f.record(shard, r) })
		}
	}
	f.wrong = errors.Join(f.wrong, err)
	return nil
}

func (f *fakeOffsets) record(shard int, r *records.Record) error {
	if r.Key[1] == 2 {
		var k kmsg.GroupMetadataKey
		if err := k.ReadFrom(r.Key); err != nil || ShardOf(k.Group) != shard {
			return fmt.Errorf("group %q in shard %d: %w", k.Group, shard, err)
		}
		delete(f.groups, k.Group)
		if r.Value != nil {
			var v kmsg.GroupMetadataValue
			if err := v.ReadFrom(r.Value); err != nil {
				return err
			}
			f.groups[k.Group] = v.Generation
		}
		return nil
	}
	var k kmsg.OffsetCommitKey
	if err := k.ReadFrom(r.Key); err != nil || ShardOf(k.Group) != shard {
		return fmt.Errorf("group %q in shard %d: %w", k.Group, shard, err)
	}
	key := fmt.Sprintf("%s/%s/%d", k.Group, k.Topic, k.Partition)
	if f.latest[key] = -1; r.Value != nil {
		var v kmsg.OffsetCommitValue
		if err := v.ReadFrom(r.Value); err != nil {
			return err
		}
		f.latest[key] = v.Offset
	}
	return nil
}

func (f *fakeOffsets) want(t *testing.T, want map[string]int64) {
	t.Helper()
	time.Sleep(3 * time.Second)
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wrong != nil {
		t.Fatal(f.wrong)
	}
	for key, offset := range want {
		if got, ok := f.latest[key]; !ok || got != offset {
			t.Fatalf("%s is copied as %d (%v), want %d", key, got, ok, offset)
		}
	}
	if len(f.latest) != len(want) {
		t.Fatalf("copied %v, want %v", f.latest, want)
	}
}

func (f *fakeOffsets) copied() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records
}

func (f *fakeOffsets) generation(group string) int32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.groups[group]
}

func (f *fakeOffsets) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func offsetsCopy() (*fakeOffsets, func(*Config)) {
	f := &fakeOffsets{latest: map[string]int64{}, groups: map[string]int32{}}
	return f, func(cfg *Config) { cfg.OffsetsLog = f }
}

func TestMirror(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		f, on := offsetsCopy()
		a := e.owned(on)
		wantCode(t, a.commit("g", "t", 0, 1), nil)
		f.want(t, map[string]int64{})
		f.set(func() {
			if f.created == 0 {
				t.Error("the topic was not made")
			}
			f.epoch = 1
		})
		f.want(t, map[string]int64{"g/t/0": 1})
		for i := range int64(100) {
			wantCode(t, a.commit("g", "t", 0, i), nil)
		}
		wantCode(t, a.commit("h", "u", 1, 5), nil)
		f.want(t, map[string]int64{"g/t/0": 99, "h/u/1": 5})
		if n := f.copied(); n > 20 {
			t.Errorf("%d records for 100 commits of a moment", n)
		}

		// The log fails for a while: nothing is missing afterwards.
		f.set(func() { f.failing = true })
		wantCode(t, a.commit("g", "t", 1, 7), nil)
		time.Sleep(5 * time.Second)
		wantCode(t, a.commit("g", "t", 0, 100), nil)
		f.set(func() { f.failing = false })
		f.want(t, map[string]int64{"g/t/0": 100, "g/t/1": 7, "h/u/1": 5})

		// What the store refused is not copied.
		full := &fullKV{KV: a.kv}
		a.cfg.KV = full
		full.on.Store(true)
		wantCode(t, a.commit("h", "u", 1, 6), kerr.CoordinatorNotAvailable)
		full.on.Store(false)
		f.want(t, map[string]int64{"g/t/0": 100, "g/t/1": 7, "h/u/1": 5})

		// Quiet is quiet, but for the copy that is made again.
		before := f.copied()
		time.Sleep(time.Hour)
		if n := f.copied() - before; n != 0 {
			t.Errorf("%d records of nothing", n)
		}
		time.Sleep(6 * time.Hour)
		if n := f.copied() - before; n != 3 {
			t.Errorf("%d records, want the 3 offsets again", n)
		}
		wantCode(t, a.delete("h"), nil)
		f.want(t, map[string]int64{"g/t/0": 100, "g/t/1": 7, "h/u/1": -1})
	})
}

func TestMirrorMoves(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		f, on := offsetsCopy()
		f.epoch = 1
		f2, on2 := offsetsCopy()
		f2.epoch = 2
		a, b := e.owned(on), e.node(2, on2)
		member, gen := a.stable("g")
		wantCode(t, a.commitAs("g", member, gen, "t", map[int32]int64{0: 3, 70: 4}).Topics[0].Partitions[0].ErrorCode, nil)
		f.want(t, map[string]int64{"g/t/0": 3, "g/t/70": 4})
		if got := f.generation("g"); got != gen {
			t.Errorf("copied in generation %d, want %d", got, gen)
		}
		// These are not copied before the shard moves; the next one does it.
		wantCode(t, a.commitAs("g", member, gen, "t", map[int32]int64{0: 9}).Topics[0].Partitions[0].ErrorCode, nil)
		e.assignAll(2)
		f2.want(t, map[string]int64{"g/t/0": 9, "g/t/70": 4})
		if got := f2.generation("g"); got != gen {
			t.Errorf("copied in generation %d, want %d", got, gen)
		}
		wantCode(t, a.commit("g", "t", 0, 1), kerr.NotCoordinator)
		wantCode(t, b.commitAs("g", member, gen, "t", map[int32]int64{0: 10}).Topics[0].Partitions[0].ErrorCode, nil)
		f2.want(t, map[string]int64{"g/t/0": 10, "g/t/70": 4})
		f.want(t, map[string]int64{"g/t/0": 3, "g/t/70": 4})
	})
}
