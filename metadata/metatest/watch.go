package metatest

import (
	"context"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

// next receives events that are not mere progress.
func (s *suite) next(ch <-chan metadata.Events) metadata.Events {
	s.Helper()
	for {
		select {
		case ev, ok := <-ch:
			if !ok {
				s.Fatal("watch ended")
			}
			if len(ev.Events) > 0 || ev.Err != nil {
				return ev
			}
		case <-s.ctx.Done():
			s.Fatal("no event")
		}
	}
}

// collect receives n changes as text.
func (s *suite) collect(ch <-chan metadata.Events, n int) []string {
	s.Helper()
	var out []string
	for len(out) < n {
		events := s.next(ch)
		if events.Err != nil {
			s.Fatalf("watch ended: %v", events.Err)
		}
		for _, ev := range events.Events {
			if ev.Entry.ModRevision > events.Revision {
				s.Fatalf("change at %d in events up to %d", ev.Entry.ModRevision, events.Revision)
			}
			text := ev.Entry.Key + "=" + string(ev.Entry.Value)
			if ev.Deleted {
				text = "-" + ev.Entry.Key
				if ev.Entry.Value != nil {
					s.Fatalf("deletion with a value: %+v", ev)
				}
			}
			out = append(out, fmt.Sprintf("%s@%d", text, ev.Entry.ModRevision))
		}
	}
	return out
}

func at(text string, rev int64) string { return fmt.Sprintf("%s@%d", text, rev) }

func watchPast(s *suite) {
	r1 := s.must(put("w", "1"))
	r2 := s.must(put("w", "2"))
	r3 := s.must(metadata.Delete("w"))
	all := s.kv.Watch(s.ctx, "w", r1)
	s.equal("from the first", s.collect(all, 3), []string{at("w=1", r1), at("w=2", r2), at("-w", r3)})
	s.equal("from the second", s.collect(s.kv.Watch(s.ctx, "w", r2), 2), []string{at("w=2", r2), at("-w", r3)})
	later := s.kv.Watch(s.ctx, "w", r3+1)
	r4 := s.must(put("w", "4"))
	s.equal("from the future", s.collect(later, 1), []string{at("w=4", r4)})
	s.equal("going on", s.collect(all, 1), []string{at("w=4", r4)})
}

func watchWhole(s *suite) {
	from := s.must(put("x", ""))
	ch := s.kv.Watch(s.ctx, "w/", from)
	rev := s.must(put("w/1", "a"), put("w/2", "b"), put("w/3", "c"))
	events := s.next(ch)
	s.equal("changes at once", len(events.Events), 3)
	s.equal("revision", events.Revision, rev)
	rev = s.must(metadata.DeletePrefix("w/"))
	events = s.next(ch)
	s.equal("deletions at once", len(events.Events), 3)
	for _, ev := range events.Events {
		if !ev.Deleted || ev.Entry.ModRevision != rev {
			s.Fatalf("%+v, want a deletion at %d", ev, rev)
		}
	}
}

func watchPrefix(s *suite) {
	from := s.must(put("x", ""))
	ch := s.kv.Watch(s.ctx, "w/", from)
	s.must(put("w", ""), put("w0", ""), put("v/1", ""))
	rev := s.must(put("w/1", "yes"), put("y", ""))
	s.equal("changes", s.collect(ch, 1), []string{at("w/1=yes", rev)})
}

func watchLease(s *suite) {
	l := s.grant(time.Minute)
	rev := s.must(metadata.PutLeased("w/1", []byte("v"), l))
	ch := s.kv.Watch(s.ctx, "w/", rev)
	events := s.next(ch)
	s.equal("lease", events.Events[0].Entry.Lease, l)
	s.is("revoke", s.kv.Revoke(s.ctx, l), nil)
	if ev := s.next(ch).Events[0]; !ev.Deleted || ev.Entry.Key != "w/1" {
		s.Fatalf("%+v", ev)
	}
}

func watchCancel(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	ch := s.kv.Watch(ctx, "w", 1)
	cancel()
	for {
		select {
		case ev, ok := <-ch:
			if !ok {
				return
			}
			if ev.Err != nil {
				s.is("watch", ev.Err, context.Canceled)
			}
		case <-s.ctx.Done():
			s.Fatal("the watch goes on")
		}
	}
}

func watchCompacted(s *suite) {
	c, ok := s.kv.(metadata.Compactor)
	if !ok {
		s.Skip("the store cannot compact")
	}
	from := s.must(put("w", "1"))
	for range 5 {
		s.must(put("w", "2"))
	}
	last := s.must(put("w", "3"))
	s.is("compact", c.Compact(s.ctx, last-1), nil)
	s.is("compact again", c.Compact(s.ctx, from), nil)
	ch := s.kv.Watch(s.ctx, "w", from)
	events := s.next(ch)
	s.is("watch", events.Err, metadata.ErrCompacted)
	if _, ok := <-ch; ok {
		s.Fatal("events after the error")
	}
	s.equal("later watch", s.collect(s.kv.Watch(s.ctx, "w", last), 1), []string{at("w=3", last)})
	s.equal("value", string(s.get("w").Value), "3")
}

// watchProgress: a watch that nothing happens to reports revisions reached by
// writes elsewhere, once asked, and never before the changes up to them.
func watchProgress(s *suite) {
	from := s.must(put("w", "1"))
	quiet := s.kv.Watch(s.ctx, "quiet", from)
	busy := s.kv.Watch(s.ctx, "w", from)
	rev := s.must(put("w", "2"))
	if got := s.collect(busy, 2); got[1] != at("w=2", rev) {
		s.Fatalf("changes %v", got)
	}
	ask := time.NewTicker(100 * time.Millisecond)
	defer ask.Stop()
	for {
		s.is("progress", s.kv.Progress(s.ctx), nil)
		select {
		case ev := <-quiet:
			if ev.Err != nil || len(ev.Events) > 0 {
				s.Fatalf("%+v", ev)
			}
			if ev.Revision >= rev {
				return
			}
		case <-busy:
		case <-ask.C:
		case <-s.ctx.Done():
			s.Fatal("no progress")
		}
	}
}

// watchLoad: a receiver that is slow at first sees every change once, in order.
func watchLoad(s *suite) {
	const n = 600
	from := s.must(put("x", ""))
	ch := s.kv.Watch(s.ctx, "w", from)
	var want []string
	for i := range n {
		value := fmt.Sprint(i)
		want = append(want, at("w="+value, s.must(put("w", value))))
	}
	s.equal("changes", s.collect(ch, n), want)
}

func canceledContext(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, _, err := s.kv.Get(ctx, "a")
	s.is("get", err, metadata.ErrUnavailable)
	_, _, err = s.kv.Range(ctx, "a")
	s.is("range", err, metadata.ErrUnavailable)
	_, err = s.kv.Txn(ctx, metadata.Txn{Then: []metadata.Op{put("a", "1")}})
	s.is("txn", err, metadata.ErrUnavailable)
	s.is("the cause", err, context.Canceled)
	_, err = s.kv.Renew(ctx, 1)
	s.is("renew", err, metadata.ErrUnavailable)
}

func closeEnds(s *suite) {
	ch := s.kv.Watch(s.ctx, "w", 1)
	s.is("close", s.kv.Close(), nil)
	for {
		select {
		case ev, ok := <-ch:
			if !ok {
				return
			}
			if ev.Err != nil {
				s.is("watch", ev.Err, metadata.ErrUnavailable)
			}
		case <-s.ctx.Done():
			s.Fatal("the watch goes on")
		}
	}
}
