package checker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// in sends n records in a transaction, acknowledged from an offset on.
func (s *story) in(t *Txn, partition int32, first int64, n int) {
	for i := range n {
		one := t.Send(topic, partition)
		s.sent = append(s.sent, one)
		one.OK(first + int64(i))
	}
}

// committed is a consumer that reads partition 0 at read_committed.
func (s *story) committed(proc string) *Consumer {
	c := s.Consumer(proc, ReadCommitted, Assigned)
	c.Assign(map[Key]int64{{topic, 0}: 0, {topic, 1}: 0})
	return c
}

// reads has a consumer poll one record.
func (s *story) reads(c *Consumer, partition int32, offset int64, value int) {
	p := c.Poll()
	p.Add(Key{topic, partition}, Record{Offset: offset, Value: s.sent[value].Value})
	p.Done(nil)
}

func (s *story) ended(t *Txn, commit bool) { t.End(commit, "", nil).OK() }

// copies has a topic with two records, and a transaction that copies some.
func (s *story) copies(of ...int) {
	s.rules.Copies = []Copy{{From: topic, To: "copy"}}
	s.ack(0, 2)
	t := s.Producer("copier").Begin()
	for i, n := range of {
		one := t.Copy("copy", 0, Key{topic, 0}, Record{Offset: int64(n), Value: s.sent[n].Value})
		s.sent = append(s.sent, one)
		one.OK(int64(i))
	}
	s.ended(t, true)
	p := s.Consumer("c", ReadCommitted, Subscribed).Poll()
	for i := range of {
		p.Add(Key{"copy", 0}, Record{Offset: int64(i), Value: s.sent[2+i].Value})
	}
	p.Done(nil)
}

// TestBadTransactions: each breaks these invariants, and is told for them alone.
func TestBadTransactions(t *testing.T) {
	f := func(ids, name string, tell func(s *story)) {
		t.Helper()
		s := newStory()
		tell(s)
		v := s.Check(s.rules)
		var broken []string
		for id := range v.Broken {
			broken = append(broken, id)
		}
		if slices.Sort(broken); strings.Join(broken, " ") != ids {
			t.Errorf("%s, %s: broken is %v: %v", ids, name, v.Broken, v.Violations)
		}
	}
	f("C1", "nothing of a committed transaction is read, though what lies behind it is", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 2)
		s.ended(x, true)
		s.ack(3, 1)
		s.reads(s.Consumer("c", ReadCommitted, Subscribed), 0, 3, 2)
		s.read(s.Consumer("d", ReadUncommitted, Subscribed), 0, 0, 1)
	})
	f("C2", "a scan at read_committed misses what is committed", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 2)
		s.ended(x, true)
		s.read(s.Consumer("d", ReadCommitted, Subscribed), 0, 0, 1)
		p := s.Scanner("scan", "broker-1", ReadCommitted).Poll()
		p.Add(Key{topic, 0}, Record{Offset: 1, Value: s.sent[1].Value})
		p.Marks(topic, 0, Marks{0, 3, 3})
		p.Done(nil)
	})
	f("C5", "a record of an aborted transaction is read", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		s.ended(x, false)
		s.reads(s.committed("c"), 0, 0, 0)
	})
	f("C5", "a record of a transaction whose producer died is read", func(s *story) {
		s.in(s.p.Begin(), 0, 0, 1)
		s.reads(s.committed("c"), 0, 0, 0)
	})
	f("C5", "a record of a transaction that could not be committed is read", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		x.End(true, "", nil).Aborted(kerr.TransactionAbortable)
		s.reads(s.committed("c"), 0, 0, 0)
	})
	f("C6", "a transaction reads what it sent", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		p := s.committed("c").Poll().In(x)
		p.Add(Key{topic, 0}, Record{Offset: 0, Value: s.sent[0].Value})
		p.Done(nil)
		s.ended(x, true)
	})
	f("C6", "a record is read before its commit is asked for", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		s.reads(s.committed("c"), 0, 0, 0)
		s.ended(x, true)
	})
	f("C6 C7", "two transactions read what the other wrote", func(s *story) {
		x, y := s.p.Begin(), s.Producer("q").Begin()
		s.in(x, 0, 0, 1)
		s.in(y, 1, 0, 1)
		p := s.committed("c").Poll().In(y)
		p.Add(Key{topic, 0}, Record{Offset: 0, Value: s.sent[0].Value})
		p.Done(nil)
		end := y.End(true, "", nil)
		p = s.committed("d").Poll().In(x)
		p.Add(Key{topic, 1}, Record{Offset: 0, Value: s.sent[1].Value})
		p.Done(nil)
		end.OK()
		s.ended(x, true)
	})
	f("C9", "a reader leaves out what is committed", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		s.ended(x, true)
		s.reads(s.committed("d"), 0, 0, 0)
		s.ack(2, 1)
		s.reads(s.committed("c"), 0, 2, 1)
	})
	f("C9", "a reader of what is committed goes back behind what it read", func(s *story) {
		s.ack(0, 3)
		c := s.committed("c")
		s.reads(c, 0, 0, 0)
		s.reads(c, 0, 1, 1)
		c.Reset(topic, 0, 5, 1)
	})
	f("C9", "a reader that went back leaves out what is committed", func(s *story) {
		s.ack(0, 3)
		s.reads(s.Consumer("d", ReadCommitted, Subscribed), 0, 1, 1)
		c := s.committed("c")
		s.reads(c, 0, 0, 0)
		c.Reset(topic, 0, 2, 2)
		s.reads(c, 0, 2, 2)
	})
	f("C11", "half of a transaction is read", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		s.in(x, 1, 0, 1)
		x.End(true, "", nil).Unknown(errReset)
		s.reads(s.committed("c"), 0, 0, 0)
		behind := s.p.Send(topic, 1)
		s.sent = append(s.sent, behind)
		behind.OK(2)
		s.reads(s.Consumer("d", ReadCommitted, Subscribed), 1, 2, 2)
		s.reads(s.Consumer("e", ReadUncommitted, Subscribed), 1, 0, 1)
	})
	f("C13", "the offsets of a committed transaction are not there", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		x.End(true, "g", map[Key]int64{{topic, 0}: 5}).OK()
		s.fetch(-1)
	})
	f("C13", "the offsets of an aborted transaction are there", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		x.End(true, "g", map[Key]int64{{topic, 0}: 5}).Aborted(kerr.TransactionAbortable)
		s.fetch(5)
	})
	f("C15", "a record was not copied", func(s *story) { s.copies(0) })
	f("C15", "a record was copied twice", func(s *story) { s.copies(0, 1, 1) })
	f("C15", "copies lie in another order", func(s *story) { s.copies(1, 0) })
	f("C15", "a copy of what is not there", func(s *story) {
		s.copies(0, 1)
		x := s.Producer("q").Begin()
		one := x.Copy("copy", 0, Key{topic, 0}, Record{Offset: 9, Value: 99})
		s.sent = append(s.sent, one)
		one.OK(3)
		s.ended(x, true)
		p := s.Consumer("d", ReadCommitted, Subscribed).Poll()
		p.Add(Key{"copy", 0}, Record{Offset: 3, Value: one.Value})
		p.Done(nil)
	})
	f("C17", "the last stable offset stays behind for ever", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		s.ended(x, true)
		s.wait(71 * time.Second)
		s.marks(Marks{0, 0, 2})
	})
	f("C17", "a transaction does not end", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		x.End(true, "", nil)
		s.wait(61 * time.Second)
		s.list(1)
	})
}

// TestGoodTransactions: each does something that looks like a violation and is
// allowed.
func TestGoodTransactions(t *testing.T) {
	f := func(name string, tell func(s *story)) *Verdict {
		t.Helper()
		s := newStory()
		tell(s)
		v := s.Check(s.rules)
		if !v.OK() {
			t.Errorf("%s: %v", name, v.Violations)
		}
		return v
	}
	f("readers of what is committed leave out what is not, and markers", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 2)
		s.ended(x, false)
		y := s.p.Begin()
		s.in(y, 0, 3, 1)
		s.ended(y, true)
		s.ack(5, 1)
		c := s.committed("c")
		p := c.Poll()
		p.Add(Key{topic, 0}, Record{Offset: 3, Value: s.sent[2].Value}, Record{Offset: 5, Value: s.sent[3].Value})
		p.Done(nil)
		for i, isol := range []string{ReadCommitted, ReadUncommitted, ReadUncommitted} {
			p = s.Scanner(fmt.Sprint("scan-", i), "broker-1", isol).Poll()
			if isol == ReadUncommitted {
				p.Add(Key{topic, 0}, Record{Offset: 0, Value: s.sent[0].Value}, Record{Offset: 1, Value: s.sent[1].Value})
			}
			p.Add(Key{topic, 0}, Record{Offset: 3, Value: s.sent[2].Value}, Record{Offset: 5, Value: s.sent[3].Value})
			p.Marks(topic, 0, Marks{0, 6, 6})
			p.Done(nil)
		}
	})
	f("a reader goes back over what was aborted, and it delivered nothing of", func(s *story) {
		s.ack(0, 1)
		c := s.committed("c")
		s.reads(c, 0, 0, 0)
		x := s.p.Begin()
		s.in(x, 0, 1, 2)
		s.ended(x, false)
		c.Reset(topic, 0, 4, 1)
		s.ack(4, 1)
		s.reads(c, 0, 4, 3)
	})
	f("a commit of unknown outcome, of which nothing shows", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		s.in(x, 1, 0, 1)
		x.End(true, "g", map[Key]int64{{topic, 0}: 5}).Unknown(errReset)
		s.fetch(-1)
		s.ack(2, 1)
		s.reads(s.committed("c"), 0, 2, 2)
	})
	f("a commit of unknown outcome, of which all shows", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		s.in(x, 1, 0, 1)
		x.End(true, "g", map[Key]int64{{topic, 0}: 5}).Unknown(errReset)
		s.fetch(5)
		c := s.committed("c")
		s.reads(c, 0, 0, 0)
		s.reads(c, 1, 0, 1)
	})
	f("an open transaction holds the last stable offset back", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		s.wait(2 * time.Second)
		s.marks(Marks{0, 0, 1})
		s.wait(50 * time.Second)
		s.marks(Marks{0, 0, 1})
	})
	f("everybody reads what is not committed at read_uncommitted", func(s *story) {
		x := s.p.Begin()
		s.in(x, 0, 0, 1)
		s.read(s.assigned("c"), 0, 0)
		s.ended(x, false)
	})
	f("a chain of transactions", func(s *story) {
		x, y := s.p.Begin(), s.Producer("q").Begin()
		s.in(x, 0, 0, 1)
		s.ended(x, true)
		p := s.committed("c").Poll().In(y)
		p.Add(Key{topic, 0}, Record{Offset: 0, Value: s.sent[0].Value})
		p.Done(nil)
		s.in(y, 1, 0, 1)
		s.ended(y, true)
		p = s.committed("d").Poll().In(s.p.Begin())
		p.Add(Key{topic, 1}, Record{Offset: 0, Value: s.sent[1].Value})
		p.Done(nil)
	})
	v := f("everything is copied, at the second try", func(s *story) {
		x := s.Producer("first").Begin()
		x.Copy("copy", 0, Key{topic, 0}, Record{Value: 1}).OK(5)
		s.ended(x, false)
		s.copies(0, 1)
	})
	if v.Copied != 2 || v.Transactions != 2 || v.Commits != 1 || v.Aborts != 1 {
		t.Errorf("%v", v)
	}
}
