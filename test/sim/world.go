package sim

import (
	"container/heap"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	etcd "github.com/tidemark-io/tidemark/metadata/mem"
	bucket "github.com/tidemark-io/tidemark/tiering/object/mem"
)

// World is one simulated run: the clock, the calls that are parked, the bucket,
// etcd, the processes and the network between all of them.
type World struct {
	seed    uint64
	begun   time.Time
	weather weather
	trace   *trace
	judge   *judge

	objects *bucket.Store
	keys    *etcd.Store
	etcd    *etcd.Client // as etcd itself sees its keys: no faults, no delays

	// arrived tells the scheduler that something was parked.
	arrived chan struct{}

	// mu guards what follows. Nothing is called under it.
	mu        sync.Mutex
	parked    parked
	order     uint64
	counters  map[string]counter
	labels    map[string]string
	owned     map[string]int // labels given, by process
	processes []*Process
	listeners map[string][]*listener
	cuts      map[[2]string]time.Duration // until when a link is cut
	outages   map[string]time.Duration    // until when a service refuses
	conns     map[*conn]struct{}
	healed    bool
	released  int
	faults    map[string]int
}

// event is something that is parked until the scheduler releases it.
type event struct {
	due   time.Duration
	tie   uint64 // orders events that are due at once
	order uint64 // orders those that have the same tie as well
	name  string
	// run is what happens. It returns how long the event is to be parked again,
	// 0 when it is done with.
	run func() time.Duration
}

func newWorld(seed uint64, w weather, t *trace) *World {
	keys := etcd.New()
	return &World{
		seed: seed, begun: time.Now(), weather: w, trace: t,
		objects: bucket.New(), keys: keys, etcd: keys.Client(),
		arrived: make(chan struct{}, 1), counters: make(map[string]counter), labels: make(map[string]string), owned: make(map[string]int),
		listeners: make(map[string][]*listener), cuts: make(map[[2]string]time.Duration), outages: make(map[string]time.Duration), conns: make(map[*conn]struct{}),
		faults: make(map[string]int),
	}
}

// now is the time since the world began.
func (w *World) now() time.Duration { return time.Since(w.begun) }

// run is the scheduler: whenever nothing else can run, it releases what is due
// first, or lets time pass until something is. It returns when over closes.
func (w *World) run(over <-chan struct{}) {
	for {
		synctest.Wait()
		e, wait := w.take()
		if e == nil {
			if !w.rest(wait, over) {
				return
			}
			continue
		}
		if again := e.run(); again > 0 {
			e.due = w.now() + again
			w.park(e)
		}
	}
}

// take removes the event that is due, or tells how long there is none: negative
// when nothing is parked.
func (w *World) take() (*event, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.parked) == 0 {
		return nil, -1
	}
	if wait := w.parked[0].due - w.now(); wait > 0 {
		return nil, wait
	}
	w.released++
	return heap.Pop(&w.parked).(*event), 0
}

// rest lets time pass, and reports whether the world goes on.
func (w *World) rest(wait time.Duration, over <-chan struct{}) bool {
	var due <-chan time.Time
	if wait >= 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-due:
	case <-w.arrived:
	case <-over:
		return false
	}
	return true
}

// park adds an event.
func (w *World) park(e *event) {
	w.mu.Lock()
	w.order++
	e.order = w.order
	heap.Push(&w.parked, e)
	w.mu.Unlock()
	select {
	case w.arrived <- struct{}{}:
	default:
	}
}

// after parks f until d has passed.
func (w *World) after(d time.Duration, name string, f func()) {
	w.park(&event{due: w.now() + d, tie: newDice(w.seed, name).next(), name: name, run: func() time.Duration { f(); return 0 }})
}

// nth numbers the moments at which something of this name happens, and returns
// the name with the number: the identity that faults and delays are drawn for.
// Things of one name that happen at one moment share it, because which of them
// comes first is for the Go runtime to choose.
func (w *World) nth(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.counters[name]
	if now := w.now(); c.n == 0 || now != c.last {
		c.n, c.last = c.n+1, now
		w.counters[name] = c
	}
	return name + " #" + strconv.Itoa(c.n)
}

// moment names something after the moment at which it happens. It is for what
// happens often and for no reason but time or haste: one more of it shall not
// change what becomes of those that follow.
func (w *World) moment(name string) string {
	return name + " @" + strconv.FormatInt(int64(w.now()), 10)
}

// counter is how many moments something happened at, and the last of them.
type counter struct {
	n    int
	last time.Duration
}

// label rewrites a key in words that do not depend on revisions: incarnations
// are named after the process that first used them, topics by their order.
func (w *World) label(who, key string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	parts := strings.Split(key, "/")
	for i, part := range parts {
		switch {
		case i == 1 && len(part) == 2 && len(parts[0]) == 1: // what spreads keys of the bucket
			parts[i] = "-"
		case len(part) == 16 || len(part) == 32:
			parts[i] = w.labelLocked(who, part)
		}
	}
	return strings.Join(parts, "/")
}

func (w *World) labelLocked(who, id string) string {
	if l, ok := w.labels[id]; ok {
		return l
	}
	l := "topic"
	if _, err := metadata.ParseIncarnation(id); err == nil {
		l = who
	}
	w.owned[l]++
	l = fmt.Sprintf("%s.%d", l, w.owned[l])
	w.labels[id] = l
	return l
}

// count notes a fault that was done to somebody.
func (w *World) count(fault string) {
	w.mu.Lock()
	w.faults[fault]++
	w.mu.Unlock()
}

// refuses reports whether a service is up and of no use.
func (w *World) refuses(service string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now() < w.outages[service]
}

// calm reports whether faults are over.
func (w *World) calm() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.healed
}

// parked is a heap of events, the first due on top.
type parked []*event

func (p parked) Len() int { return len(p) }
func (p parked) Less(i, j int) bool {
	a, b := p[i], p[j]
	switch {
	case a.due != b.due:
		return a.due < b.due
	case a.tie != b.tie:
		return a.tie < b.tie
	}
	return a.order < b.order
}
func (p parked) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *parked) Push(x any)   { *p = append(*p, x.(*event)) }
func (p *parked) Pop() any {
	old := *p
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*p = old[:len(old)-1]
	return e
}
