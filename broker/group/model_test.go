package group

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// world runs members against a group whose coordinator dies now and then, and
// checks what must hold of generations and commits at every step:
//
//   - a ticket is answered once;
//   - what a sync reveals is durable;
//   - the durable generation never falls;
//   - no commit of an older generation is taken once a newer one is durable
//     with members (C14);
//   - in one generation every partition has one owner.
type world struct {
	*harness
	rng     *rand.Rand
	durable *Snapshot // what a next coordinator would find
	written int       // snapshots of this coordinator that are durable
	members []*actor
	owners  map[int32]map[string]string // generation → partition → member
	stable  int32                       // newest generation durable with members
	commits int
}

// actor is a client with what it believes.
type actor struct {
	id       string
	instance *string
	gen      int32
	leads    []string // the members to assign to
	join     Ticket
	sync     Ticket
	held     []string
}

func TestModel(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, func(c *Config) { c.MembersMax = 6 })
			w := &world{harness: h, rng: rand.New(rand.NewPCG(seed, 1)), owners: map[int32]map[string]string{}}
			for i := range 5 {
				a := &actor{gen: NoGeneration}
				if i < 2 {
					instance := fmt.Sprintf("i%d", i)
					a.instance = &instance
				}
				w.members = append(w.members, a)
			}
			for range 400 {
				w.step()
			}
			w.settle()
		})
	}
}

func (w *world) step() {
	a := w.members[w.rng.IntN(len(w.members))]
	switch w.rng.IntN(20) {
	case 0, 1, 2, 3, 4:
		w.advance(a)
	case 5, 6, 7:
		w.heartbeat(a)
	case 8, 9, 10, 11:
		w.commit(a)
	case 12:
		w.leave(a)
	case 13, 14:
		w.sleep(time.Duration(w.rng.IntN(4000)) * time.Millisecond)
	case 15:
		if w.rng.IntN(3) == 0 {
			w.sleep(time.Duration(w.rng.IntN(70)) * time.Second)
		}
	case 16, 17, 18:
		w.persistSome()
	case 19:
		switch w.rng.IntN(8) {
		case 0:
			w.crash()
		case 1:
			*a = actor{instance: a.instance, gen: NoGeneration} // the client restarts
		}
	}
	w.read()
}

// advance makes an actor take its next step in join and sync.
func (w *world) advance(a *actor) {
	switch {
	case a.join != 0 || a.sync != 0:
	case a.gen == NoGeneration || w.rng.IntN(6) == 0:
		a.join = w.joinAs(a)
	case a.held == nil:
		w.tickets++
		a.sync = w.tickets
		r := SyncRequest{Ticket: a.sync, MemberID: a.id, Instance: a.instance, Generation: a.gen}
		for i, id := range a.leads {
			r.Assignments = append(r.Assignments, Assignment{id, []byte{byte('0' + i)}})
		}
		w.take(w.g.Sync(w.now, r))
	}
}

func (w *world) joinAs(a *actor) Ticket {
	opts := []joinOpt{v9, meta(fmt.Sprint(w.rng.IntN(3))), session(10 * time.Second), rebalance(15 * time.Second)}
	if a.instance != nil {
		opts = append(opts, static(*a.instance))
	}
	a.held = nil
	return w.join(a.id, opts...)
}

// read lets the actors see their answers.
func (w *world) read() {
	for _, a := range w.members {
		if r, ok := w.replies[a.join]; ok && a.join != 0 {
			a.join = 0
			w.readJoin(a, r.Join)
		}
		if r, ok := w.replies[a.sync]; ok && a.sync != 0 {
			a.sync = 0
			w.readSync(a, r.Sync)
		}
	}
}

func (w *world) readJoin(a *actor, r *JoinReply) {
	a.gen, a.leads, a.held = NoGeneration, nil, nil
	switch r.Err {
	case nil:
		a.id, a.gen = r.MemberID, r.Generation
		if r.Leader == a.id {
			for _, m := range r.Members {
				a.leads = append(a.leads, m.ID)
			}
		}
	case kerr.MemberIDRequired:
		a.id = r.MemberID
	default:
		a.id = ""
	}
}

func (w *world) readSync(a *actor, r *SyncReply) {
	if r.Err != nil {
		a.gen = NoGeneration
		if r.Err == kerr.UnknownMemberID || r.Err == kerr.FencedInstanceID {
			a.id = ""
		}
		return
	}
	if w.durable == nil || w.durable.Generation < a.gen {
		w.t.Fatalf("a sync revealed generation %d, which is not durable", a.gen)
	}
	a.held = []string{string(r.Assignment)}
	if len(r.Assignment) == 0 {
		return
	}
	owners := w.owners[a.gen]
	if owners == nil {
		owners = map[string]string{}
		w.owners[a.gen] = owners
	}
	part, owner := string(r.Assignment), a.id
	if a.instance != nil {
		owner = *a.instance
	}
	if was, ok := owners[part]; ok && was != owner {
		w.t.Fatalf("generation %d gives partition %s to %s and to %s", a.gen, part, was, owner)
	}
	owners[part] = owner
}

func (w *world) heartbeat(a *actor) {
	if a.gen == NoGeneration || a.join != 0 {
		return
	}
	switch err := w.g.Heartbeat(w.now, a.id, a.instance, a.gen); err {
	case kerr.RebalanceInProgress:
		if a.sync == 0 {
			a.join = w.joinAs(a)
		}
	case kerr.UnknownMemberID, kerr.FencedInstanceID, kerr.IllegalGeneration:
		a.id, a.gen, a.held = "", NoGeneration, nil
	}
}

func (w *world) commit(a *actor) {
	gen := a.gen - int32(w.rng.IntN(2)) // sometimes late by one generation
	if err := w.g.CommitOffsets(w.now, a.id, a.instance, gen); err != nil || gen < 0 {
		return
	}
	w.commits++
	if gen < w.stable {
		w.t.Fatalf("a commit of generation %d was taken after %d was stable", gen, w.stable)
	}
}

func (w *world) leave(a *actor) {
	if a.id == "" || w.rng.IntN(3) > 0 {
		return
	}
	_, e := w.g.Leave(w.now, []Leaving{{MemberID: a.id, Instance: a.instance}})
	w.take(e)
	a.id, a.gen, a.held = "", NoGeneration, nil
}

// persistSome makes a snapshot durable: the newest, or an older one on the way.
func (w *world) persistSome() {
	if w.written == len(w.persist) {
		return
	}
	w.written += 1 + w.rng.IntN(len(w.persist)-w.written)
	s := w.persist[w.written-1]
	if w.durable != nil && s.Generation < w.durable.Generation {
		w.t.Fatalf("generation %d is stored over %d", s.Generation, w.durable.Generation)
	}
	w.durable = s
	if len(s.Members) > 0 {
		w.stable = s.Generation
	}
	w.take(w.g.Persisted(w.now, s.Seq, nil))
}

// crash replaces the coordinator by one that knows what is durable. What was
// parked is answered by the connection's end.
func (w *world) crash() {
	w.take(w.g.Unload(kerr.NotCoordinator))
	w.read()
	w.persist, w.written = nil, 0
	if w.durable == nil {
		w.g = New("g", &w.cfg, w.now)
	} else {
		w.g = Restore("g", &w.cfg, w.durable, w.now)
	}
	for _, a := range w.members {
		if a.gen > w.g.Generation() {
			a.gen, a.held = NoGeneration, nil // what a heartbeat would tell it
		}
	}
}

// settle checks that members who follow the protocol end up stable together.
func (w *world) settle() {
	for range 4000 {
		for _, a := range w.members {
			w.heartbeat(a)
			w.read()
			if a.gen == NoGeneration || a.held == nil {
				w.settleStep(a)
			}
			w.read()
		}
		if w.written < len(w.persist) {
			w.persistSome()
		}
		w.read()
		w.sleep(500 * time.Millisecond)
		w.read()
		if w.settled() {
			return
		}
	}
	w.t.Fatalf("the group did not settle: %s, %d members", w.g.State(), len(w.g.members))
}

func (w *world) settleStep(a *actor) {
	if a.join != 0 || a.sync != 0 {
		return
	}
	if a.gen == NoGeneration {
		a.join = w.joinAs(a)
		return
	}
	w.advance(a)
}

func (w *world) settled() bool {
	if w.g.State() != Stable || len(w.g.members) != len(w.members) {
		return false
	}
	for _, a := range w.members {
		if a.held == nil || a.gen != w.g.Generation() {
			return false
		}
	}
	return true
}
