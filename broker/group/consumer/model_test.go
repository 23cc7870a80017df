package consumer

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/metadata"
)

// TestModel drives a group with simulated clients of both protocols, which join,
// leave, die, fall silent, restart under their instance id, lose replies, take
// their time to give up partitions and change what they subscribe to, while
// topics come, grow and go and the coordinator moves. At every step no two
// clients may believe that they own the same partition; in the end every
// partition has an owner.
func TestModel(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			newWorld(t, seed).run()
		})
	}
}

type world struct {
	t       *testing.T
	rng     *rand.Rand
	cfg     *Config
	now     time.Time
	topics  map[string]*metadata.Topic
	version uint64
	g       *Group
	clients []*client
	made    int
	// epochs are the highest seen of each member.
	epochs map[string]int32
	last   int32
}

type client struct {
	w        *world
	classic  bool
	id       string
	instance *string
	topics   []string
	regex    string
	epoch    int32
	owned    []metadata.TopicPartition
	// wanted is the last assignment; acked: the server was told what is owned.
	wanted []metadata.TopicPartition
	acked  bool
	unsure bool // a reply was lost
	heard  time.Time
	gone   bool
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_700_000_000, 0),
		cfg: &Config{Migration: Disabled}, topics: map[string]*metadata.Topic{}, epochs: map[string]int32{},
	}
	if seed%3 == 0 {
		w.cfg.Assignors = []string{"range", "uniform"}
	}
	if seed%2 == 0 {
		w.cfg.AssignmentInterval = -1
	}
	w.cfg.EnsureDefaults()
	for i := range 3 {
		w.changeTopic(fmt.Sprintf("t%d", i))
	}
	w.g = New("g", w.cfg, w.now)
	return w
}

func (w *world) changeTopic(name string) {
	w.version++
	if old := w.topics[name]; old != nil && w.rng.IntN(2) == 0 {
		grown := *old
		grown.Partitions += int32(1 + w.rng.IntN(3))
		w.topics[name] = &grown
		return
	} else if old != nil && w.rng.IntN(2) == 0 {
		delete(w.topics, name)
		return
	}
	id := metadata.TopicID{0: byte(w.rng.IntN(256)), 1: byte(w.version), 2: byte(w.version >> 8)}
	w.topics[name] = &metadata.Topic{ID: id, Name: name, Partitions: int32(1 + w.rng.IntN(5))}
}

func (w *world) image() *Image {
	var list []*metadata.Topic
	for _, name := range slices.Sorted(maps.Keys(w.topics)) {
		list = append(list, w.topics[name])
	}
	return NewImage(w.version, list)
}

func (w *world) match(regex string) Matches {
	m, err := w.image().Match(regex)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) effects(eff Effects) {
	if len(eff.Resolve) > 0 {
		var all []Matches
		for _, r := range eff.Resolve {
			all = append(all, w.match(r))
		}
		w.effects(w.g.Resolved(w.now, w.image(), all))
	}
}

func (w *world) run() {
	for range 300 {
		w.step()
		w.check()
	}
	w.settleDown()
}

func (w *world) step() {
	w.now = w.now.Add(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
	if at, ok := w.g.Deadline(); ok && !at.After(w.now) {
		w.effects(w.g.Tick(w.now))
	}
	for _, c := range w.clients {
		c.maybeDie()
	}
	switch n := w.rng.IntN(100); {
	case n < 6 && len(w.clients) < 7:
		w.join()
	case n < 8:
		w.changeTopic(fmt.Sprintf("t%d", w.rng.IntN(5)))
	case n < 10:
		w.g = Restore("g", w.cfg, w.cfg.Timing(), w.g.Snapshot(), w.image(), w.match, w.now)
	case len(w.clients) == 0:
	default:
		w.clients[w.rng.IntN(len(w.clients))].act(n)
	}
	w.clients = slices.DeleteFunc(w.clients, func(c *client) bool { return c.gone })
}

func (w *world) join() {
	w.made++
	c := &client{w: w, id: fmt.Sprintf("m%03d", w.made), classic: w.rng.IntN(3) == 0, heard: w.now}
	if w.rng.IntN(3) == 0 {
		name := fmt.Sprintf("i%d", w.rng.IntN(3))
		for _, o := range w.clients {
			if o.instance != nil && *o.instance == name {
				return // two processes under one name are the operator's mistake
			}
		}
		c.instance = &name
	}
	c.subscribe()
	w.clients = append(w.clients, c)
}

func (c *client) subscribe() {
	c.topics, c.regex = []string{}, ""
	for i := range 5 {
		if c.w.rng.IntN(2) == 0 {
			c.topics = append(c.topics, fmt.Sprintf("t%d", i))
		}
	}
	if !c.classic && c.w.rng.IntN(4) == 0 {
		c.regex = fmt.Sprintf("t[0-%d]", c.w.rng.IntN(5))
	}
}

// session is what the client goes by: it gives up before the coordinator does.
func (c *client) session() time.Duration { return 40 * time.Second }

// maybeDie: who was not heard for a session knows itself that it is out.
func (c *client) maybeDie() {
	if c.w.now.Sub(c.heard) > c.session() {
		c.owned, c.epoch, c.wanted = nil, 0, nil
	}
}

func (c *client) act(n int) {
	switch {
	case n < 13:
		c.leave()
	case n < 15:
		c.w.t.Logf("%s killed", c.id)
		c.gone, c.owned = true, nil // kill -9
	case n < 19:
		c.subscribe()
		c.unsure = true
	default:
		if c.classic {
			c.classicTurn(n)
		} else {
			c.turn(n)
		}
	}
}

func (c *client) leave() {
	c.w.t.Logf("%s leaves", c.id)
	c.gone, c.owned = true, nil
	if c.classic {
		_, eff := c.w.g.LeaveClassic(c.w.now, []group.Leaving{{MemberID: c.id, Instance: c.instance}})
		c.w.effects(eff)
		return
	}
	r := Request{MemberID: c.id, Instance: c.instance, Epoch: leaveEpoch, RebalanceTimeout: -1}
	if c.instance != nil && c.w.rng.IntN(2) == 0 {
		r.Epoch = leaveStaticEpoch
	}
	_, _, eff := c.w.g.Heartbeat(c.w.now, c.w.image(), r)
	c.w.effects(eff)
}

// turn gives up what is to be given up, perhaps, and sends a heartbeat.
func (c *client) turn(n int) {
	if n%3 != 0 {
		before := len(c.owned)
		c.owned = slices.DeleteFunc(c.owned, func(tp metadata.TopicPartition) bool { return !contains(c.wanted, tp) })
		c.acked = c.acked && len(c.owned) == before
	}
	r := Request{MemberID: c.id, Instance: c.instance, Epoch: c.epoch, RebalanceTimeout: -1, ClientID: "c"}
	if c.epoch == 0 || c.unsure {
		r.RebalanceTimeout, r.Topics = 10*time.Minute, c.topics
		r.Regex, r.Matches = &c.regex, c.w.match(c.regex)
	}
	if c.epoch == 0 || c.unsure || !c.acked {
		r.Owned, r.OwnedSent = SortPartitions(c.owned), true
	}
	lost := n%7 == 0
	reply, err, eff := c.w.g.Heartbeat(c.w.now, c.w.image(), r)
	c.w.t.Logf("%s heartbeat epoch=%d owned=%v sent=%v lost=%v: %+v %v", c.id, r.Epoch, r.Owned, r.OwnedSent, lost, reply, err)
	c.w.effects(eff)
	if lost {
		c.unsure = true
		return
	}
	switch {
	case errors.Is(err, kerr.UnreleasedInstanceID):
		return
	case err != nil && (err.Code == kerr.FencedMemberEpoch.Code || err.Code == kerr.UnknownMemberID.Code || err.Code == kerr.FencedInstanceID.Code):
		c.owned, c.wanted, c.epoch = nil, nil, 0
		return
	case err != nil && err.Code == kerr.UnreleasedInstanceID.Code:
		return
	case err != nil:
		c.w.t.Fatalf("heartbeat: %v: %s", err, err.Description)
	}
	c.unsure, c.acked = false, true
	c.heard, c.epoch = c.w.now, reply.Epoch
	if reply.Assigned {
		c.wanted = reply.Assignment
	}
	// It may have what it is given at once, and gives up the rest when it can.
	for _, tp := range c.wanted {
		if !slices.Contains(c.owned, tp) {
			c.owned = append(c.owned, tp)
			c.acked = false
		}
	}
}

func (c *client) metadata() []group.Protocol {
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics = 1, c.topics
	for _, tp := range c.owned {
		if topic, ok := c.w.image().TopicByID(tp.Topic); ok {
			m.OwnedPartitions = append(m.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: topic.Name, Partitions: []int32{tp.Partition}})
		}
	}
	return []group.Protocol{{Name: "cooperative-sticky", Metadata: m.AppendTo(nil)}}
}

// classicTurn sends a heartbeat, or joins and syncs if there is reason to.
func (c *client) classicTurn(n int) {
	if c.epoch > 0 && !c.unsure {
		err, eff := c.w.g.HeartbeatClassic(c.w.now, c.w.image(), c.id, c.instance, c.epoch)
		c.w.effects(eff)
		switch err {
		case nil:
			c.heard = c.w.now
			return
		case kerr.RebalanceInProgress:
		default:
			c.owned, c.epoch = nil, 0
		}
	}
	id := c.id
	if c.epoch == 0 && c.instance != nil {
		id = ""
	}
	reply, eff := c.w.g.JoinClassic(c.w.now, c.w.image(), group.JoinRequest{
		MemberID: id, NewMemberID: c.id, Instance: c.instance, ClientID: "c", SessionTimeout: 45 * time.Second,
		RebalanceTimeout: 10 * time.Minute, ProtocolType: "consumer", Protocols: c.metadata(),
	})
	c.w.t.Logf("%s join owned=%v: %+v", c.id, c.owned, reply)
	c.w.effects(eff)
	if c.unsure = n%7 == 0; c.unsure {
		return
	}
	if reply.Err != nil {
		c.owned, c.epoch = nil, 0
		return
	}
	c.heard, c.epoch = c.w.now, reply.Generation
	sync, eff := c.w.g.SyncClassic(c.w.now, group.SyncRequest{MemberID: c.id, Instance: c.instance, Generation: c.epoch})
	c.w.effects(eff)
	if c.unsure = n%5 == 0; c.unsure || sync.Err == kerr.RebalanceInProgress {
		c.unsure = true
		return
	}
	if sync.Err != nil {
		c.w.t.Fatalf("sync right after a join: %v", sync.Err)
	}
	got, err := parseAssignment(sync.Assignment, c.w.image())
	if err != nil {
		c.w.t.Fatal(err)
	}
	// A cooperative consumer that lost something joins again to say so.
	c.w.t.Logf("%s sync: %v", c.id, got)
	c.unsure = slices.ContainsFunc(c.owned, func(tp metadata.TopicPartition) bool { return !slices.Contains(got, tp) })
	c.owned = got
}

// check compares the group with what the clients believe.
func (w *world) check() {
	w.t.Helper()
	believed := map[metadata.TopicPartition]string{}
	for _, c := range w.clients {
		for _, tp := range c.owned {
			if other, taken := believed[tp]; taken && other != c.id {
				w.t.Fatalf("%s owned by %s and %s", tp, other, c.id)
			}
			believed[tp] = c.id
		}
	}
	owners := map[metadata.TopicPartition]string{}
	for id, m := range w.g.members {
		for _, h := range slices.Concat(m.Assigned, m.Revoking) {
			if other, taken := owners[h.TopicPartition]; taken {
				w.t.Fatalf("%s assigned to %s and %s", h.TopicPartition, other, id)
			}
			owners[h.TopicPartition] = id
			if h.Since > w.g.epoch {
				w.t.Fatalf("%s assigned since %d, the group is at %d", h.TopicPartition, h.Since, w.g.epoch)
			}
		}
		if m.Epoch > w.g.assignmentEpoch || m.Epoch > 0 && m.Epoch < w.epochs[id] {
			w.t.Fatalf("member %s at %d, was at %d, assignment at %d", id, m.Epoch, w.epochs[id], w.g.assignmentEpoch)
		}
		w.epochs[id] = m.Epoch
		if m.Instance != nil && w.g.static[*m.Instance] != id {
			w.t.Fatalf("instance %s is %s, not %s", *m.Instance, w.g.static[*m.Instance], id)
		}
	}
	if !maps.Equal(owners, w.g.owners) {
		w.t.Fatalf("owners\n%v\nmembers have\n%v", w.g.owners, owners)
	}
	if w.g.assignmentEpoch > w.g.epoch || w.g.epoch < w.last {
		w.t.Fatalf("epoch %d, was %d, assigned %d", w.g.epoch, w.last, w.g.assignmentEpoch)
	}
	w.last = w.g.epoch
	if len(w.g.order) != len(w.g.members) || len(w.g.lives) != len(w.g.members) {
		w.t.Fatalf("%d members, %d ordered, %d alive", len(w.g.members), len(w.g.order), len(w.g.lives))
	}
}

// settleDown lets everybody speak until the group is stable, and then looks that
// everything is owned by somebody who wants it.
func (w *world) settleDown() {
	for range 40 {
		w.now = w.now.Add(3 * time.Second)
		w.effects(w.g.Tick(w.now))
		for _, c := range w.clients {
			c.maybeDie()
			if c.classic {
				c.classicTurn(1)
			} else {
				c.turn(1)
			}
		}
		w.check()
	}
	if len(w.clients) == 0 {
		return
	}
	if s := w.g.State(); s != StateStable {
		w.t.Fatalf("the group is %s in the end", s)
	}
	owned := map[metadata.TopicPartition]bool{}
	for _, c := range w.clients {
		if m := w.g.members[c.id]; !slices.Equal(SortPartitions(c.owned), m.Target) {
			w.t.Fatalf("%s owns %v, should %v", c.id, c.owned, m.Target)
		}
		for _, tp := range c.owned {
			owned[tp] = true
		}
	}
	for name, topic := range w.topics {
		for p := range topic.Partitions {
			if tp := (metadata.TopicPartition{Topic: topic.ID, Partition: p}); w.g.Subscribed(name) != owned[tp] {
				w.t.Fatalf("%s-%d: subscribed %v, owned %v", name, p, w.g.Subscribed(name), owned[tp])
			}
		}
	}
}
