package checker

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/tiering/audit"
)

// story tells histories by hand, on a clock of its own that each step advances
// by a millisecond.
type story struct {
	*History
	t     int64
	p     *Producer
	rules Rules
	sent  []*Send
}

func newStory() *story {
	s := &story{}
	s.History = NewHistoryWith(Options{Clock: func() int64 { s.t += int64(time.Millisecond); return s.t }})
	s.p = s.Producer("p0")
	return s
}

func (s *story) wait(d time.Duration) { s.t += int64(d) }

const topic = "t"

// ack sends n records and has each acknowledged at the next offset from first on.
func (s *story) ack(first int64, n int) {
	for i := range n {
		one := s.p.Send(topic, 0)
		s.sent = append(s.sent, one)
		one.OK(first + int64(i))
	}
}

// read has a consumer poll, in one call, the records that were sent as numbers
// values, from offset on.
func (s *story) read(c *Consumer, offset int64, values ...int) {
	p := c.Poll()
	for i, v := range values {
		p.Add(Key{topic, 0}, Record{Offset: offset + int64(i), Value: s.sent[v].Value})
	}
	p.Done(nil)
}

// scan reads everything from 0 to hw, at broker-1, twice.
func (s *story) scan(hw int64, values ...int) {
	for _, name := range []string{"scan-1", "scan-2"} {
		c := s.Scanner(name, "broker-1", ReadUncommitted)
		p := c.Poll()
		for i, v := range values {
			p.Add(Key{topic, 0}, Record{Offset: int64(i), Value: s.sent[v].Value})
		}
		p.Marks(topic, 0, Marks{0, hw, hw})
		p.Done(nil)
	}
}

func (s *story) assigned(proc string) *Consumer {
	c := s.Consumer(proc, ReadUncommitted, Assigned)
	c.Assign(map[Key]int64{{topic, 0}: 0})
	return c
}

func (s *story) list(hw int64) { s.marks(Marks{-1, -1, hw}) }
func (s *story) marks(m Marks) {
	s.ListOffsets("lister", ReadUncommitted).Done("broker-1", map[Key]Marks{{topic, 0}: m}, nil)
}

func (s *story) commit(member string, generation int32, offset int64) Commit {
	return s.OffsetCommit(member, "g", member, generation, map[Key]int64{{topic, 0}: offset})
}

func (s *story) fetch(offset int64) {
	s.OffsetFetch("f", "g").Done("broker-1", map[Key]int64{{topic, 0}: offset}, nil)
}

// load sends a record every 100 ms for d; each is acknowledged after took, or
// never if that is negative.
func (s *story) load(d, took time.Duration) {
	for end := s.t + int64(d); s.t < end; s.wait(99 * time.Millisecond) {
		one := s.p.Send(topic, 0)
		s.sent = append(s.sent, one)
		if took >= 0 {
			s.wait(took)
			one.OK(int64(len(s.sent) - 1))
		}
	}
}

var errReset = errors.New("connection reset")

// TestBadHistories: each breaks one invariant, and is told for that.
func TestBadHistories(t *testing.T) {
	f := func(id, name string, tell func(s *story)) {
		t.Helper()
		s := newStory()
		tell(s)
		v := s.Check(s.rules)
		if v.Broken[id] == 0 || len(v.Broken) != 1 {
			t.Errorf("%s, %s: broken is %v: %v", id, name, v.Broken, v.Violations)
		}
	}
	f("C0", "a payload is damaged", func(s *story) {
		s.ack(0, 1)
		b := s.sent[0].Bytes(40)
		b[20] ^= 4
		p := s.assigned("c").Poll()
		p.Record(topic, 0, 0, b)
		p.Done(nil)
		s.read(s.assigned("d"), 0, 0)
	})
	f("C0", "a record nobody sent", func(s *story) {
		p := s.assigned("c").Poll()
		p.Record(topic, 0, 0, Bytes(77, 40))
		p.Done(nil)
	})
	f("C0", "a record of another partition", func(s *story) {
		one := s.p.Send(topic, 1)
		p := s.assigned("c").Poll()
		p.Record(topic, 0, 0, one.Bytes(40))
		p.Done(nil)
	})
	f("C1", "an acknowledged record below what was read was read by nobody", func(s *story) {
		s.ack(0, 3)
		s.read(s.Consumer("c", ReadUncommitted, Subscribed), 0, 0)
		s.read(s.Consumer("d", ReadUncommitted, Subscribed), 2, 2)
	})
	f("C1", "the first record", func(s *story) {
		s.ack(0, 2)
		s.read(s.Consumer("c", ReadUncommitted, Subscribed), 1, 1)
	})
	f("C2", "the scan ends before an acknowledged record", func(s *story) {
		s.ack(0, 3)
		s.scan(2, 0, 1)
	})
	f("C2", "the scan ends before a record of unknown outcome that was read", func(s *story) {
		s.ack(0, 2)
		one := s.p.Send(topic, 0)
		s.sent = append(s.sent, one)
		one.Info(errReset)
		s.read(s.assigned("c"), 0, 0, 1, 2)
		s.scan(2, 0, 1)
	})
	f("C2", "one of the two scans stops below the high watermark", func(s *story) {
		s.ack(0, 3)
		s.scan(3, 0, 1, 2)
		c := s.Scanner("scan-3", "broker-1", ReadUncommitted)
		p := c.Poll()
		p.Add(Key{topic, 0}, Record{Offset: 0, Value: 1}, Record{Offset: 1, Value: 2})
		p.Marks(topic, 0, Marks{0, 3, 3})
		p.Done(nil)
	})
	f("C2", "a broker was scanned once only", func(s *story) {
		s.rules.Nodes = []string{"broker-1", "broker-2"}
		s.ack(0, 1)
		s.scan(1, 0)
		p := s.Scanner("scan-3", "broker-2", ReadUncommitted).Poll()
		p.Add(Key{topic, 0}, Record{Offset: 0, Value: 1})
		p.Marks(topic, 0, Marks{0, 1, 1})
		p.Done(nil)
	})
	f("C2", "a scan that failed", func(s *story) {
		s.ack(0, 1)
		s.scan(1, 0)
		s.Scanner("scan-1", "broker-1", ReadUncommitted).Poll().Done(errReset)
	})
	f("C2", "a scan that does not know where the log ends", func(s *story) {
		s.ack(0, 1)
		s.read(s.Scanner("scan-1", "broker-1", ReadUncommitted), 0, 0)
	})
	f("C3", "an acknowledged offset holds another record", func(s *story) {
		s.ack(0, 1)
		one := s.p.Send(topic, 0)
		s.sent = append(s.sent, one)
		one.Info(errReset)
		s.read(s.assigned("c"), 0, 1)
	})
	f("C3", "two consumers read different records", func(s *story) {
		for range 2 {
			one := s.p.Send(topic, 0)
			s.sent = append(s.sent, one)
			one.Info(errReset)
		}
		s.read(s.assigned("c"), 0, 0)
		s.read(s.assigned("d"), 0, 1)
	})
	f("C3", "two records are acknowledged at one offset", func(s *story) {
		s.ack(0, 1)
		s.ack(0, 1)
	})
	f("C3", "an acknowledgement without an offset", func(s *story) { s.p.Send(topic, 0).OK(-1) })
	f("C4", "a record is there twice", func(s *story) {
		s.ack(0, 2)
		s.read(s.assigned("c"), 0, 0, 1, 0)
	})
	f("C4", "a record lies elsewhere than acknowledged", func(s *story) {
		s.ack(5, 1)
		s.read(s.Consumer("c", ReadUncommitted, Subscribed), 4, 0)
	})
	f("C5", "a refused record is read", func(s *story) {
		one := s.p.Send(topic, 0)
		s.sent = append(s.sent, one)
		one.Done(-1, kerr.OutOfOrderSequenceNumber)
		s.read(s.assigned("c"), 0, 0)
	})
	f("C8", "a poll leaves a record out", func(s *story) {
		s.ack(0, 3)
		s.read(s.assigned("d"), 0, 0, 1, 2)
		p := s.assigned("c").Poll()
		p.Add(Key{topic, 0}, Record{Offset: 0, Value: 1}, Record{Offset: 2, Value: 3})
		p.Done(nil)
	})
	f("C8", "a poll goes back", func(s *story) {
		s.ack(0, 2)
		p := s.assigned("c").Poll()
		p.Add(Key{topic, 0}, Record{Offset: 0, Value: 1}, Record{Offset: 1, Value: 2}, Record{Offset: 0, Value: 1})
		p.Done(nil)
	})
	f("C9", "a consumer leaves a record out between polls", func(s *story) {
		s.ack(0, 3)
		s.read(s.assigned("d"), 0, 0, 1, 2)
		c := s.assigned("c")
		s.read(c, 0, 0)
		s.read(c, 2, 2)
	})
	f("C9", "a consumer does not begin where it was told to", func(s *story) {
		s.ack(0, 2)
		s.read(s.assigned("d"), 0, 0, 1)
		s.read(s.assigned("c"), 1, 1)
	})
	f("C9", "a consumer goes back between polls", func(s *story) {
		s.ack(0, 2)
		c := s.assigned("c")
		s.read(c, 0, 0, 1)
		s.read(c, 1, 1)
	})
	f("C9", "a position is reset", func(s *story) {
		s.ack(0, 2)
		c := s.assigned("c")
		s.read(c, 0, 0, 1)
		c.Reset(topic, 0, 2, 0)
		s.read(c, 0, 0, 1)
	})
	f("C10", "two records in the wrong order", func(s *story) {
		a, b := s.p.Send(topic, 0), s.p.Send(topic, 0)
		b.OK(0)
		a.OK(1)
	})
	f("C10", "a record of unknown outcome lies before what was sent before it", func(s *story) {
		a, b := s.p.Send(topic, 0), s.p.Send(topic, 0)
		s.sent = append(s.sent, a, b)
		a.OK(1)
		b.Info(errReset)
		s.read(s.assigned("c"), 0, 1, 0)
	})
	f("C12", "the high watermark does not cover an acknowledgement", func(s *story) {
		s.ack(0, 3)
		s.wait(2 * time.Second)
		s.list(2)
	})
	f("C12", "the last stable offset does not cover an acknowledgement", func(s *story) {
		s.ack(0, 3)
		s.wait(2 * time.Second)
		s.marks(Marks{-1, 2, -1})
	})
	f("C12", "the high watermark falls", func(s *story) {
		s.list(5)
		s.wait(2 * time.Second)
		s.list(4)
	})
	f("C12", "the log start falls", func(s *story) {
		s.marks(Marks{3, -1, -1})
		s.wait(2 * time.Second)
		s.marks(Marks{2, -1, -1})
	})
	f("C12", "the last stable offset falls", func(s *story) {
		s.marks(Marks{0, 3, 3})
		s.wait(2 * time.Second)
		s.marks(Marks{0, 2, -1})
	})
	f("C12", "a client that names epochs is told less than before, at once", func(s *story) {
		c := s.Consumer("c", ReadUncommitted, Subscribed, Epochs)
		for _, hw := range []int64{5, 4} {
			p := c.Poll()
			p.Marks(topic, 0, Marks{-1, -1, hw})
			p.Done(nil)
		}
	})
	f("C12", "a direct consumer is told less than others before", func(s *story) {
		s.list(5)
		s.wait(2 * time.Second)
		p := s.Consumer("c", ReadUncommitted, Subscribed, Direct).Poll()
		p.Marks(topic, 0, Marks{-1, -1, 4})
		p.Done(nil)
	})
	f("C12", "the log start is above the last stable offset", func(s *story) { s.marks(Marks{3, 2, -1}) })
	f("C12", "the last stable offset is above the high watermark", func(s *story) { s.marks(Marks{-1, 3, 2}) })
	f("C13", "a commit is not seen", func(s *story) {
		s.commit("m", 1, 5).Done("", nil)
		s.fetch(-1)
	})
	f("C13", "the commit before the last is seen", func(s *story) {
		s.commit("m", 1, 5).Done("", nil)
		s.commit("m", 1, 6).Done("", nil)
		s.fetch(5)
	})
	f("C13", "zero where nothing was committed", func(s *story) { s.fetch(0) })
	f("C13", "a refused commit is seen", func(s *story) {
		s.commit("m", 1, 5).Done("", kerr.IllegalGeneration)
		s.fetch(5)
	})
	f("C13", "what was read is put back", func(s *story) {
		s.commit("m", 1, 5).Done("", nil)
		s.commit("m", 1, 6).Done("", errReset)
		s.fetch(6)
		s.fetch(5)
	})
	f("C14", "a commit of a generation that is over", func(s *story) {
		s.Stable("m", "g", "m", 1, nil)
		s.Stable("n", "g", "n", 2, nil)
		s.commit("m", 1, 5).Done("", nil)
	})
	f("C14", "a partition with two owners", func(s *story) {
		s.Stable("m", "g", "m", 2, []Key{{topic, 0}, {topic, 1}})
		s.Stable("n", "g", "n", 2, []Key{{topic, 1}})
	})
	f("C16", "the audit finds something", func(s *story) {
		s.rules.Audit = &audit.Report{Problems: []audit.Problem{{Kind: "manifest", Where: "t-0", What: "a hole"}}}
	})
	f("C16", "the audit finds less than was acknowledged", func(s *story) {
		s.ack(0, 3)
		s.rules.Audit = &audit.Report{Clean: true, Topics: []audit.Topic{{Name: topic, Records: 2}}}
	})
	f("C16", "the audit finds less than lies above the log start", func(s *story) {
		s.ack(0, 5)
		s.ListOffsets("l", ReadUncommitted).Done("", map[Key]Marks{{topic, 0}: {Start: 3, LSO: 5, HW: 5}}, nil)
		s.rules.Audit = &audit.Report{Clean: true, Topics: []audit.Topic{{Name: topic, Records: 1}}}
	})
	f("C17", "nothing is acknowledged after a heal", func(s *story) {
		s.load(time.Second, 0)
		s.Fault("kill", All, "broker-1").End()
		s.Heal()
		s.load(16*time.Second, -1)
		s.load(time.Second, 0)
	})
	f("C17", "one partition comes back, another does not", func(s *story) {
		s.Heal()
		for range 20 {
			s.p.Send(topic, 1)
			s.load(time.Second, 0)
		}
	})
	f("C17", "a send is never answered", func(s *story) {
		s.p.Send(topic, 1)
		s.load(62*time.Second, 0)
	})
	f("C17", "a send is answered late, though every fault was long over", func(s *story) {
		one := s.p.Send(topic, 1)
		s.Fault("pause", Minority, "broker-1").End()
		s.load(61*time.Second, 0)
		one.Info(errReset)
	})
	f("C17", "a consumer stops", func(s *story) {
		c := s.assigned("c")
		s.load(62*time.Second, 0)
		c.Close()
	})
	f("C17", "a consumer stops and goes on late", func(s *story) {
		c := s.assigned("c")
		s.load(62*time.Second, 0)
		s.read(c, 0, 0)
		c.Close()
	})
	f("C17", "a member of a group stops", func(s *story) {
		c := s.Consumer("c", ReadUncommitted, Subscribed)
		s.Stable("c", "g", "m", 1, []Key{{topic, 0}})
		s.load(62*time.Second, 0)
		c.Close()
	})
	f("C17", "the last stable offset stays behind", func(s *story) { s.marks(Marks{0, 2, 3}) })
	f("C18", "nothing goes on while one broker is away", func(s *story) {
		fault := s.Fault("pause", Minority, "broker-1")
		s.load(14*time.Second, -1)
		s.load(time.Second, 0)
		s.load(16*time.Second, -1)
		fault.End()
		s.load(time.Second, 0)
	})
}
