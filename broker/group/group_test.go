package group

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// harness drives a group and keeps what came out.
type harness struct {
	t       *testing.T
	g       *Group
	cfg     Config
	now     time.Time
	tickets Ticket
	replies map[Ticket]Reply
	ids     int
	persist []*Snapshot
}

func newHarness(t *testing.T, edit ...func(*Config)) *harness {
	h := &harness{t: t, now: time.Unix(1_700_000_000, 0), replies: map[Ticket]Reply{}}
	for _, f := range edit {
		f(&h.cfg)
	}
	h.cfg.EnsureDefaults()
	if err := h.cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	h.g = New("g", &h.cfg, h.now)
	return h
}

func noDelay(c *Config) { c.InitialRebalanceDelay = -1 }

func (h *harness) take(e Effects) {
	h.t.Helper()
	for _, r := range e.Replies {
		if _, twice := h.replies[r.Ticket]; twice {
			h.t.Fatalf("ticket %d answered twice", r.Ticket)
		}
		h.replies[r.Ticket] = r
	}
	if e.Persist != nil {
		h.persist = append(h.persist, e.Persist)
	}
}

// sleep lets time pass, with every deadline met on the way.
func (h *harness) sleep(d time.Duration) {
	h.t.Helper()
	end := h.now.Add(d)
	for range 10_000 {
		next, ok := h.g.Deadline()
		if !ok || next.After(end) {
			h.now = end
			return
		}
		if next.After(h.now) {
			h.now = next
		}
		h.take(h.g.Tick(h.now))
	}
	h.t.Fatal("deadlines do not end")
}

type joinOpt func(*JoinRequest)

func protocols(names ...string) joinOpt {
	return func(r *JoinRequest) {
		r.Protocols = nil
		for _, n := range names {
			r.Protocols = append(r.Protocols, Protocol{Name: n, Metadata: []byte(n)})
		}
	}
}

func meta(m string) joinOpt {
	return func(r *JoinRequest) { r.Protocols = []Protocol{{Name: "range", Metadata: []byte(m)}} }
}

func static(id string) joinOpt   { return func(r *JoinRequest) { r.Instance = &id } }
func v4(r *JoinRequest)          { r.RequireKnownID = true }
func v9(r *JoinRequest)          { r.RequireKnownID, r.SkipAssignment = true, true }
func protoType(t string) joinOpt { return func(r *JoinRequest) { r.ProtocolType = t } }
func newID(id string) joinOpt    { return func(r *JoinRequest) { r.NewMemberID = id } }
func session(d time.Duration) joinOpt {
	return func(r *JoinRequest) { r.SessionTimeout = d }
}
func rebalance(d time.Duration) joinOpt {
	return func(r *JoinRequest) { r.RebalanceTimeout = d }
}

// join sends a join and returns its ticket.
func (h *harness) join(id string, opts ...joinOpt) Ticket {
	h.t.Helper()
	h.tickets++
	h.ids++
	r := JoinRequest{
		Ticket: h.tickets, MemberID: id, NewMemberID: fmt.Sprintf("m%d", h.ids), ClientID: "client", ClientHost: "/h",
		SessionTimeout: 10 * time.Second, RebalanceTimeout: 60 * time.Second, ProtocolType: "consumer",
		Protocols: []Protocol{{Name: "range", Metadata: []byte{}}},
	}
	for _, o := range opts {
		o(&r)
	}
	h.take(h.g.Join(h.now, r))
	return r.Ticket
}

func (h *harness) sync(id string, gen int32, assignments ...string) Ticket {
	h.t.Helper()
	h.tickets++
	r := SyncRequest{Ticket: h.tickets, MemberID: id, Generation: gen}
	for i := 0; i+1 < len(assignments); i += 2 {
		r.Assignments = append(r.Assignments, Assignment{assignments[i], []byte(assignments[i+1])})
	}
	h.take(h.g.Sync(h.now, r))
	return r.Ticket
}

// flush says that the newest snapshot is durable.
func (h *harness) flush(err *kerr.Error) {
	h.t.Helper()
	h.take(h.g.Persisted(h.now, h.persist[len(h.persist)-1].Seq, err))
}

func (h *harness) joined(t Ticket, want *kerr.Error) *JoinReply {
	h.t.Helper()
	r, ok := h.replies[t]
	if !ok || r.Join == nil {
		h.t.Fatalf("join %d is not answered", t)
	}
	if r.Join.Err != want {
		h.t.Fatalf("join answered %v, want %v", r.Join.Err, want)
	}
	return r.Join
}

func (h *harness) synced(t Ticket, want *kerr.Error) *SyncReply {
	h.t.Helper()
	r, ok := h.replies[t]
	if !ok || r.Sync == nil {
		h.t.Fatalf("sync %d is not answered", t)
	}
	if r.Sync.Err != want {
		h.t.Fatalf("sync answered %v, want %v", r.Sync.Err, want)
	}
	return r.Sync
}

func (h *harness) parked(t Ticket) {
	h.t.Helper()
	if r, ok := h.replies[t]; ok {
		h.t.Fatalf("ticket %d is answered already: %+v %+v", t, r.Join, r.Sync)
	}
}

func (h *harness) state(want State, gen int32) {
	h.t.Helper()
	if h.g.State() != want || h.g.Generation() != gen {
		h.t.Fatalf("group is %s in generation %d, want %s in %d", h.g.State(), h.g.Generation(), want, gen)
	}
}

func (h *harness) eq(got, want any) {
	h.t.Helper()
	if got != want {
		h.t.Fatalf("got %v, want %v", got, want)
	}
}

// stable forms a stable group of n members, m1 leading, and returns their ids.
func (h *harness) stable(n int, opts ...joinOpt) []string {
	h.t.Helper()
	var tickets []Ticket
	var ids []string
	for i := range n {
		id := fmt.Sprintf("m%d", i+1)
		h.ids = i
		tickets = append(tickets, h.join("", append([]joinOpt{newID(id)}, opts...)...))
		ids = append(ids, id)
	}
	h.sleep(max(h.cfg.initialDelay()*3, 0))
	// Without an initial delay the first member got a generation of its own.
	for h.g.State() != CompletingRebalance || len(h.g.unsynced) != n {
		for i, id := range ids {
			if _, ok := h.replies[tickets[i]]; ok {
				tickets[i] = h.join(id, opts...)
			}
		}
	}
	gen := h.g.Generation()
	var syncs []Ticket
	for _, id := range ids {
		if id == h.g.leader {
			var a []string
			for _, m := range ids {
				a = append(a, m, "a-"+m)
			}
			syncs = append(syncs, h.sync(id, gen, a...))
		} else {
			syncs = append(syncs, h.sync(id, gen))
		}
	}
	h.flush(nil)
	for _, s := range syncs {
		h.synced(s, nil)
	}
	h.state(Stable, gen)
	return ids
}

func TestFirstGeneration(t *testing.T) {
	h := newHarness(t)
	a := h.join("")
	h.state(PreparingRebalance, 0)
	h.sleep(2 * time.Second)
	b := h.join("") // extends the delay once more
	h.sleep(2 * time.Second)
	h.parked(a)
	h.sleep(4 * time.Second)
	ra, rb := h.joined(a, nil), h.joined(b, nil)
	h.state(CompletingRebalance, 1)
	h.eq(ra.Generation, int32(1))
	h.eq(ra.Leader, "m1")
	h.eq(rb.Leader, "m1")
	h.eq(len(ra.Members), 2)
	h.eq(len(rb.Members), 0)
	h.eq(*ra.Protocol, "range")

	sb := h.sync("m2", 1)
	h.parked(sb)
	sa := h.sync("m1", 1, "m1", "p0", "m2", "p1", "stranger", "p2")
	h.parked(sa)
	h.state(CompletingRebalance, 1) // nothing is told before it is durable
	h.eq(string(h.persist[0].Members[1].Assignment), "p1")
	h.flush(nil)
	h.eq(string(h.synced(sa, nil).Assignment), "p0")
	h.eq(string(h.synced(sb, nil).Assignment), "p1")
	h.state(Stable, 1)
	h.eq(string(h.synced(h.sync("m2", 1), nil).Assignment), "p1")
}

func TestInitialDelayIsBoundedByTheRebalanceTimeout(t *testing.T) {
	h := newHarness(t)
	a := h.join("", rebalance(7*time.Second))
	for range 4 {
		h.sleep(2 * time.Second)
		h.join("", rebalance(7*time.Second))
	}
	h.joined(a, nil) // 3 s + 3 s + 1 s, however many arrive
}

func TestMemberIDRequired(t *testing.T) {
	h := newHarness(t)
	r := h.joined(h.join("", v4, session(10*time.Second)), kerr.MemberIDRequired)
	h.state(Empty, 0)
	if h.g.Vacant() {
		t.Fatal("a group someone is about to join is not vacant")
	}
	again := h.join(r.MemberID, v4)
	h.state(PreparingRebalance, 0)
	h.sleep(3 * time.Second)
	h.joined(again, nil)

	t.Run("lapses", func(t *testing.T) {
		h := newHarness(t)
		r := h.joined(h.join("", v4), kerr.MemberIDRequired)
		h.sleep(11 * time.Second)
		if !h.g.Vacant() {
			t.Fatal("the id was not forgotten")
		}
		h.joined(h.join(r.MemberID, v4), kerr.UnknownMemberID)
	})
	t.Run("holds up a rebalance until it lapses", func(t *testing.T) {
		h := newHarness(t)
		h.stable(1)
		h.joined(h.join("", v4, session(8*time.Second)), kerr.MemberIDRequired)
		j := h.join("m1")
		h.parked(j)
		h.sleep(9 * time.Second)
		h.joined(j, nil)
	})
	t.Run("may leave", func(t *testing.T) {
		h := newHarness(t)
		r := h.joined(h.join("", v4), kerr.MemberIDRequired)
		errs, e := h.g.Leave(h.now, []Leaving{{MemberID: r.MemberID}})
		h.take(e)
		h.eq(errs[0] == nil, true)
		h.eq(h.g.Vacant(), true)
	})
}

func TestJoinErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		id   string
		opts []joinOpt
		want *kerr.Error
	}{
		{"unknown member", "nobody", nil, kerr.UnknownMemberID},
		{"unknown instance", "m1", []joinOpt{static("i")}, kerr.UnknownMemberID},
		{"other protocol type", "", []joinOpt{protoType("connect")}, kerr.InconsistentGroupProtocol},
		{"no common protocol", "", []joinOpt{protocols("sticky")}, kerr.InconsistentGroupProtocol},
		{"no protocol", "", []joinOpt{protocols()}, kerr.InconsistentGroupProtocol},
		{"too large", "", []joinOpt{meta(string(make([]byte, 2<<20)))}, kerr.MessageTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHarness(t)
			h.stable(2)
			h.joined(h.join(tc.id, tc.opts...), tc.want)
			h.state(Stable, 1)
		})
	}
	h := newHarness(t)
	h.joined(h.join("", protoType("")), kerr.InconsistentGroupProtocol)
	h.joined(h.join("", protocols()), kerr.InconsistentGroupProtocol)
}

func TestProtocolIsElected(t *testing.T) {
	h := newHarness(t)
	a := h.join("", protocols("range", "sticky", "x"))
	h.join("", protocols("sticky", "range"))
	h.join("", protocols("sticky", "range", "y"))
	h.sleep(10 * time.Second)
	r := h.joined(a, nil)
	h.eq(*r.Protocol, "sticky")
	h.eq(string(r.Members[0].Metadata), "sticky")
}

func TestRejoinInStable(t *testing.T) {
	h := newHarness(t)
	h.stable(2)
	// A follower with nothing new learns of the generation as it is.
	r := h.joined(h.join("m2"), nil)
	h.eq(r.Generation, int32(1))
	h.eq(len(r.Members), 0)
	h.state(Stable, 1)
	// The leader forces a rebalance, and so does a changed follower.
	l := h.join("m1")
	h.state(PreparingRebalance, 1)
	h.eq(h.g.Heartbeat(h.now, "m2", nil, 1), kerr.RebalanceInProgress)
	f := h.join("m2", meta("new"))
	h.eq(h.joined(l, nil).Generation, int32(2))
	h.eq(h.joined(f, nil).Generation, int32(2))
	h.state(CompletingRebalance, 2)
	// The same join again: the answer was lost.
	h.eq(h.joined(h.join("m2", meta("new")), nil).Generation, int32(2))
	h.state(CompletingRebalance, 2)
	// Another one begins anew, and those who wait for an assignment are told.
	s := h.sync("m1", 2, "m1", "x")
	h.join("m2", meta("newer"))
	h.synced(s, kerr.RebalanceInProgress)
	h.state(PreparingRebalance, 2)
	h.flush(nil) // the write of the overtaken assignment has no effect
	h.state(PreparingRebalance, 2)
}

func TestRebalanceTimeoutRemovesDynamicMembersOnly(t *testing.T) {
	h := newHarness(t)
	a := h.join("", newID("m1"), rebalance(20*time.Second), session(100*time.Second))
	h.join("", newID("m2"), rebalance(20*time.Second), session(100*time.Second))
	h.join("", newID("m3"), static("i3"), rebalance(20*time.Second), session(100*time.Second))
	h.sleep(9 * time.Second)
	h.joined(a, nil)
	h.sync("m1", 1, "m1", "p")
	h.sync("m2", 1)
	h.sync("m3", 1)
	h.flush(nil)
	l := h.join("m1", rebalance(20*time.Second), session(100*time.Second))
	h.sleep(19 * time.Second)
	h.parked(l)
	h.sleep(2 * time.Second)
	h.joined(l, nil)
	h.eq(len(h.g.members), 2) // m2 is out, m3 keeps its place until its session ends
	h.eq(h.g.Heartbeat(h.now, "m2", nil, 2), kerr.UnknownMemberID)
}

func TestAnotherLeaderWhenTheLeaderDoesNotRejoin(t *testing.T) {
	h := newHarness(t)
	h.stable(2, session(100*time.Second), rebalance(20*time.Second))
	j := h.join("m2", meta("x"), session(100*time.Second), rebalance(20*time.Second))
	h.sleep(21 * time.Second)
	h.eq(h.joined(j, nil).Leader, "m2")
}

func TestNobodyRejoinsStaticsWait(t *testing.T) {
	h := newHarness(t)
	h.join("", newID("m1"), static("i1"), rebalance(20*time.Second), session(90*time.Second))
	h.sleep(9 * time.Second)
	h.sync("m1", 1, "m1", "p")
	h.flush(nil)
	h.joined(h.join("", v4, session(15*time.Second)), kerr.MemberIDRequired)
	n := h.join("", newID("m9"), static("i9"), rebalance(20*time.Second), session(30*time.Second))
	_, e := h.g.Leave(h.now, []Leaving{{MemberID: "m9"}})
	h.take(e)
	h.joined(n, kerr.UnknownMemberID)
	h.sleep(40 * time.Second)
	h.state(PreparingRebalance, 1) // only the silent static member is there
	h.sleep(60 * time.Second)
	h.state(Empty, 2)
}

func TestSessions(t *testing.T) {
	t.Run("expire", func(t *testing.T) {
		h := newHarness(t)
		h.stable(2)
		for range 3 {
			h.sleep(4 * time.Second)
			h.eq(h.g.Heartbeat(h.now, "m1", nil, 1) == nil || h.g.State() == PreparingRebalance, true)
		}
		h.state(PreparingRebalance, 1) // m2 was silent
		h.eq(h.g.Heartbeat(h.now, "m2", nil, 1), kerr.UnknownMemberID)
	})
	t.Run("last member", func(t *testing.T) {
		h := newHarness(t)
		h.stable(1)
		h.sleep(11 * time.Second)
		h.state(Empty, 2)
		h.eq(len(h.persist[len(h.persist)-1].Members), 0)
		if _, ok := h.g.Deadline(); ok {
			t.Fatal("an empty group waits for something")
		}
	})
	t.Run("of a waiting member do not", func(t *testing.T) {
		h := newHarness(t)
		h.stable(2, rebalance(60*time.Second))
		j := h.join("m2", meta("x"), session(10*time.Second))
		for range 5 {
			h.sleep(8 * time.Second)
			h.eq(h.g.Heartbeat(h.now, "m1", nil, 1), kerr.RebalanceInProgress)
		}
		h.parked(j)
	})
	t.Run("of a new member end with the join timeout", func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.NewMemberJoinTimeout = 20 * time.Second })
		h.stable(1, session(1000*time.Second), rebalance(1000*time.Second))
		j := h.join("", newID("m2"), rebalance(1000*time.Second))
		h.sleep(21 * time.Second)
		h.joined(j, kerr.UnknownMemberID)
	})
}

func TestHeartbeatErrors(t *testing.T) {
	h := newHarness(t)
	h.eq(h.g.Heartbeat(h.now, "m1", nil, 1), kerr.UnknownMemberID)
	h.stable(1)
	h.eq(h.g.Heartbeat(h.now, "m1", nil, 2), kerr.IllegalGeneration)
	h.eq(h.g.Heartbeat(h.now, "m1", nil, 0), kerr.IllegalGeneration)
	if err := h.g.Heartbeat(h.now, "m1", nil, 1); err != nil {
		t.Fatal(err)
	}
	h.take(h.g.Unload(kerr.NotCoordinator))
	h.eq(h.g.Heartbeat(h.now, "m1", nil, 1), kerr.CoordinatorNotAvailable)
}

func TestSyncErrors(t *testing.T) {
	h := newHarness(t)
	h.stable(1)
	other, right := "other", "consumer"
	for _, tc := range []struct {
		r    SyncRequest
		want *kerr.Error
	}{
		{SyncRequest{MemberID: "nobody", Generation: 1}, kerr.UnknownMemberID},
		{SyncRequest{MemberID: "m1", Generation: 2}, kerr.IllegalGeneration},
		{SyncRequest{MemberID: "m1", Generation: 1, ProtocolType: &other}, kerr.InconsistentGroupProtocol},
		{SyncRequest{MemberID: "m1", Generation: 1, Protocol: &other}, kerr.InconsistentGroupProtocol},
		{SyncRequest{MemberID: "m1", Generation: 1, ProtocolType: &right}, nil},
	} {
		h.tickets++
		tc.r.Ticket = h.tickets
		h.take(h.g.Sync(h.now, tc.r))
		h.synced(tc.r.Ticket, tc.want)
	}
	h.join("", newID("m2"))
	h.synced(h.sync("m1", 1), kerr.RebalanceInProgress)
}

func TestSyncIsAwaitedNoLongerThanTheRebalanceTimeout(t *testing.T) {
	h := newHarness(t)
	a := h.join("", newID("m1"), rebalance(20*time.Second), session(200*time.Second))
	h.join("", newID("m2"), rebalance(20*time.Second), session(200*time.Second))
	h.sleep(9 * time.Second)
	h.joined(a, nil)
	s := h.sync("m2", 1)
	h.sleep(21 * time.Second)
	h.synced(s, kerr.RebalanceInProgress)
	h.eq(h.g.Heartbeat(h.now, "m1", nil, 1), kerr.UnknownMemberID)
}

func TestFailedPersistence(t *testing.T) {
	h := newHarness(t)
	h.join("", newID("m1"))
	h.sleep(4 * time.Second)
	s := h.sync("m1", 1, "m1", "p")
	h.flush(kerr.CoordinatorNotAvailable)
	h.synced(s, kerr.CoordinatorNotAvailable)
	h.state(PreparingRebalance, 1)
	j := h.join("m1")
	h.joined(j, nil)
	h.state(CompletingRebalance, 2)
}

func TestLeave(t *testing.T) {
	h := newHarness(t)
	h.join("", newID("m1"))
	h.join("", newID("m2"))
	h.join("", newID("m3"), static("i3"))
	h.join("", newID("m4"), static("i4"))
	h.sleep(9 * time.Second)
	h.sync("m1", 1)
	h.flush(nil)
	i3, i4, i5 := "i3", "i4", "i5"
	errs, e := h.g.Leave(h.now, []Leaving{{MemberID: "m2"}, {MemberID: "nobody"}, {Instance: &i3}, {Instance: &i5}, {MemberID: "m3", Instance: &i4}, {}})
	h.take(e)
	for i, want := range []*kerr.Error{nil, kerr.UnknownMemberID, nil, kerr.UnknownMemberID, kerr.FencedInstanceID, kerr.UnknownMemberID} {
		if errs[i] != want {
			t.Errorf("leave %d: %v, want %v", i, errs[i], want)
		}
	}
	h.state(PreparingRebalance, 1)
	h.eq(len(h.g.members), 2)
	_, e = h.g.Leave(h.now, []Leaving{{MemberID: "m1"}, {MemberID: "m4"}})
	h.take(e)
	h.state(Empty, 2)
	h.eq(h.persist[len(h.persist)-1].Generation, int32(2))
	h.eq(h.g.ProtocolType(), "consumer")
}

func TestGroupSize(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.MembersMax = 2 })
	h.stable(2)
	h.joined(h.join(""), kerr.GroupMaxSizeReached)
	h.state(Stable, 1)
	h.joined(h.join("m2"), nil)
	// While gathering, those who wait count, and the last one is turned away.
	h.join("m1")
	h.join("", newID("m8"))
	h.joined(h.join("", newID("m9")), kerr.GroupMaxSizeReached)
}

func TestStaticMember(t *testing.T) {
	setup := func(t *testing.T) *harness {
		h := newHarness(t)
		h.join("", newID("m1"), static("i1"))
		h.join("", newID("m2"), static("i2"))
		h.sleep(9 * time.Second)
		h.sync("m1", 1, "m1", "p1", "m2", "p2")
		h.sync("m2", 1)
		h.flush(nil)
		return h
	}
	i1, i2 := "i1", "i2"
	t.Run("follower restarts", func(t *testing.T) {
		h := setup(t)
		j := h.join("", newID("m3"), static("i2"), v9)
		h.parked(j) // until the new id is durable
		h.flush(nil)
		r := h.joined(j, nil)
		h.eq(r.MemberID, "m3")
		h.eq(r.Generation, int32(1))
		h.eq(r.SkipAssignment, false)
		h.state(Stable, 1)
		h.eq(string(h.synced(h.sync("m3", 1), nil).Assignment), "p2")
		h.eq(h.g.Heartbeat(h.now, "m2", &i2, 1), kerr.FencedInstanceID)
		h.eq(h.g.CommitOffsets(h.now, "m2", &i2, 1), kerr.FencedInstanceID)
	})
	t.Run("leader restarts, v9", func(t *testing.T) {
		h := setup(t)
		j := h.join("", newID("m3"), static("i1"), v9)
		h.flush(nil)
		r := h.joined(j, nil)
		h.eq(r.Leader, "m3")
		h.eq(r.SkipAssignment, true)
		h.eq(len(r.Members), 2)
		h.state(Stable, 1)
	})
	t.Run("leader restarts, before v9", func(t *testing.T) {
		h := setup(t)
		j := h.join("", newID("m3"), static("i1"), v4)
		h.flush(nil)
		r := h.joined(j, nil)
		h.eq(r.Leader, "m1") // it must not believe that it leads
		h.eq(len(r.Members), 0)
		h.eq(string(h.synced(h.sync("m3", 1), nil).Assignment), "p1")
	})
	t.Run("changed protocol rebalances", func(t *testing.T) {
		h := setup(t)
		h.join("", newID("m3"), static("i2"), protocols("sticky", "range"))
		h.state(Stable, 1) // range is still what all support
		h.flush(nil)
		h = newHarness(t)
		h.join("", newID("m1"), static("i1"), protocols("range", "sticky"))
		h.sleep(4 * time.Second)
		h.sync("m1", 1, "m1", "p")
		h.flush(nil)
		h.joined(h.join("", newID("m2"), static("i1"), protocols("sticky", "range")), nil)
		h.state(CompletingRebalance, 2)
	})
	t.Run("not persisted", func(t *testing.T) {
		h := setup(t)
		j := h.join("", newID("m3"), static("i2"), meta("changed"), session(7*time.Second))
		h.flush(kerr.CoordinatorNotAvailable)
		h.joined(j, kerr.CoordinatorNotAvailable)
		if err := h.g.Heartbeat(h.now, "m2", &i2, 1); err != nil {
			t.Fatal("the old id was not restored:", err)
		}
		h.eq(h.g.Heartbeat(h.now, "m3", nil, 1), kerr.UnknownMemberID)
		h.eq(h.g.members["m2"].sessionTimeout, 10*time.Second)
	})
	t.Run("while waiting for its own replacement", func(t *testing.T) {
		h := setup(t)
		j := h.join("", newID("m3"), static("i2"))
		k := h.join("", newID("m4"), static("i2"))
		h.joined(j, kerr.FencedInstanceID)
		h.flush(nil)
		h.eq(h.joined(k, nil).MemberID, "m4")
	})
	t.Run("during the join phase", func(t *testing.T) {
		h := setup(t)
		l := h.join("m1", static("i1"))
		j := h.join("", newID("m3"), static("i2"))
		h.joined(l, nil)
		h.eq(h.joined(j, nil).Generation, int32(2))
		// Between join and sync the leader may have the old id in hand.
		k := h.join("", newID("m4"), static("i2"))
		h.parked(k)
		h.state(PreparingRebalance, 2)
	})
	t.Run("waiting in a rebalance is answered by it", func(t *testing.T) {
		h := setup(t)
		j := h.join("", newID("m3"), static("i2"))
		l := h.join("m1", static("i1"))
		h.eq(h.joined(j, nil).Generation, int32(2))
		h.eq(h.joined(l, nil).Generation, int32(2))
		h.flush(nil)
	})
	t.Run("fenced", func(t *testing.T) {
		h := setup(t)
		h.joined(h.join("wrong", static("i1")), kerr.FencedInstanceID)
		h.eq(h.g.Heartbeat(h.now, "wrong", &i1, 1), kerr.FencedInstanceID)
	})
}

func TestCommitRules(t *testing.T) {
	h := newHarness(t)
	commit := func(id string, gen int32, want *kerr.Error) {
		t.Helper()
		if got := h.g.CommitOffsets(h.now, id, nil, gen); got != want {
			t.Fatalf("commit by %q in %d: %v, want %v", id, gen, got, want)
		}
	}
	commit("", -1, nil) // a consumer that assigns itself
	h.join("", newID("m1"))
	commit("", -1, kerr.UnknownMemberID)
	h.sleep(4 * time.Second)
	commit("m1", 1, kerr.RebalanceInProgress)
	h.sync("m1", 1)
	h.flush(nil)
	commit("m1", 1, nil)
	commit("m1", 0, kerr.IllegalGeneration)
	commit("m1", -1, kerr.IllegalGeneration)
	commit("m2", 1, kerr.UnknownMemberID)
	commit("", -1, kerr.UnknownMemberID)
	h.join("", newID("m2"))
	commit("m1", 1, nil) // what it held until the rebalance
	// A commit is a sign of life.
	for range 4 {
		h.sleep(8 * time.Second)
		commit("m1", 1, nil)
	}
}

func TestDeleteRules(t *testing.T) {
	h := newHarness(t)
	h.stable(1)
	h.eq(h.g.Delete(h.now), kerr.NonEmptyGroup)
	h.sleep(11 * time.Second)
	h.eq(h.g.DeleteOffsets() == nil, true)
	h.eq(h.g.Delete(h.now) == nil, true)
	h.eq(h.g.Delete(h.now), kerr.GroupIDNotFound)
	h.eq(h.g.DeleteOffsets(), kerr.GroupIDNotFound)
	h.joined(h.join(""), kerr.CoordinatorNotAvailable)
	h.eq(h.g.CommitOffsets(h.now, "", nil, -1), kerr.CoordinatorNotAvailable)

	h = newHarness(t)
	h.stable(1, protoType("connect"))
	h.eq(h.g.DeleteOffsets(), kerr.NonEmptyGroup)
}

func subscription(topics ...string) joinOpt {
	b := []byte{0, 1, 0, 0, 0, byte(len(topics))}
	for _, topic := range topics {
		b = append(append(b, 0, byte(len(topic))), topic...)
	}
	return meta(string(append(b, 0xff, 0xff, 0xff, 0xff)))
}

func TestOffsetExpiry(t *testing.T) {
	const day = 24 * time.Hour
	h := newHarness(t)
	t0 := h.now
	expired := func(topic string, at, expires time.Time) bool {
		return h.g.OffsetExpired(h.now, topic, at, expires, 7*day)
	}
	h.now = t0.Add(7 * day)
	h.eq(expired("a", t0, time.Time{}), true) // assigns itself: from the commit
	h.eq(expired("a", t0.Add(1), time.Time{}), false)
	h.eq(expired("a", t0, h.now.Add(1)), false) // what the client asked for
	h.eq(expired("a", h.now, h.now), true)

	h.stable(1, subscription("a"), session(30*time.Minute))
	h.eq(h.g.Subscribed("a"), true)
	h.eq(h.g.Subscribed("b"), false)
	h.eq(expired("a", t0.Add(-100*day), time.Time{}), false) // consumed
	h.eq(expired("b", t0, time.Time{}), true)
	h.join("", newID("m2"), subscription("b"))
	h.eq(expired("b", t0, time.Time{}), false) // nobody knows during a rebalance
	h.sleep(time.Hour)                         // m1 does not rejoin, m2 does not sync
	h.state(Empty, 3)
	h.eq(expired("a", t0.Add(-100*day), time.Time{}), false) // from when it became empty
	h.sleep(7 * day)
	h.eq(expired("a", t0.Add(-100*day), time.Time{}), true)

	h = newHarness(t)
	h.stable(1, meta("not a subscription"))
	h.eq(h.g.Subscribed("anything"), true)
	h.eq(expired("a", h.now.Add(-100*day), time.Time{}), false)
}

func TestMalformedSubscriptions(t *testing.T) {
	good := subscription("topic", "other")
	var r JoinRequest
	good(&r)
	b := r.Protocols[0].Metadata
	for n := range b {
		topics := map[string]struct{}{}
		if err := parseSubscription(b[:n], topics); err == nil && len(topics) != 2 {
			t.Fatalf("%d bytes were taken for a subscription", n)
		}
	}
	for _, bad := range [][]byte{{0xff, 0xff, 0, 0, 0, 0}, {0, 0, 0x7f, 0xff, 0xff, 0xff, 0}, {0, 0, 0, 0, 0, 1, 0xff, 0xff}} {
		if parseSubscription(bad, map[string]struct{}{}) == nil {
			t.Fatalf("%x was taken for a subscription", bad)
		}
	}
}

func TestRestore(t *testing.T) {
	h := newHarness(t)
	h.join("", newID("m1"), subscription("a"))
	h.join("", newID("m2"), static("i2"), subscription("b"))
	h.sleep(9 * time.Second)
	h.sync("m1", 1, "m1", "p1", "m2", "p2")
	h.flush(nil)
	h.now = h.now.Add(time.Hour)
	h.g = Restore("g", &h.cfg, h.persist[len(h.persist)-1], h.now)
	h.state(Stable, 1)
	// Members go on in the same generation, with sessions of full length.
	h.sleep(9 * time.Second)
	i2 := "i2"
	if err := h.g.Heartbeat(h.now, "m2", &i2, 1); err != nil {
		t.Fatal(err)
	}
	h.eq(h.g.CommitOffsets(h.now, "m1", nil, 1) == nil, true)
	h.eq(string(h.synced(h.sync("m1", 1), nil).Assignment), "p1")
	h.eq(h.g.Subscribed("b"), true)
	h.eq(h.g.leader, "m1")
	h.sleep(20 * time.Second)
	h.state(Empty, 2)
}

func TestDescribe(t *testing.T) {
	h := newHarness(t)
	h.stable(2, meta("md"))
	d := h.g.Describe()
	h.eq(d.Protocol, "range")
	h.eq(len(d.Members), 2)
	h.eq(string(d.Members[0].Metadata), "md")
	h.eq(string(d.Members[1].Assignment), "a-m2")
	h.join("m1", meta("md"))
	d = h.g.Describe()
	h.eq(d.State.String(), "PreparingRebalance")
	h.eq(d.Protocol, "")
	h.eq(len(d.Members[0].Metadata), 0)
}

func TestUnload(t *testing.T) {
	h := newHarness(t)
	a := h.join("")
	h.take(h.g.Unload(kerr.NotCoordinator))
	h.joined(a, kerr.NotCoordinator)
	h = newHarness(t)
	h.join("", newID("m1"))
	h.sleep(4 * time.Second)
	s := h.sync("m1", 1)
	h.take(h.g.Unload(kerr.NotCoordinator))
	h.synced(s, kerr.NotCoordinator)
	h.flush(nil)
}

func TestNoInitialDelay(t *testing.T) {
	h := newHarness(t, noDelay)
	h.joined(h.join(""), nil)
	h.state(CompletingRebalance, 1)
}
