package checker

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/tiering/audit"
)

// TestGoodHistories: each does something that looks like a violation and is
// allowed.
func TestGoodHistories(t *testing.T) {
	f := func(name string, tell func(s *story)) {
		t.Helper()
		s := newStory()
		tell(s)
		if v := s.Check(s.rules); !v.OK() {
			t.Errorf("%s: %v", name, v.Violations)
		}
	}
	f("nothing", func(*story) {})
	f("everything is read", func(s *story) {
		s.rules.Nodes = []string{"broker-1"}
		s.rules.Audit = &audit.Report{Clean: true, Topics: []audit.Topic{{Name: topic, Records: 4}}}
		s.ack(0, 3)
		one := s.p.Send(topic, 0)
		s.sent = append(s.sent, one)
		one.Info(errReset)
		c := s.assigned("c")
		s.read(c, 0, 0, 1)
		s.list(3)
		s.read(c, 2, 2, 3)
		s.list(4)
		s.scan(4, 0, 1, 2, 3)
	})
	f("a record of unknown outcome never shows", func(s *story) {
		one := s.p.Send(topic, 0)
		s.sent = append(s.sent, one)
		one.Done(-1, kerr.NotLeaderForPartition)
		s.ack(0, 1)
		s.scan(1, 1)
	})
	f("a send that nobody completed shows", func(s *story) {
		s.sent = append(s.sent, s.p.Send(topic, 0))
		s.scan(1, 0)
	})
	f("what was acknowledged above what was read is not read yet", func(s *story) {
		s.ack(0, 3)
		s.read(s.assigned("c"), 0, 0)
	})
	f("what is acknowledged during the scan need not be in it", func(s *story) {
		s.ack(0, 1)
		c := s.Scanner("scan", "broker-1", ReadUncommitted)
		p := c.Poll()
		p.Add(Key{topic, 0}, Record{Offset: 0, Value: 1})
		p.Marks(topic, 0, Marks{0, 1, 1})
		s.ack(1, 1)
		p.Done(nil)
	})
	f("records below the log start are gone", func(s *story) {
		s.rules.Holes = func(string) bool { return true }
		s.ack(0, 4)
		s.marks(Marks{2, -1, -1})
		s.read(s.Consumer("c", ReadUncommitted, Subscribed), 2, 2, 3)
		p := s.Scanner("scan", "broker-1", ReadUncommitted).Poll()
		p.Add(Key{topic, 0}, Record{Offset: 2, Value: 3}, Record{Offset: 3, Value: 4})
		p.Marks(topic, 0, Marks{2, 4, 4})
		p.Done(nil)
	})
	f("a producer without an id doubles and reorders", func(s *story) {
		s.p = s.PlainProducer("plain")
		a, b := s.p.Send(topic, 0), s.p.Send(topic, 0)
		s.sent = append(s.sent, a, b)
		b.OK(0)
		a.OK(1)
		s.read(s.assigned("c"), 0, 1, 0, 1)
	})
	f("a refusal after an attempt of unknown outcome", func(s *story) {
		one := s.p.Send(topic, 0)
		s.sent = append(s.sent, one)
		one.Ambiguous()
		one.Done(-1, kerr.OutOfOrderSequenceNumber)
		s.read(s.assigned("c"), 0, 0)
	})
	f("offsets with holes by right", func(s *story) {
		s.rules.Holes = func(topic string) bool { return topic == "t" }
		s.ack(0, 1)
		s.ack(5, 1)
		c := s.assigned("c")
		p := c.Poll()
		p.Add(Key{topic, 0}, Record{Offset: 0, Value: 1}, Record{Offset: 5, Value: 2})
		p.Done(nil)
		p = s.Scanner("scan", "broker-1", ReadUncommitted).Poll()
		p.Add(Key{topic, 0}, Record{Offset: 0, Value: 1}, Record{Offset: 5, Value: 2})
		p.Marks(topic, 0, Marks{0, 7, 7})
		p.Done(nil)
	})
	f("a subscribed consumer goes back and leaves out between polls", func(s *story) {
		s.ack(0, 4)
		c := s.Consumer("c", ReadUncommitted, Subscribed)
		s.read(c, 0, 0, 1)
		s.read(c, 1, 1)
		s.read(c, 3, 3)
		s.read(s.assigned("d"), 0, 0, 1, 2, 3)
	})
	f("a partition is reassigned inside a poll", func(s *story) {
		s.ack(0, 3)
		c := s.Consumer("c", ReadUncommitted, Subscribed)
		p := c.Poll()
		s.Stable("c", "g", "m", 2, []Key{{topic, 0}})
		p.Add(Key{topic, 0}, Record{Offset: 1, Value: 2}, Record{Offset: 2, Value: 3}, Record{Offset: 0, Value: 1})
		p.Done(nil)
	})
	f("an application seeks", func(s *story) {
		s.ack(0, 3)
		c := s.assigned("c")
		s.read(c, 0, 0, 1, 2)
		c.Assign(map[Key]int64{{topic, 0}: 1})
		s.read(c, 1, 1, 2)
		c.Assign(map[Key]int64{{topic, 0}: -1})
		s.read(c, 0, 0)
	})
	f("positions may be reset", func(s *story) {
		s.rules.Resets = true
		s.ack(0, 2)
		c := s.assigned("c")
		s.read(c, 0, 0, 1)
		c.Reset(topic, 0, 2, 0)
		s.read(c, 0, 0)
	})
	f("what lies below the log start need not be stored", func(s *story) {
		s.ack(0, 5)
		s.ListOffsets("l", ReadUncommitted).Done("", map[Key]Marks{{topic, 0}: {Start: 3, LSO: 5, HW: 5}}, nil)
		s.rules.Audit = &audit.Report{Clean: true, Topics: []audit.Topic{{Name: topic, Records: 2}}}
	})
	f("a record of unknown outcome comes after what was sent later", func(s *story) {
		a, b := s.p.Send(topic, 0), s.p.Send(topic, 0)
		s.sent = append(s.sent, a, b)
		a.Info(errReset)
		b.OK(0)
		s.read(s.assigned("c"), 0, 1, 0)
	})
	f("records that were never there leave no hole", func(s *story) {
		s.p.Send(topic, 0).Done(-1, kerr.MessageTooLarge)
		s.sent = append(s.sent, nil)
		s.ack(0, 2)
		s.read(s.assigned("c"), 0, 1, 2)
	})
	f("an answer of a leader deposed within the last second", func(s *story) {
		s.ack(0, 5)
		s.list(5)
		s.wait(800 * time.Millisecond)
		s.list(3)
	})
	f("a client that reads ahead is told late what was true", func(s *story) {
		c := s.Consumer("c", ReadUncommitted, Subscribed)
		s.list(5)
		s.wait(5 * time.Second)
		p := c.Poll()
		p.Marks(topic, 0, Marks{0, 4, 4})
		p.Done(nil)
	})
	f("an answer that began before the acknowledgement", func(s *story) {
		l := s.ListOffsets("l", ReadUncommitted)
		s.wait(3 * time.Second)
		s.ack(0, 3)
		s.wait(3 * time.Second)
		l.Done("broker-1", map[Key]Marks{{topic, 0}: {-1, -1, 0}}, nil)
	})
	f("requests that fail", func(s *story) {
		s.ListOffsets("l", ReadUncommitted).Done("", nil, errReset)
		s.OffsetFetch("f", "g").Done("", nil, errReset)
		s.commit("m", 1, 3).Done("", kerr.CoordinatorNotAvailable)
		s.fetch(-1)
	})
	f("a commit of unknown outcome is seen, or not", func(s *story) {
		s.commit("m", 1, 5).Done("", nil)
		s.commit("m", 1, 6).Done("", errReset)
		s.fetch(5)
		s.fetch(6)
	})
	f("a fetch during a commit sees either", func(s *story) {
		s.commit("m", 1, 5).Done("", nil)
		c := s.commit("m", 1, 6)
		a, b := s.OffsetFetch("f", "g"), s.OffsetFetch("h", "g")
		b.Done("", map[Key]int64{{topic, 0}: 5}, nil)
		c.Done("", nil)
		a.Done("", map[Key]int64{{topic, 0}: 5}, nil)
	})
	f("a position is committed backwards", func(s *story) {
		s.commit("m", 1, 5).Done("", nil)
		s.commit("m", 1, 2).Done("", nil)
		s.fetch(2)
		s.commit("m", 1, 5).Done("", nil)
		s.fetch(5)
	})
	f("a commit that began before the next generation was stable", func(s *story) {
		s.Stable("m", "g", "m", 1, []Key{{topic, 0}})
		c := s.commit("m", 1, 5)
		s.Stable("n", "g", "n", 2, []Key{{topic, 0}})
		c.Done("", nil)
		s.commit("m", 1, 6).Done("", kerr.IllegalGeneration)
		s.commit("", -1, 7).Done("", nil)
	})
	f("a member is told twice", func(s *story) {
		s.Stable("m", "g", "m", 2, []Key{{topic, 0}})
		s.Stable("m", "g", "m", 2, []Key{{topic, 0}})
	})
	f("a fault stops everything, and may", func(s *story) {
		s.load(time.Second, 0)
		fault := s.Fault("bucket", All)
		one := s.p.Send(topic, 0)
		s.sent = append(s.sent, one)
		s.wait(90 * time.Second)
		fault.End()
		s.Heal()
		s.wait(10 * time.Second)
		one.OK(int64(len(s.sent) - 1))
		s.load(20*time.Second, 0)
	})
	f("a minority's fault stops everything until it failed over", func(s *story) {
		s.load(time.Second, 0)
		fault := s.Fault("pause", Minority, "broker-1")
		s.wait(14 * time.Second)
		s.load(40*time.Second, 0)
		fault.End()
	})
	f("two minorities are more than one", func(s *story) {
		s.load(time.Second, 0)
		one := s.Fault("pause", Minority, "broker-1")
		two := s.Fault("cut", Minority, "broker-2")
		s.load(40*time.Second, -1)
		one.End()
		two.End()
	})
	f("a heal that the next fault follows", func(s *story) {
		s.Heal()
		s.load(5*time.Second, -1)
		s.Fault("kill", All, "broker-1")
		s.load(20*time.Second, -1)
	})
	f("a consumer at the end waits", func(s *story) {
		s.ack(0, 1)
		c := s.assigned("c")
		s.read(c, 0, 0)
		s.wait(3 * time.Minute)
		c.Close()
	})
	f("a closed consumer reads no more", func(s *story) {
		s.assigned("c").Close()
		s.load(2*time.Minute, 0)
	})
	f("a member whose partition went elsewhere", func(s *story) {
		s.Consumer("c", ReadUncommitted, Subscribed).Subscribe("g")
		s.Stable("c", "g", "m", 1, []Key{{topic, 0}})
		s.Stable("c", "g", "m", 2, nil)
		s.load(2*time.Minute, 0)
	})
	f("with transactions the last stable offset stays behind", func(s *story) {
		s.p.Begin().Send(topic, 0)
		s.marks(Marks{0, 2, 3})
	})
}

func TestViolationsNameTheirEvents(t *testing.T) {
	s := newStory()
	s.ack(0, 1)
	s.sent = append(s.sent, s.Producer("other").Send(topic, 0))
	s.read(s.assigned("reader"), 0, 1)
	v := s.Check(s.rules)
	if len(v.Violations) != 1 {
		t.Fatal(v.Violations)
	}
	got := v.Violations[0].String()
	for _, part := range []string{"C3 changed", "t-0 offset 0", "value 1", "p0 in event 2 at", "value 2", "other in event 3", "reader in event 5"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q does not tell %q", got, part)
		}
	}
	if !strings.Contains(v.String(), "broken: 1 of C3") {
		t.Error(v)
	}
}

func TestFilesAreJudgedAlike(t *testing.T) {
	s := newStory()
	s.ack(0, 10)
	s.ack(3, 1)
	s.read(s.assigned("c"), 0, 0, 2)
	want := s.Check(Rules{})
	path := filepath.Join(t.TempDir(), "h")
	if err := s.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	got, err := CheckFile(path, Rules{})
	if err != nil || got.String() != want.String() || len(got.Violations) != len(want.Violations) || want.OK() {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

// TestManyViolationsAreCounted: a broken log does not flood the report.
func TestManyViolationsAreCounted(t *testing.T) {
	s := newStory()
	for range 500 {
		s.p.Send(topic, 0).OK(-1)
	}
	if v := s.Check(Rules{}); v.Broken["C3"] != 500 || len(v.Violations) != shownMax {
		t.Errorf("%d broken, %d told", v.Broken["C3"], len(v.Violations))
	}
}

// big tells a history of n sends and what comes with them.
func big(n int) *story {
	s := newStory()
	c := s.Consumer("c", ReadUncommitted, Assigned)
	assigned := make(map[Key]int64)
	for p := range int32(12) {
		assigned[Key{topic, p}] = 0
	}
	c.Assign(assigned)
	var producers []*Producer
	for _, name := range []string{"a", "b", "c1", "d"} {
		producers = append(producers, s.Producer(name))
	}
	next := make([]int64, 12)
	for i := 0; i < n; i += 12 {
		poll := c.Poll()
		for p := range int32(12) {
			one := producers[(i/12)%4].Send(topic, p)
			one.OK(next[p])
			poll.Add(Key{topic, p}, Record{Offset: next[p], Value: one.Value})
			next[p]++
		}
		poll.Done(nil)
		if i%120 == 0 {
			s.marks(Marks{0, next[0], next[0]})
			s.OffsetCommit("m", "g", "m", 1, map[Key]int64{{topic, 0}: next[0]}).Done("", nil)
			s.fetch(next[0])
		}
	}
	return s
}

// TestTimeIsLinear: four times the history does not take sixteen times as long.
func TestTimeIsLinear(t *testing.T) {
	took := func(n int) time.Duration {
		events := big(n).Events()
		begun := time.Now()
		v := Check(events, Rules{})
		if !v.OK() || v.Known < n {
			t.Fatal(v, v.Violations)
		}
		return time.Since(begun)
	}
	const n = 20_000
	took(n)
	for tries := 0; ; tries++ { // others use the machine too
		one, four := took(n), took(4*n)
		if four < 9*one {
			return
		}
		if tries == 4 {
			t.Fatalf("%d records take %v, %d take %v", n, one, 4*n, four)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	s := big(100_000)
	events := s.Events()
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		Check(events, Rules{})
	}
	b.ReportMetric(float64(len(events))*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
