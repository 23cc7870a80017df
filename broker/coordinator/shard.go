package coordinator

import (
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/broker/group/consumer"
)

type shardState int8

const (
	shardNone shardState = iota // another broker's, as far as we know
	shardLoading
	shardActive
)

// shard is one shard and, while it is ours, its groups.
type shard struct {
	c  *Coordinator
	id int

	mu    sync.Mutex
	state shardState
	// term changes whenever the groups in memory begin or cease to count.
	term uint64
	// rev is the shard key's revision that an active shard was loaded under.
	rev int64
	// floor: what a view tells of revisions up to it is no news.
	floor int64
	// epoch is the shard key's, in the markers of an active shard's transactions.
	epoch   int32
	groups  map[string]*entry
	txns    map[string]*txnEntry
	pending pendings
	tickets group.Ticket
	waiters map[group.Ticket]chan group.Reply
}

// entry is one group of an active shard, guarded by the shard's lock.
type entry struct {
	id string
	// g is a classic group, k a consumer group: one of them is set.
	g *group.Group
	k *consumer.Group
	// offsetsPrefix is what the keys of the group's chunks begin with.
	offsetsPrefix string
	// corrupt: the stored group cannot be read. It is left as it is and
	// served to nobody.
	corrupt bool

	// timer calls Tick at armed; nil or zero while the group waits for nothing.
	timer *time.Timer
	armed time.Time

	stored stored
	// issued numbers the snapshots of the group, whatever its protocol, and
	// settled is the last one whose fate is known.
	issued  uint64
	settled uint64
	// queued is the newest snapshot that is not being written yet. It waits
	// until the commits accepted before it are decided, so that none of an
	// older generation succeeds once the new one is stable. changed tells that
	// a consumer group is ahead of it: its state is queued in turn.
	queued     *snapshot
	changed    bool
	barrierSeq uint64
	barrier    int
	writing    bool
	durable    []durableWaiter
	deletion   *deletion
	// written is the last state known to be stored, nil for none.
	written *snapshot

	// accepted numbers the group's commits; outstanding counts the undecided.
	accepted    uint64
	outstanding int
	chunks      map[chunkID]*chunk
}

// durableWaiter is told once the snapshot seq, or a later one, is decided.
type durableWaiter struct {
	seq  uint64
	done chan *kerr.Error
}

// deletion is a group's removal, waiting until nothing else is under way.
type deletion struct{ done chan *kerr.Error }

func (sh *shard) newEntry(g *group.Group) *entry {
	return &entry{id: g.ID(), g: g, offsetsPrefix: groupOffsetsPrefix(sh.id, g.ID()), chunks: map[chunkID]*chunk{}}
}

// serving tells why the shard cannot serve, or nil.
func (sh *shard) serving() *kerr.Error {
	if sh.c.draining.Load() {
		return kerr.NotCoordinator
	}
	switch sh.state {
	case shardActive:
		return nil
	case shardLoading:
		return kerr.CoordinatorLoadInProgress
	}
	return kerr.NotCoordinator
}

// find returns the group, or nil when there is none.
func (sh *shard) find(id string) (*entry, *kerr.Error) {
	if err := sh.serving(); err != nil {
		return nil, err
	}
	e := sh.groups[id]
	if e != nil && e.corrupt {
		return nil, kerr.UnknownServerError
	}
	return e, nil
}

// findOrCreate returns the group, new if it has to be.
func (sh *shard) findOrCreate(id string, now time.Time) (*entry, *kerr.Error) {
	e, err := sh.find(id)
	if e != nil || err != nil {
		return e, err
	}
	if len(sh.groups) >= sh.c.cfg.GroupsPerShardMax {
		return nil, kerr.CoordinatorNotAvailable
	}
	e = sh.newEntry(group.New(id, &sh.c.cfg.Group, now))
	sh.groups[id] = e
	return e, nil
}

// park makes a ticket and the channel that its reply comes through.
func (sh *shard) park() (group.Ticket, <-chan group.Reply) {
	sh.tickets++
	ch := make(chan group.Reply, 1)
	sh.waiters[sh.tickets] = ch
	return sh.tickets, ch
}

// handle carries out what an event of e asks for. It returns the number of the
// snapshot that was issued, or 0.
func (sh *shard) handle(e *entry, eff group.Effects) uint64 {
	sh.reply(eff.Replies)
	sh.c.metrics.effects(eff)
	var seq uint64
	if eff.Persist != nil {
		e.issued++
		seq = e.issued
		e.queue(&snapshot{seq: seq, classic: eff.Persist, of: e.g})
	}
	sh.advance(e)
	sh.arm(e)
	return seq
}

// reply answers parked requests.
func (sh *shard) reply(replies []group.Reply) {
	for _, r := range replies {
		if ch := sh.waiters[r.Ticket]; ch != nil {
			delete(sh.waiters, r.Ticket)
			ch <- r
		}
	}
}

// queue has s written when the commits accepted before it are decided.
func (e *entry) queue(s *snapshot) {
	e.queued, e.changed = s, false
	e.barrierSeq, e.barrier = e.accepted, e.outstanding
}

// advance begins whatever of e's writes has nothing left to wait for.
func (sh *shard) advance(e *entry) {
	if !e.writing && e.queued == nil && e.changed {
		e.queue(&snapshot{seq: e.issued, consumer: e.k.Snapshot()})
	}
	switch {
	case e.writing:
	case e.queued != nil && e.barrier == 0:
		s := e.queued
		e.queued, e.writing = nil, true
		term := sh.term
		sh.c.spawn(func() { sh.persist(term, e, s) })
	case e.queued == nil && e.deletion != nil && e.outstanding == 0:
		e.writing = true
		term := sh.term
		sh.c.spawn(func() { sh.erase(term, e) })
	}
}

// arm sets the group's timer no later than its deadline. One that is early
// only finds out the next deadline, so heartbeats need not touch it.
func (sh *shard) arm(e *entry) {
	deadline, ok := e.machine().Deadline()
	if !ok {
		if e.timer != nil {
			e.timer.Stop()
			e.armed = time.Time{}
		}
		sh.forget(e)
		return
	}
	if !e.armed.IsZero() && !deadline.Before(e.armed) {
		return
	}
	e.armed = deadline
	in := max(time.Until(deadline), 0)
	if e.timer == nil {
		term := sh.term
		e.timer = time.AfterFunc(in, func() { sh.c.within(func() { sh.tick(term, e) }) })
		return
	}
	e.timer.Reset(in)
}

func (sh *shard) tick(term uint64, e *entry) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.term != term || sh.groups[e.id] != e {
		return
	}
	e.armed = time.Time{}
	if e.k != nil {
		sh.handleConsumer(e, e.k.Tick(time.Now()))
		return
	}
	sh.handle(e, e.g.Tick(time.Now()))
}

// forget drops a group that is nothing but an entry here.
func (sh *shard) forget(e *entry) {
	if !e.machine().Vacant() || e.corrupt || e.stored.header != 0 || len(e.stored.garbage) > 0 || len(e.chunks) > 0 ||
		e.queued != nil || e.changed || e.writing || e.deletion != nil || e.outstanding > 0 {
		return
	}
	if sh.groups[e.id] == e {
		delete(sh.groups, e.id)
	}
}

// decided notes that a commit of e was decided.
func (sh *shard) decided(e *entry, seq uint64) {
	e.outstanding--
	if seq <= e.barrierSeq && e.barrier > 0 {
		e.barrier--
	}
	sh.advance(e)
	if _, waits := e.machine().Deadline(); !waits {
		sh.forget(e)
	}
}

// drop lets go of every group: what is parked is answered with err.
func (sh *shard) drop(err *kerr.Error) {
	sh.term++
	sh.state = shardNone
	for _, e := range sh.groups {
		if e.timer != nil {
			e.timer.Stop()
		}
		if e.k != nil {
			e.k.Unload()
		} else {
			sh.reply(e.g.Unload(err).Replies)
		}
		for _, w := range e.durable {
			w.done <- err
		}
		if e.deletion != nil {
			e.deletion.done <- err
		}
	}
	for _, e := range sh.txns {
		if e.timer != nil {
			e.timer.Stop()
		}
	}
	sh.groups, sh.txns, sh.pending = nil, nil, pendings{}
	clear(sh.waiters)
}

// lose gives up the shard, which has another coordinator, unless that is known
// already.
func (sh *shard) lose(term uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.term != term || sh.state != shardActive {
		return
	}
	sh.floor = max(sh.floor, sh.rev)
	sh.drop(kerr.NotCoordinator)
	sh.c.log.Info("gave up a coordinator shard: its key has changed", slog.Int(logShard, sh.id), slog.Int64(logRevision, sh.rev))
	sh.c.poke()
}

// reload loads the shard again because its stored state is not known, after
// making sure that nothing still under way can change it.
func (sh *shard) reload(term uint64, reason error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.term != term || sh.state != shardActive {
		return
	}
	sh.c.log.Warn("loading a coordinator shard again", slog.Int(logShard, sh.id), slog.Any(logReason, reason))
	sh.drop(kerr.NotCoordinator)
	sh.startLoad(true)
}
