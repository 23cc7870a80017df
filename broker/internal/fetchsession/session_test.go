package fetchsession

import (
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func parts(n int) []Partition {
	out := make([]Partition, n)
	for i := range out {
		out[i] = Partition{Key: Key{Name: "t", Partition: int32(i)}, MaxBytes: 1}
	}
	return out
}

func order(s *Session) []int32 {
	var out []int32
	for _, p := range s.Partitions() {
		out = append(out, p.Key.Partition)
	}
	return out
}

func TestEpochs(t *testing.T) {
	c := NewCache(10)
	s := c.Create(false, parts(2))
	if s.ID <= 0 || s.Epoch != 1 {
		t.Fatalf("%+v", s)
	}
	if _, err := c.Begin(s.ID, 1, false); !errors.Is(err, ErrEpoch) {
		t.Errorf("a session at work was begun: %v", err)
	}
	c.End(s)
	for epoch := int32(1); epoch < 4; epoch++ {
		got, err := c.Begin(s.ID, epoch, false)
		if err != nil || got != s {
			t.Fatalf("%v", err)
		}
		c.End(s)
	}
	for _, epoch := range []int32{3, 5} {
		if _, err := c.Begin(s.ID, epoch, false); !errors.Is(err, ErrEpoch) {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
	if _, err := c.Begin(s.ID, 4, true); !errors.Is(err, ErrTopicIDs) {
		t.Errorf("topic ids: %v", err)
	}
	if _, err := c.Begin(s.ID+1, 4, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("another id: %v", err)
	}
	if nextEpoch(math.MaxInt32) != 1 {
		t.Error("the epoch does not wrap to 1")
	}
	if _, err := c.Begin(s.ID, 4, false); err != nil {
		t.Fatal(err)
	}
	s.Forget(Key{Name: "t", Partition: 0})
	s.Forget(Key{Name: "t", Partition: 1})
	c.End(s) // nothing left: dropped
	if c.Len() != 0 {
		t.Error("an empty session is kept")
	}
}

func TestToldOnlyNews(t *testing.T) {
	c := NewCache(1)
	s := c.Create(false, parts(3))
	k := Key{Name: "t", Partition: 0}
	quiet := Answer{HighWatermark: 5}
	if !s.Told(k, quiet) {
		t.Error("the first answer is news")
	}
	if s.Told(k, quiet) {
		t.Error("the same again is not")
	}
	for _, a := range []Answer{{HighWatermark: 6}, {HighWatermark: 6, LogStart: 1}, {HighWatermark: 6, LogStart: 1, Bytes: 9}, {HighWatermark: -1, LogStart: -1, Failed: true}} {
		if !s.Told(k, a) {
			t.Errorf("%+v is news", a)
		}
	}
	if !s.Told(k, Answer{HighWatermark: 6, LogStart: 1}) {
		t.Error("the end of an error is news")
	}
	if got := order(s); !slices.Equal(got, []int32{1, 2, 0}) {
		t.Errorf("served first, next time last: %v", got)
	}
}

func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCache(2)
		small, large := c.Create(false, parts(1)), c.Create(false, parts(5))
		c.End(small)
		c.End(large)
		if s := c.Create(false, parts(3)); s.ID != 0 {
			t.Error("a young session was evicted")
		}
		time.Sleep(EvictAfter + time.Second)
		for range 2 { // both are in use
			for _, s := range []*Session{small, large} {
				if _, err := c.Begin(s.ID, s.Epoch, false); err != nil {
					t.Fatal(err)
				}
				c.End(s)
			}
		}
		s := c.Create(false, parts(3))
		if s.ID == 0 || c.Len() != 2 {
			t.Error("a larger session does not replace a smaller one")
		}
		if _, err := c.Begin(small.ID, small.Epoch, false); !errors.Is(err, ErrNotFound) {
			t.Errorf("the smallest should be gone: %v", err)
		}
		c.End(s)
		time.Sleep(EvictAfter + time.Second)
		if s := c.Create(false, parts(1)); s.ID == 0 {
			t.Error("an idle session is not evicted")
		}
		if s := c.Create(false, nil); s.ID != 0 {
			t.Error("an empty session is kept")
		}
	})
}

// Sessions are bounded by what they hold, not by their number alone: a client
// may name any partitions, and as many as fit a request.
func TestPartitionsAreBounded(t *testing.T) {
	synctest.Test(t, testPartitionsAreBounded)
}

func testPartitionsAreBounded(t *testing.T) {
	c := NewCache(10)
	c.partitionsMax = 100
	a := c.Create(false, parts(60))
	if c.End(a); a.ID == 0 {
		t.Fatal("no session although there is room")
	}
	if b := c.Create(false, parts(60)); b.ID != 0 {
		t.Error("more partitions than there is room for are kept")
	}
	b := c.Create(false, parts(40))
	if b.ID == 0 {
		t.Fatal("no session although there is room")
	}
	for _, p := range parts(41) { // grows by one while it is at work
		b.Set(p)
	}
	c.End(b)
	if _, err := c.Begin(b.ID, 1, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("a session that has grown too large is kept: %v", err)
	}
	if again := c.Create(false, parts(40)); again.ID == 0 {
		t.Error("what was dropped still counts")
	}
	c.Remove(a.ID)
	c.Remove(a.ID)
	again := c.Create(false, parts(60))
	if c.End(again); again.ID == 0 {
		t.Error("what was removed still counts")
	}
	time.Sleep(EvictAfter + time.Second)
	if next := c.Create(false, parts(60)); next.ID == 0 {
		t.Error("a session that nobody uses keeps others out")
	}
}
