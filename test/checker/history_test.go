package checker

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// everything tells one event of every kind.
func everything(h *History) {
	p := h.RetryingProducer("p0")
	s := p.Send("a-b", 3)
	s.At("broker-1")
	s.OK(7)
	p.Send("t", 0).Done(-1, kerr.MessageTooLarge)
	p.Send("t", 0).Done(-1, kerr.NotLeaderForPartition)
	c := h.Consumer("c0", ReadCommitted, Subscribed, Epochs)
	c.Subscribe("g")
	poll := c.Poll()
	poll.Record("a-b", 3, 7, s.Bytes(100))
	poll.Record("a-b", 3, 8, []byte("what \"is\" this"))
	poll.Marks("a-b", 3, Marks{0, 9, 9})
	poll.Done(nil)
	c.Poll().Done(nil)
	c.Poll().Done(errors.New("connection reset"))
	c.Reset("t", 0, 5, 0)
	c.Close()
	a := h.Scanner("s0", "broker-2", ReadUncommitted)
	a.Assign(map[Key]int64{{"t", 1}: 0, {"t", 0}: -1})
	h.ListOffsets("l", ReadUncommitted).Done("broker-1", map[Key]Marks{{"t", 0}: {-1, -1, 4}}, nil)
	h.OffsetCommit("c0", "g", "m-1", 2, map[Key]int64{{"t", 0}: 4}).Done("", nil)
	h.OffsetCommit("c0", "g", "m-1", 1, map[Key]int64{{"t", 0}: 4}).Done("", kerr.IllegalGeneration)
	h.OffsetCommit("c0", "g", "m-1", 1, map[Key]int64{{"t", 0}: 4}).Retried().Done("", kerr.IllegalGeneration)
	h.OffsetFetch("c0", "g").Done("", map[Key]int64{{"t", 0}: 4, {"t", 1}: -1}, nil)
	h.Stable("c0", "g", "m-1", 2, []Key{{"t", 0}})
	f := h.Fault("kill", Minority, "broker-1")
	f.End()
	h.Heal()
	h.Note("the %s", "end")
}

func TestHistoryReadsBackAsItWasTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "history.jsonl")
	h, done, err := CreateHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	everything(h)
	// As it goes: before anything is closed.
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := h.Events()
	if len(want) < 25 || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for i, e := range got {
		if e.I != int64(i+1) || i > 0 && e.T < got[i-1].T {
			t.Errorf("event %d is numbered %d at %d", i, e.I, e.T)
		}
	}
	if err := done(); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again")
	if err := h.WriteFile(again); err != nil {
		t.Fatal(err)
	}
	one, _ := os.ReadFile(path)
	two, _ := os.ReadFile(again)
	if !bytes.Equal(one, two) {
		t.Error("WriteFile writes other lines than the writer got")
	}
}

func TestHalfALineIsNoError(t *testing.T) {
	var b bytes.Buffer
	everything(NewHistoryWith(Options{Writer: &b}))
	whole := 0
	if err := Read(bytes.NewReader(b.Bytes()), func(Event) error { whole++; return nil }); err != nil {
		t.Fatal(err)
	}
	cut := 0
	if err := Read(bytes.NewReader(b.Bytes()[:b.Len()-3]), func(Event) error { cut++; return nil }); err != nil || cut != whole-1 {
		t.Errorf("%d of %d events, %v", cut, whole, err)
	}
	spoilt := bytes.Replace(b.Bytes(), []byte(`["s"`), []byte(`["z"`), 1)
	if err := Read(bytes.NewReader(spoilt), func(Event) error { return nil }); err == nil {
		t.Error("an unknown operation in the middle was read without complaint")
	}
}

func TestOutcomes(t *testing.T) {
	f := func(err error, retried bool, want Type) {
		t.Helper()
		if got := outcome(err, retried); got != want {
			t.Errorf("%v, retried %v: %s, want %s", err, retried, got, want)
		}
	}
	f(nil, false, OK)
	f(kerr.MessageTooLarge, true, Fail)
	f(kerr.OutOfOrderSequenceNumber, false, Fail)
	f(kerr.OutOfOrderSequenceNumber, true, Info)
	f(kerr.NotLeaderForPartition, false, Info)
	f(kerr.RequestTimedOut, false, Info)
	f(kerr.CoordinatorNotAvailable, false, Info)
	f(kerr.KafkaStorageError, false, Info)
	f(errors.New("EOF"), false, Info)

	h := NewHistory()
	s := h.Producer("p").Send("t", 0)
	s.Ambiguous()
	s.Done(-1, kerr.InvalidProducerEpoch)
	if got := h.Counts(); got.Unknown != 1 || got.Failed != 0 {
		t.Errorf("refused after an attempt of unknown outcome: %+v", got)
	}
}

func TestHistoryFromManyGoroutines(t *testing.T) {
	var b bytes.Buffer
	h := NewHistoryWith(Options{Writer: &b})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			p := h.Producer("p")
			for i := range 200 {
				p.Send("t", 0).OK(int64(i))
			}
		})
	}
	wg.Wait()
	values := make(map[uint64]int)
	n := int64(0)
	if err := Read(&b, func(e Event) error {
		if n++; e.I != n {
			t.Errorf("line %d is event %d", n, e.I)
		}
		values[e.Ops[0].Value]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n != 3200 || len(values) != 1600 {
		t.Errorf("%d events of %d values", n, len(values))
	}
}

func TestFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHistory()
		s := h.Producer("p").Send("t", 0)
		time.Sleep(3 * time.Hour)
		s.OK(0)
		if e := h.Events()[1]; e.T-e.Begun != int64(3*time.Hour) {
			t.Errorf("begun %d, ended %d", e.Begun, e.T)
		}
	})
}

func TestBytesTellTheirValue(t *testing.T) {
	for _, size := range []int{0, 12, 100} {
		b := Bytes(1<<60+7, size)
		if v, err := ValueOf(b); err != nil || v != 1<<60+7 || len(b) != max(size, 12) {
			t.Fatalf("%d bytes of %d: value %d, %v", len(b), size, v, err)
		}
		for i := range b {
			b[i] ^= 1
			if _, err := ValueOf(b); err == nil {
				t.Errorf("byte %d of %d flipped unnoticed", i, size)
			}
			b[i] ^= 1
		}
	}
	if _, err := ValueOf(make([]byte, 11)); err == nil {
		t.Error("eleven bytes are a record")
	}
}
