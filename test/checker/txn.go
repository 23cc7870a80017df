package checker

import "strconv"

// Txn is one transaction, as the client of its producer sees it: what it sends,
// and at last what it asks to become of that. One whose end is never asked for is
// never committed.
type Txn struct {
	p  *Producer
	id string
}

// Begin begins a transaction.
func (p *Producer) Begin() *Txn {
	return &Txn{p: p, id: p.proc + "#" + strconv.FormatInt(p.txns.Add(1), 10)}
}

// Send begins to send a record in the transaction.
func (t *Txn) Send(topic string, partition int32) *Send { return t.p.send(topic, partition, t.id, nil) }

// Copy begins to send a copy, in the transaction, of a record that was read.
func (t *Txn) Copy(topic string, partition int32, of Key, r Record) *Send {
	return t.p.send(topic, partition, t.id, &Op{Kind: 'f', Key: of, Value: r.Value, Offset: r.Offset})
}

// End is the request to end a transaction.
type End struct {
	txn     *Call
	offsets *Call // nil if it commits none
}

// End begins to end the transaction: with commit, the offsets are committed for
// the group together with what was sent.
func (t *Txn) End(commit bool, group string, offsets map[Key]int64) *End {
	mode := Aborts
	if commit {
		mode = Commits
	}
	h, end := t.p.h, &End{}
	if commit && len(offsets) > 0 {
		c := h.OffsetCommit(t.p.proc, group, "", -1, offsets)
		end.offsets = c.Call
	}
	end.txn = h.invoke(Event{Proc: t.p.proc, F: FTxn, TxID: t.id, Mode: mode})
	return end
}

// OK: what was asked for has happened.
func (e *End) OK() { e.done(OK, nil) }

// Aborted: though a commit was asked for, the transaction was aborted, or will be.
func (e *End) Aborted(why error) { e.done(Fail, why) }

// Unknown: nobody knows what became of a commit. An abort is one all the same.
func (e *End) Unknown(why error) { e.done(Info, why) }

func (e *End) done(t Type, err error) {
	if e.offsets != nil {
		e.offsets.complete(t, "", nil, err)
	}
	e.txn.complete(t, "", nil, err)
}
