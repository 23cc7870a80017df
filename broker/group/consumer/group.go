package consumer

import (
	"maps"
	"slices"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

// never is the deadline that does not come.
var never time.Time

// Group is one consumer group.
type Group struct {
	id     string
	cfg    *Config
	timing Timing
	// img is the newest image seen; digest is of the subscribed topics in the
	// image of digestOf.
	img      *Image
	digest   uint64
	digestOf uint64

	epoch           int32
	assignmentEpoch int32
	assignedAt      time.Time
	// since is when the group became empty, or was made.
	since time.Time
	dead  bool

	// members by id, order their ids, lives their deadlines.
	members map[string]*Member
	order   []string
	lives   map[string]*life
	// static maps group.instance.id to member id.
	static map[string]string
	// owners maps each partition that is in some member's Assigned or Revoking
	// to that member: there is one at most.
	owners map[metadata.TopicPartition]string
	// topics and regexes count their subscribers; matches has every expression
	// in regexes.
	topics  map[string]int
	regexes map[string]int
	matches map[string]Matches
	// refreshed is when the expressions were last asked for; refreshing until
	// the answer came.
	refreshed  time.Time
	refreshing bool
	// classic counts the classic members.
	classic int

	// wake is no later than the earliest deadline; zero when there is none.
	wake    time.Time
	seq     uint64
	changed bool
	now     time.Time
	out     Effects
}

// life is a member's deadlines. Session ends it when the member is silent,
// rebalance when it does not give up partitions; join and sync are a classic
// member's, which has to join again and to fetch its assignment.
type life struct{ session, rebalance, join, sync time.Time }

// Effects is what the driver has to do after an event, in any order.
type Effects struct {
	// Persist is the number of the state to write: Snapshot returns it, or a
	// later one, which contains it. Zero: nothing changed.
	Persist uint64
	// Resolve are regular expressions to match against the newest image; the
	// answer is to be passed to Resolved.
	Resolve []string
	// Downgrade: only classic members are left, and the group is to become a
	// classic one.
	Downgrade bool
	// Rebalances counts the times the group epoch grew, Completed the times
	// the last member reached its target.
	Rebalances int
	Completed  int
}

// Snapshot is a group's durable state. Neither it nor its members change.
type Snapshot struct {
	Seq             uint64
	Epoch           int32
	AssignmentEpoch int32
	Digest          uint64
	Since           time.Time
	Members         []*Member
}

// New returns an empty group. cfg is shared and must not change.
func New(id string, cfg *Config, now time.Time) *Group {
	return &Group{
		id: id, cfg: cfg, timing: cfg.Timing(), since: now,
		members: map[string]*Member{}, lives: map[string]*life{},
		static: map[string]string{}, owners: map[metadata.TopicPartition]string{},
		topics: map[string]int{}, regexes: map[string]int{}, matches: map[string]Matches{},
	}
}

// Restore returns the group that s describes, with every session beginning
// anew: whoever held them before can no longer tell who is alive. match tells
// what expressions match in img.
func Restore(id string, cfg *Config, timing Timing, s *Snapshot, img *Image, match func(string) Matches, now time.Time) *Group {
	g := New(id, cfg, now)
	g.timing, g.img = timing, img
	g.begin(now)
	g.epoch, g.assignmentEpoch, g.digest, g.since = s.Epoch, s.AssignmentEpoch, s.Digest, s.Since
	for _, m := range s.Members {
		g.put(m)
		if m.Regex != "" {
			if _, known := g.matches[m.Regex]; !known {
				g.matches[m.Regex] = match(m.Regex)
			}
		}
	}
	for _, m := range s.Members {
		g.awake(m)
	}
	g.changed = false
	return g
}

// awake begins a member's deadlines as if it had just been heard of.
func (g *Group) awake(m *Member) {
	l := g.lives[m.ID]
	l.session = g.deadline(g.sessionTimeout(m))
	if m.State == Unrevoked && m.Classic == nil {
		l.rebalance = g.deadline(m.RebalanceTimeout)
	}
}

// ID is the group's id.
func (g *Group) ID() string { return g.id }

// Epoch is the group epoch.
func (g *Group) Epoch() int32 { return g.epoch }

// SetTiming takes over timing that the group's configs changed.
func (g *Group) SetTiming(t Timing) { g.timing = t }

// Vacant tells that the group has no members.
func (g *Group) Vacant() bool { return len(g.members) == 0 }

// Snapshot is the newest state.
func (g *Group) Snapshot() *Snapshot {
	s := &Snapshot{
		Seq: g.seq, Epoch: g.epoch, AssignmentEpoch: g.assignmentEpoch, Digest: g.digest, Since: g.since,
		Members: make([]*Member, 0, len(g.order)),
	}
	for _, id := range g.order {
		s.Members = append(s.Members, g.members[id])
	}
	return s
}

// Seq numbers the newest state.
func (g *Group) Seq() uint64 { return g.seq }

// put adds a member, or replaces the one with its id.
func (g *Group) put(m *Member) {
	if old := g.members[m.ID]; old != nil {
		g.count(old, -1)
	} else {
		i, _ := slices.BinarySearch(g.order, m.ID)
		g.order = slices.Insert(g.order, i, m.ID)
		g.lives[m.ID] = &life{}
	}
	g.members[m.ID] = m
	g.count(m, 1)
	g.changed = true
}

// drop removes a member.
func (g *Group) drop(id string) {
	m := g.members[id]
	g.count(m, -1)
	delete(g.members, id)
	delete(g.lives, id)
	i, _ := slices.BinarySearch(g.order, id)
	g.order = slices.Delete(g.order, i, i+1)
	if m.Regex != "" && g.regexes[m.Regex] == 0 {
		delete(g.matches, m.Regex)
	}
	if len(g.members) == 0 {
		g.since = g.now
	}
	g.changed = true
}

// count adds m to what is known of all members, or takes it out.
func (g *Group) count(m *Member, by int) {
	if m.Instance != nil {
		if by > 0 {
			g.static[*m.Instance] = m.ID
		} else if g.static[*m.Instance] == m.ID {
			delete(g.static, *m.Instance)
		}
	}
	for _, t := range m.Topics {
		add(g.topics, t, by)
	}
	if m.Regex != "" {
		add(g.regexes, m.Regex, by)
	}
	if m.Classic != nil {
		g.classic += by
	}
	for _, held := range [][]Held{m.Assigned, m.Revoking} {
		for _, h := range held {
			if by > 0 {
				g.owners[h.TopicPartition] = m.ID
			} else if g.owners[h.TopicPartition] == m.ID {
				delete(g.owners, h.TopicPartition)
			}
		}
	}
}

func add(counts map[string]int, key string, by int) {
	if counts[key] += by; counts[key] == 0 {
		delete(counts, key)
	}
}

// subscribed lists the topics that somebody wants, sorted.
func (g *Group) subscribed() []string {
	names := maps.Clone(g.topics)
	for regex := range g.regexes {
		for _, t := range g.matches[regex].Topics {
			names[t] = 1
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// wants tells whether m is subscribed to the topic.
func (g *Group) wants(m *Member, topic string) bool {
	if _, ok := slices.BinarySearch(m.Topics, topic); ok {
		return true
	}
	if m.Regex == "" {
		return false
	}
	_, ok := slices.BinarySearch(g.matches[m.Regex].Topics, topic)
	return ok
}

// look takes over an image, unless it is older than the last, and reports
// whether what the group subscribes to has changed.
func (g *Group) look(img *Image) bool {
	if g.img == nil || img.version > g.img.version {
		g.img = img
	}
	return g.refreshDigest()
}

func (g *Group) refreshDigest() bool {
	before := g.digest
	g.digest, g.digestOf = g.img.digest(g.subscribed()), g.img.version
	return g.digest != before
}

// bump begins a rebalance.
func (g *Group) bump() {
	g.epoch++
	g.out.Rebalances++
	g.changed = true
}

// begin notes the time of an event; take ends the event.
func (g *Group) begin(now time.Time) { g.now = now }

func (g *Group) take() Effects {
	if g.changed {
		g.changed = false
		g.seq++
		g.out.Persist = g.seq
	}
	out := g.out
	g.out = Effects{}
	return out
}
