package checker

import (
	"cmp"
	"slices"
)

// Call is one request that a test makes by itself and completes once.
type Call struct {
	h     *History
	e     Event // as invoked
	retry bool
}

func (h *History) invoke(e Event) *Call {
	e.Type = Invoke
	c := &Call{h: h, e: e}
	c.e.Call, c.e.Begun = h.Add(e)
	return c
}

func (c *Call) complete(t Type, node string, ops []Op, err error) {
	e := c.e
	e.Type, e.Node, e.Err = t, node, text(err)
	if ops != nil {
		e.Ops = ops
	}
	sortOps(e.Ops)
	c.h.Add(e)
}

func sortOps(ops []Op) {
	slices.SortStableFunc(ops, func(a, b Op) int {
		return cmp.Or(cmp.Compare(a.Key.Topic, b.Key.Topic), cmp.Compare(a.Key.Partition, b.Key.Partition))
	})
}

// List is a ListOffsets request.
type List struct{ *Call }

// ListOffsets begins a ListOffsets request. The mode is Epochs if the request
// carries leader epochs.
func (h *History) ListOffsets(proc, isol string, modes ...Mode) List {
	return List{h.invoke(Event{Proc: proc, F: FList, Isol: isol, Mode: join(modes)})}
}

// Done completes it with what the broker answered: log start, last stable offset
// or high watermark, whichever was asked for, and -1 for the others. Partitions
// that got an error are left out.
func (l List) Done(node string, marks map[Key]Marks, err error) {
	if err != nil {
		l.complete(Info, node, nil, err)
		return
	}
	ops := make([]Op, 0, len(marks))
	for k, m := range marks {
		ops = append(ops, Op{Kind: 'w', Key: k, Marks: m})
	}
	l.complete(OK, node, ops, nil)
}

// Commit is an OffsetCommit request.
type Commit struct{ *Call }

// OffsetCommit begins an OffsetCommit of a member in a generation, or of nobody
// in generation -1.
func (h *History) OffsetCommit(proc, group, member string, generation int32, offsets map[Key]int64) Commit {
	return Commit{h.invoke(Event{Proc: proc, F: FCommit, Group: group, Member: member, Gen: generation, Ops: commitOps(offsets)})}
}

// Retried notes that an attempt of unknown outcome went before.
func (c Commit) Retried() Commit { c.retry = true; return c }

// Done completes the commit. A commit that was refused for some partitions only
// is told as one commit for each outcome.
func (c Commit) Done(node string, err error) {
	c.complete(outcome(err, c.retry), node, nil, err)
}

// Fetched is an OffsetFetch request.
type Fetched struct{ *Call }

// OffsetFetch begins an OffsetFetch.
func (h *History) OffsetFetch(proc, group string) Fetched {
	return Fetched{h.invoke(Event{Proc: proc, F: FFetch, Group: group})}
}

// Done completes it with the answer, -1 where nothing was committed. Partitions
// that got an error are left out.
func (f Fetched) Done(node string, offsets map[Key]int64, err error) {
	if err != nil {
		f.complete(Info, node, nil, err)
		return
	}
	f.complete(OK, node, commitOps(offsets), nil)
}

func commitOps(offsets map[Key]int64) []Op {
	ops := make([]Op, 0, len(offsets))
	for k, offset := range offsets {
		ops = append(ops, Op{Kind: 'c', Key: k, Offset: offset})
	}
	sortOps(ops)
	return ops
}

// Stable tells that a member was answered that its group is in a generation, and
// which partitions are its own in it. Tell it at once: from the first member
// that says so on, commits of the generation before must fail.
func (h *History) Stable(proc, group, member string, generation int32, assigned []Key) {
	e := Event{Proc: proc, Type: OK, F: FGroup, Group: group, Member: member, Gen: generation}
	for _, k := range assigned {
		e.Ops = append(e.Ops, Op{Kind: 'a', Key: k, Offset: -1})
	}
	sortOps(e.Ops)
	h.Add(e)
}
