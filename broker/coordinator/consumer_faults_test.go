package coordinator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// owners is what all members of a group together know: who was told last that a
// partition is its own, and what was committed.
type owners struct {
	mu     sync.Mutex
	of     map[int32]string
	since  map[int32]int // counts the changes of owner
	acked  map[int32]int64
	next   map[int32]int64
	told   int
	stale  int
	passed int
}

// TestNoCommitOfAFormerOwner runs members of one consumer group against two
// brokers under faults and moves of the shard: once a partition was given to a
// member, no commit of another one for it that is sent afterwards succeeds
// (C14), and what was committed is seen by whoever gets the partition (C13).
func TestNoCommitOfAFormerOwner(t *testing.T) {
	told, stale := 0, 0
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *env) {
				rng := rand.New(rand.NewPCG(seed, 9))
				nodes := []*node{e.node(1, noInterval), e.node(2, noInterval)}
				e.assignAll(1)
				ctx, cancel := context.WithCancel(context.Background())
				o := &owners{of: map[int32]string{}, since: map[int32]int{}, acked: map[int32]int64{}, next: map[int32]int64{}}
				var wg sync.WaitGroup
				for i := range 5 {
					m := &simMember{t: t, e: e, o: o, nodes: nodes, rng: rand.New(rand.NewPCG(seed, uint64(50+i))), id: fmt.Sprint("m", i)}
					wg.Go(func() { m.run(ctx) })
				}
				for range 80 {
					disturb(e, nodes, rng)
					time.Sleep(time.Duration(rng.IntN(6000)) * time.Millisecond)
				}
				for _, n := range nodes {
					n.kv.Inject(nil)
					n.kv.SetUnavailable(false)
					n.kv.Resume()
				}
				cancel()
				wg.Wait()
				told, stale = told+o.told, stale+o.stale
			})
		})
	}
	if told < 200 || stale < 20 {
		t.Errorf("%d partitions given, %d commits of former owners tried: too few to mean anything", told, stale)
	}
}

// simMember is a consumer that commits, and that goes on committing what it lost.
type simMember struct {
	t     *testing.T
	e     *env
	o     *owners
	nodes []*node
	rng   *rand.Rand
	at    int
	id    string
	epoch int32
	owned []int32
	acked bool
	heard time.Time
	// former is what it had, and in which epoch.
	former      []int32
	formerEpoch int32
}

func (m *simMember) run(ctx context.Context) {
	for ctx.Err() == nil {
		switch n := m.rng.IntN(20); {
		case n == 0:
			time.Sleep(time.Duration(m.rng.IntN(60)) * time.Second) // a long pause
		case n < 3 && m.epoch > 0:
			m.beat(-1)
			m.lose()
			time.Sleep(time.Duration(m.rng.IntN(20)) * time.Second)
		case n < 8 && len(m.owned) > 0:
			m.commit(m.owned[m.rng.IntN(len(m.owned))], m.epoch)
		case n < 10 && len(m.former) > 0:
			m.commit(m.former[m.rng.IntN(len(m.former))], m.formerEpoch)
		default:
			m.beat(m.epoch)
		}
		time.Sleep(time.Duration(200+m.rng.IntN(2000)) * time.Millisecond)
	}
}

// lose forgets the membership.
func (m *simMember) lose() {
	if len(m.owned) > 0 {
		m.former, m.formerEpoch = m.owned, m.epoch
	}
	m.owned, m.epoch = nil, 0
}

func (m *simMember) beat(epoch int32) {
	if epoch > 0 && time.Since(m.heard) > 40*time.Second {
		m.lose()
		epoch = 0
	}
	before := m.o.count()
	resp := m.nodes[m.at].ConsumerGroupHeartbeat(context.Background(), someone, beat("g", m.id, epoch, func(req *kmsg.ConsumerGroupHeartbeatRequest) {
		if epoch == 0 {
			req.SubscribedTopicNames = []string{"u", "v"}
			req.SubscribedTopicNames = req.SubscribedTopicNames[:1]
		} else if !m.acked || m.rng.IntN(3) == 0 {
			m.e.owning(m.owned...)(req)
		}
	}))
	switch resp.ErrorCode {
	case 0:
	case kerr.UnknownMemberID.Code, kerr.FencedMemberEpoch.Code:
		m.lose()
		return
	default:
		m.at = m.rng.IntN(2)
		return
	}
	if epoch < 0 {
		return
	}
	m.heard, m.epoch, m.acked = time.Now(), resp.MemberEpoch, true
	if resp.Assignment == nil {
		return
	}
	got := assigned(resp)
	m.acked = slices.Equal(got, m.owned)
	for _, p := range m.owned {
		if !slices.Contains(got, p) {
			m.former, m.formerEpoch = []int32{p}, m.epoch
		}
	}
	for _, p := range got {
		if !slices.Contains(m.owned, p) {
			m.take(p, before)
		}
	}
	m.owned = got
}

func (o *owners) count() map[int32]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[int32]int{}
	for p, n := range o.since {
		out[p] = n
	}
	return out
}

// take notes that the partition is this member's, and fetches its offset. asked
// counts the changes of owner before the answer was asked for: an answer that
// was on its way while another got the partition tells nothing new.
func (m *simMember) take(p int32, asked map[int32]int) {
	m.o.mu.Lock()
	if m.o.since[p] == asked[p] {
		m.o.of[p] = m.id
		m.o.since[p]++
		m.o.told++
	}
	acked := m.o.acked[p]
	m.o.mu.Unlock()
	if got, c := m.nodes[m.at].fetch("g", "u", p); c == 0 && got+1 < acked {
		m.t.Errorf("%s got partition %d and sees %d committed, %d was acknowledged", m.id, p, got, acked-1)
	}
}

func (m *simMember) commit(p int32, epoch int32) {
	m.o.mu.Lock()
	owner, since := m.o.of[p], m.o.since[p]
	m.o.next[p]++
	offset := m.o.next[p]
	m.o.mu.Unlock()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 9, "g", m.id, epoch
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "u", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: p, Offset: offset}}}}
	c := m.nodes[m.at].OffsetCommit(context.Background(), someone, req).Topics[0].Partitions[0].ErrorCode
	m.o.mu.Lock()
	defer m.o.mu.Unlock()
	if owner != m.id && owner != "" {
		m.o.stale++
	}
	if c != 0 {
		return
	}
	if owner != m.id && owner != "" {
		m.t.Errorf("%s committed partition %d in epoch %d, which is %s's", m.id, p, epoch, owner)
	}
	if m.o.since[p] == since {
		m.o.acked[p] = max(m.o.acked[p], offset+1)
	}
	m.o.passed++
}
