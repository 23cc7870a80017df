package tiering

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/mem"
)

// unreliable is a bucket behind a bad network: requests are slow, lost, applied
// without an answer, and applied long after the caller gave up.
type unreliable struct {
	object.Store
	mu   sync.Mutex
	r    *rand.Rand
	rate float64 // of requests that go wrong
	late sync.WaitGroup
	seen map[string]int // requests by kind and first letter of the key
}

func (u *unreliable) count(kind, key string) {
	u.mu.Lock()
	u.seen[kind+" "+key[:1]]++
	u.mu.Unlock()
}

func (u *unreliable) draw() (kind float64, delay time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delay = time.Duration(u.r.ExpFloat64() * float64(5*time.Millisecond))
	if u.r.Float64() >= u.rate {
		return 1, delay
	}
	return u.r.Float64(), delay
}

var errNetwork = errors.New("connection reset")

func (u *unreliable) Create(ctx context.Context, key string, data ...[]byte) error {
	u.count("create", key)
	kind, delay := u.draw()
	time.Sleep(delay)
	switch {
	case kind < 0.25: // lost
		return errNetwork
	case kind < 0.5: // applied, answer lost
		_ = u.Store.Create(context.WithoutCancel(ctx), key, data...)
		return errNetwork
	case kind < 0.75: // applied late
		own := make([][]byte, len(data))
		for i := range data {
			own[i] = append([]byte(nil), data[i]...)
		}
		u.late.Go(func() {
			time.Sleep(delay * 40)
			_ = u.Store.Create(context.WithoutCancel(ctx), key, own...)
		})
		return errNetwork
	case kind < 1:
		return object.ErrThrottled
	}
	return u.Store.Create(ctx, key, data...)
}

func (u *unreliable) Delete(ctx context.Context, key string) error {
	u.count("delete", key)
	kind, delay := u.draw()
	time.Sleep(delay)
	if kind < 0.5 {
		return errNetwork
	}
	err := u.Store.Delete(ctx, key)
	if kind < 1 { // applied, answer lost
		return errNetwork
	}
	return err
}

func (u *unreliable) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	kind, delay := u.draw()
	time.Sleep(delay)
	if kind < 1 {
		return nil, errNetwork
	}
	return u.Store.List(ctx, prefix, after, limit)
}

func (u *unreliable) Get(ctx context.Context, key string, pos, n int64) ([]byte, error) {
	kind, delay := u.draw()
	time.Sleep(delay)
	if kind < 1 {
		return nil, errNetwork
	}
	return u.Store.Get(ctx, key, pos, n)
}

// chaos is several logs over one unreliable bucket, with partitions whose
// owners change all the time and idempotent producers that never give up.
type chaos struct {
	*world
	r     *rand.Rand
	store *unreliable
	// ending: whoever is left collects.
	ending atomic.Bool

	mu     sync.Mutex
	nodes  []*node
	all    []*node // and the last few of those replaced
	owners map[metadata.TopicPartition][]metadata.Owner
	acked  map[metadata.TopicPartition]int64 // largest offset acknowledged
	// asked is below what records were to be deleted at most, deleted below what they
	// certainly are.
	asked, deleted map[metadata.TopicPartition]int64
}

func (c *chaos) number(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.IntN(n)
}

// AskRelease fails now and then, as a network does.
func (c *chaos) AskRelease(ctx context.Context, from metadata.Incarnation, claims []Claim) ([]Released, error) {
	if c.number(4) == 0 {
		return nil, errNetwork
	}
	return c.world.AskRelease(ctx, from, claims)
}

// setOwners writes an owner list; c.mu is held.
func (c *chaos) setOwners(tp metadata.TopicPartition, list []metadata.Owner) {
	c.owners[tp] = list
	c.put(metadata.PartitionKey(tp), metadata.Partition{Owners: list})
}

// move lets a random node claim and lead a random partition.
func (c *chaos) move(ctx context.Context, partitions int) {
	tp := partition(int32(c.number(partitions)))
	c.mu.Lock()
	n := c.nodes[c.r.IntN(len(c.nodes))]
	list := c.owners[tp]
	epoch := int32(0)
	if len(list) > 0 {
		newest := list[len(list)-1]
		if newest.Incarnation == n.cfg.Incarnation {
			c.mu.Unlock()
			return
		}
		epoch = newest.Epoch + 1
	}
	list = append(list[:len(list):len(list)], metadata.Owner{Incarnation: n.cfg.Incarnation, Epoch: epoch})
	c.setOwners(tp, list)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	n.Lead(ctx, []LeadRequest{{Partition: tp, Owners: list}}) // a failure is part of the game
}

// trim drops what a checkpoint made unneeded, as the cluster code does.
func (c *chaos) trim(n *node) func([]Claim) {
	return func(claims []Claim) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, claim := range claims {
			list := c.owners[claim.Partition]
			for i, o := range list {
				if o.Incarnation == n.cfg.Incarnation && o.Epoch == claim.Epoch {
					dropped := list[:i]
					c.setOwners(claim.Partition, list[i:])
					for _, d := range dropped {
						c.world.mu.Lock()
						l := c.world.logs[d.Incarnation]
						c.world.mu.Unlock()
						if l != nil {
							l.Forget([]Claim{{Partition: claim.Partition, Epoch: d.Epoch}})
						}
					}
					break
				}
			}
		}
	}
}

func (c *chaos) replace(i int) {
	c.world.opened = func(n *node) { n.OnCheckpoint(c.trim(n)) }
	c.world.tune = func(cfg *Config) {
		cfg.Peers = c
		cfg.CheckpointSlots, cfg.CheckpointInterval = 20, 2*time.Second
		cfg.TailBytes, cfg.ExtentCacheBytes, cfg.UnflushedBytesMax = 64<<10, 64<<10, 16<<20
		cfg.PutTimeout = time.Second
		tiny(cfg)
		cfg.TierAge = time.Duration(100+c.number(1500)) * time.Millisecond
		cfg.SegmentBytes, cfg.SegmentBytesMax, cfg.BlockBytes = 1500, 3000, 200
		cfg.CheckpointInterval, cfg.SweepInterval, cfg.SweepAge = time.Second, 500*time.Millisecond, time.Millisecond
		collects := c.number(2) == 0
		cfg.Collects = func() bool { return collects || c.ending.Load() }
	}
	n := c.world.start(c.store)
	c.mu.Lock()
	old := c.nodes[i]
	c.nodes[i] = n
	c.all = append(c.all[max(0, len(c.all)-8):], n)
	c.mu.Unlock()
	if old == nil {
		return
	}
	switch c.number(4) {
	case 0: // it goes on as a zombie that nobody gives work to
	case 1:
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Duration(c.number(2000))*time.Millisecond)
		defer cancel()
		if err := old.Close(ctx); err == nil {
			return
		}
		fallthrough
	default:
		old.kill()
	}
}

// read asks random nodes, zombies among them, for high watermarks that they
// have proven to be entitled to tell: none may lie below what was acknowledged
// before the question.
func (c *chaos) read(ctx context.Context, partitions int) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(c.number(20)) * time.Millisecond)
		tp := partition(int32(c.number(partitions)))
		c.mu.Lock()
		n := c.all[c.r.IntN(len(c.all))]
		before, any := c.acked[tp]
		deleted := c.deleted[tp]
		c.mu.Unlock()
		if !any || n.Check(ctx, 0) != nil {
			continue
		}
		if p, err := n.Partition(tp); err == nil {
			hw := p.Offsets().HighWatermark
			if hw <= before {
				c.t.Errorf("%s tells high watermark %d of %s after offset %d was acknowledged", n.cfg.Incarnation, hw, tp, before)
			}
			c.mu.Lock()
			least, most := deleted, c.asked[tp]
			c.mu.Unlock()
			if start := p.Offsets().LogStart; start < least || start > most {
				c.t.Errorf("%s tells log start %d of %s; records below %d are deleted, and below %d were to be", n.cfg.Incarnation, start, tp, least, most)
			}
			if _, err := p.Read(ctx, int64(c.number(int(hw))), 100); errors.Is(err, ErrDataLoss) || errors.Is(err, ErrCorrupt) {
				c.t.Errorf("%s reads %s: %v", n.cfg.Incarnation, tp, err)
			}
		}
	}
}

// trimNow asks a random node to delete records of a random partition.
func (c *chaos) trimNow(ctx context.Context, partitions int) {
	tp := partition(int32(c.number(partitions)))
	c.mu.Lock()
	n := c.all[c.r.IntN(len(c.all))]
	c.mu.Unlock()
	p, err := n.Partition(tp)
	if err != nil {
		return
	}
	o := p.Offsets()
	to := o.LogStart + int64(c.number(int(o.HighWatermark-o.LogStart)/3+1))
	c.mu.Lock()
	c.asked[tp] = max(c.asked[tp], to)
	c.mu.Unlock()
	low, err := p.DeleteRecords(ctx, to)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		return
	}
	if to > o.LogStart && low == to { // else it changed nothing, which a zombie may say as well
		c.deleted[tp] = max(c.deleted[tp], low)
		c.store.count("trim", "p")
	}
}

// produce writes values 0..n-1 of one idempotent producer, three in flight,
// until each is acknowledged, and returns the offsets acknowledged.
func (c *chaos) produce(ctx context.Context, tp metadata.TopicPartition, pid int64, n int) map[int]int64 {
	acked := make(map[int]int64)
	for first := 0; first < n; {
		c.mu.Lock()
		l := c.nodes[c.r.IntN(len(c.nodes))]
		c.mu.Unlock()
		var flight []*Appended
		if p, err := l.Partition(tp); err == nil {
			for i := first; i < min(n, first+3); i++ {
				raw, h := makeBatch(pid, 0, int32(i), int64(i), fmt.Sprintf("%d/%d", pid, i))
				a, err := p.Append(raw, h, 0, false)
				if err != nil {
					break
				}
				flight = append(flight, a)
			}
		}
		for _, a := range flight {
			<-a.Done()
			if a.Err() != nil {
				break
			}
			acked[first] = a.BaseOffset
			first++
			c.mu.Lock()
			c.acked[tp] = max(c.acked[tp], a.BaseOffset)
			c.mu.Unlock()
		}
		if len(flight) == 0 {
			time.Sleep(time.Duration(1+c.number(20)) * time.Millisecond)
		}
		if ctx.Err() != nil {
			return acked
		}
	}
	return acked
}

// Whatever the bucket and the processes do: each acknowledged batch is in the
// log once, at the offset acknowledged, in its producer's order; others are
// there once or not at all.
func TestChaos(t *testing.T) {
	seeds := 30
	first := uint64(time.Now().UnixNano())
	if s := os.Getenv("TIDEMARK_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, seeds = v, 1
	}
	if testing.Short() {
		seeds = min(seeds, 5)
	}
	seen := make(map[string]int)
	for i := range seeds {
		seed := first + uint64(i)
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { runChaos(t, seed, seen, func() {}) }) }) {
			t.Fatalf("TIDEMARK_SEED=%d repeats it", seed)
		}
	}
	t.Log(seen)
	for _, kind := range []string{"create s", "create x", "delete w", "delete s", "delete x", "delete k", "trim p"} {
		if seen[kind] == 0 && !testing.Short() && seeds > 1 { // a few seeds need not see everything
			t.Errorf("%q never happened", kind)
		}
	}
}

// runChaos calls calm when faults shall end, before it reads everything back.
func runChaos(t *testing.T, seed uint64, seen map[string]int, calm func()) {
	const partitions, producersEach, values = 3, 2, 40
	c := &chaos{world: newWorld(t), r: rand.New(rand.NewPCG(seed, 1)), nodes: make([]*node, 3), owners: make(map[metadata.TopicPartition][]metadata.Owner), acked: make(map[metadata.TopicPartition]int64),
		asked: make(map[metadata.TopicPartition]int64), deleted: make(map[metadata.TopicPartition]int64)}
	bucket := mem.New()
	c.store = &unreliable{Store: bucket, r: rand.New(rand.NewPCG(seed, 2)), rate: 0.2, seen: seen}
	for i := range c.nodes {
		c.replace(i)
	}
	// Far longer than any run needs: what takes it all is stuck.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	var nemesis, clients sync.WaitGroup
	for range 3 {
		nemesis.Go(func() {
			for ctx.Err() == nil {
				c.move(ctx, partitions)
				time.Sleep(time.Duration(c.number(300)) * time.Millisecond)
			}
		})
	}
	nemesis.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(time.Duration(c.number(1500)) * time.Millisecond)
			c.replace(c.number(len(c.nodes)))
		}
	})
	if seed%2 == 1 {
		nemesis.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Duration(c.number(60)) * time.Millisecond)
				c.trimNow(ctx, partitions)
			}
		})
	}
	for range 4 {
		nemesis.Go(func() { c.read(ctx, partitions) })
	}
	results := make([]map[int]int64, partitions*producersEach)
	for i := range results {
		clients.Go(func() {
			results[i] = c.produce(ctx, partition(int32(i%partitions)), int64(i), values)
		})
	}
	clients.Wait()
	stuck := ctx.Err() != nil
	cancel()
	nemesis.Wait()
	c.store.mu.Lock()
	c.store.rate = 0
	c.store.mu.Unlock()
	calm()
	c.replace(0)
	last := c.nodes[0]
	c.check(last, results, partitions)
	if stuck {
		t.Error("producers made no progress")
	}
	c.store.late.Wait()
	c.world.store = bucket
	c.checkCollected(last, partitions)
	c.replace(1) // by a fault of nobody's, and with nothing in memory
	c.check(c.nodes[1], results, partitions)
	for _, l := range c.world.logs {
		l.fail(ErrFenced)
	}
}

// check has n lead everything and reads it all.
func (c *chaos) check(n *node, results []map[int]int64, partitions int) {
	c.t.Helper()
	for i := range partitions {
		tp := partition(int32(i))
		c.mu.Lock()
		list := c.owners[tp]
		list = append(list[:len(list):len(list)], metadata.Owner{Incarnation: n.cfg.Incarnation, Epoch: list[len(list)-1].Epoch + 1})
		c.setOwners(tp, list)
		c.mu.Unlock()
		p := c.lead(n, tp, list)
		start := p.Offsets().LogStart
		if start < c.deleted[tp] || start > c.asked[tp] {
			c.t.Errorf("%s begins at %d; records below %d are deleted, and below %d were to be", tp, start, c.deleted[tp], c.asked[tp])
		}
		checkChaos(c.t, readAll(c.t, p, start, 1000), start, results, i, partitions)
	}
}

// checkCollected ends all other incarnations and waits: then everything is in
// segments, and of the rest there is only what must be.
func (c *chaos) checkCollected(last *node, partitions int) {
	c.t.Helper()
	for _, l := range c.world.logs {
		if l != last.Log {
			l.fail(ErrFenced)
		}
	}
	dead, err := c.chains.Abandoned(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, inc := range dead {
		if inc == last.cfg.Incarnation {
			continue
		}
		if _, err := last.Seal(c.t.Context(), inc); err != nil {
			c.t.Fatal(err)
		}
	}
	c.ending.Store(true)
	time.Sleep(time.Minute)
	c.checkAccounted(last, partitions)
}

// checkChaos judges a log that begins at offset start.
func checkChaos(t *testing.T, log []string, start int64, results []map[int]int64, p, partitions int) {
	t.Helper()
	next := make(map[int]int)
	for pid := p; pid < len(results); pid += partitions {
		for i, at := range results[pid] { // what was acknowledged below the start
			if at < start {
				next[pid] = max(next[pid], i+1)
			}
		}
	}
	for n, v := range log {
		offset := start + int64(n)
		var pid, i int
		if _, err := fmt.Sscanf(v, "%d/%d", &pid, &i); err != nil || pid%partitions != p {
			t.Fatalf("offset %d of partition %d holds %q", offset, p, v)
		}
		if i != next[pid] {
			t.Fatalf("producer %d: value %d at offset %d, expected %d: lost, duplicated or reordered", pid, i, offset, next[pid])
		}
		if at, ok := results[pid][i]; ok && at != offset {
			t.Fatalf("producer %d: value %d acknowledged at offset %d lies at %d", pid, i, at, offset)
		}
		next[pid]++
	}
	for pid := p; pid < len(results); pid += partitions {
		if len(results[pid]) > next[pid] {
			t.Fatalf("producer %d: %d values acknowledged, %d in the log", pid, len(results[pid]), next[pid])
		}
	}
}
