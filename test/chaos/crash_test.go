package chaos

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/harness"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
	format "github.com/tidemark-io/tidemark/tiering/wal"
)

// cell is one point of the crash matrix and what happens there.
type cell struct {
	point  failpoint.Point
	action failpoint.Action
}

func (c cell) String() string { return fmt.Sprintf("%s × %s", c.point, c.action) }

// provocation is what makes brokers come by a point.
type provocation string

const (
	byLoad      provocation = "load"
	byMove      provocation = "leadership moves"
	byKill      provocation = "the death of another"
	byTerminate provocation = "SIGTERM"
)

// provocations are those that load alone does not reach.
var provocations = map[failpoint.Point]provocation{
	failpoint.BeforeEnd: byKill, failpoint.AfterEnd: byKill, failpoint.BeforeFence: byKill, failpoint.AfterFence: byKill,
	failpoint.AfterSeal:   byKill,
	failpoint.BeforeClaim: byMove, failpoint.AfterClaim: byMove, failpoint.BeforeOpen: byMove, failpoint.AfterOpen: byMove,
	failpoint.BeforeRelease: byMove, failpoint.AfterRelease: byMove,
	failpoint.BeforeClose: byTerminate,
}

// rare are points that one broker comes by no more often than it makes
// checkpoints.
var rare = map[failpoint.Point]bool{failpoint.BeforePage: true, failpoint.BeforeTrim: true, failpoint.AfterTrim: true}

// crashRig is a rig whose brokers have failpoints.
type crashRig struct {
	*rig
	l    *load
	kv   metadata.KV
	dirs []string
}

// TestCrashPoints lets brokers die, hang for two lives of a session, and fail at
// every point, under load. The short form takes a tenth of the cells.
func TestCrashPoints(t *testing.T) {
	bin := buildBroker(t, "tidemark-failpoint", "-tags", "failpoint")
	var tiers, pages, txns []cell
	for _, x := range chosenCells(t) {
		switch x.point {
		case failpoint.BeforePage:
			pages = append(pages, x)
		case failpoint.TxnPrepared, failpoint.TxnMarked:
			txns = append(txns, x)
		default:
			tiers = append(tiers, x)
		}
	}
	if len(tiers) > 0 {
		t.Run("tiering", func(t *testing.T) { crashAt(t, bin, tiers, tinyTiering, nil) })
	}
	if len(pages) > 0 { // extents that go into segments at once never fill a page
		t.Run("untiered", func(t *testing.T) { crashAt(t, bin, pages, nil, (*crashRig).fillPages) })
	}
	if len(txns) > 0 {
		t.Run("transactions", func(t *testing.T) {
			crashAt(t, bin, txns, tinyTiering, func(c *crashRig) { c.l.startTxns(true) })
		})
	}
}

// chosenCells are those to be tried: what TIDEMARK_CRASH_CELLS matches, or else
// what the form takes.
func chosenCells(t *testing.T) []cell {
	t.Helper()
	only, err := regexp.Compile(os.Getenv("TIDEMARK_CRASH_CELLS"))
	if err != nil {
		t.Fatalf("TIDEMARK_CRASH_CELLS: %v", err)
	}
	points := failpoint.Points()
	var cells []cell
	for i := range points {
		for j, a := range failpoint.Actions() {
			// A diagonal, so that any few cells in a row differ in both.
			if x := (cell{points[(i+7*j)%len(points)], a}); only.MatchString(x.String()) {
				cells = append(cells, x)
			}
		}
	}
	if len(cells) == 0 {
		t.Fatalf("TIDEMARK_CRASH_CELLS: no cell matches %q", only)
	}
	if only.String() != "" {
		return cells
	}
	return rotate(t, cells, (len(cells)+9)/10)
}

// crashAt tries cells, one after the other, in one cluster.
func crashAt(t *testing.T, bin string, cells []cell, args []string, feed func(*crashRig)) {
	c := &crashRig{}
	c.rig = newRig(t, "crash points", rigOptions{bin: bin, brokerArgs: args, plain: true, prepare: func(_ int, b *harness.Broker) {
		dir := t.TempDir()
		c.dirs = append(c.dirs, dir)
		b.Env = append(b.Env, failpoint.EnvDir+"="+dir)
	}})
	c.l = c.startLoad(loadOptions{})
	c.kv = c.rig.kv()
	if feed != nil {
		feed(c)
	}
	var passed, unreached []string
	for _, cell := range cells {
		begun := time.Now()
		switch fired, err := c.try(cell); {
		case err != nil:
			t.Errorf("%v: %v", cell, err)
		case fired == 0:
			unreached = append(unreached, cell.String())
			t.Errorf("%v: no broker came by it", cell)
		default:
			passed = append(passed, cell.String())
			t.Logf("%v: fired %d times, done in %v", cell, fired, milli(time.Since(begun)))
		}
		if t.Failed() {
			break // the rest would show the same
		}
	}
	c.l.finish()
	c.report("crash points", figures{"cells": len(failpoint.Points()) * len(failpoint.Actions()), "tried": len(cells), "passed": len(passed), "not reached": unreached, "list": strings.Join(passed, "; ")})
}

// fillPages feeds a partition so many small extents that its manifest gets pages,
// and waits until the first is due.
func (c *crashRig) fillPages() {
	c.createTopic("pages", 1)
	cl := c.newClient(kgo.ProducerLinger(0), kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1), kgo.MaxBufferedRecords(2))
	quit := make(chan struct{})
	var acked atomic.Int64
	c.l.reading.Go(func() {
		defer cl.Close()
		for {
			select {
			case <-quit:
				return
			case <-time.After(4 * time.Millisecond):
			}
			cl.TryProduce(c.t.Context(), &kgo.Record{Topic: "pages", Value: []byte("x")}, func(_ *kgo.Record, err error) {
				if err == nil {
					acked.Add(1)
				}
			})
		}
	})
	end := c.l.quit
	c.l.quit = func() { close(quit); end() }
	harness.Eventually(c.t, 3*time.Minute, "a page of small extents", func() error {
		if n := acked.Load(); n < 3*format.PageEntries { // two pages' worth, and some share an extent
			return fmt.Errorf("%d records", n)
		}
		return nil
	})
}

// armNext is how long a point is given that load should reach.
const armNext = 6 * time.Second

// tryMax is how long a point may take to be reached: longer than the time between
// two checkpoints.
const tryMax = 80 * time.Second

// try has one cell happen, and waits until the cluster lives again.
func (c *crashRig) try(x cell) (fired int, err error) {
	armed := c.victims(x)
	before := c.fired(x.point)
	scope := checker.Minority // more may be hit, and others be down to provoke it
	if provocations[x.point] != "" {
		scope = checker.All
	}
	f := c.begin("failpoint "+x.String(), scope, c.names(armed), func() func() { return func() {} })
	for _, i := range armed {
		if err := c.arm(x, i); err != nil {
			return 0, err
		}
	}
	helped, err := c.provoke(x, &armed, func() bool { return c.fired(x.point) > before })
	if err != nil {
		return 0, err
	}
	for _, i := range armed {
		if err := failpoint.Disarm(c.dirs[i], x.point); err != nil {
			return 0, err
		}
	}
	fired = c.fired(x.point) - before
	if x.action == failpoint.Kill {
		c.mu.Lock()
		c.kills += fired
		c.mu.Unlock()
	}
	if x.action == failpoint.Stop && fired > 0 {
		time.Sleep(2 * metadata.DefaultSessionTTL)
	}
	for _, i := range c.all() {
		if c.brokers[i].Running() {
			c.brokers[i].Resume()
		}
	}
	for _, h := range helped {
		h.heal()
	}
	if x.action != failpoint.Stop {
		time.Sleep(time.Second)
	}
	c.expect(armed, false)
	c.start(c.all()...)
	f.heal()
	c.l.waitAcks(time.Now(), 2*healMax)
	c.cluster.WaitReady()
	return fired, nil
}

// arm arms a broker, which may end by itself from then on. What load alone
// reaches is reached again and again: not always the first time acts.
func (c *crashRig) arm(x cell, i int) error {
	spec := failpoint.Spec{Action: x.action, Count: 1}
	if provocations[x.point] == "" && !rare[x.point] {
		spec.Skip = c.random.IntN(3)
	}
	c.expect([]int{i}, true)
	return failpoint.Arm(c.dirs[i], x.point, spec)
}

// victims are the brokers that are armed: any but one, where that one has to die
// for the others to come by the point.
func (c *crashRig) victims(x cell) []int {
	all := c.random.Perm(len(c.brokers))
	switch provocations[x.point] {
	case byKill:
		return all[1:]
	case byMove:
		return all
	}
	return all[:1]
}

// expect lets brokers end by themselves.
func (c *crashRig) expect(targets []int, may bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range targets {
		c.down[i] = may
	}
}

// provoke does what brings brokers to the point, until one has been there. It
// arms more of them where the first does not come by it, as one that coordinates
// no group does not.
func (c *crashRig) provoke(x cell, armed *[]int, reached func() bool) ([]*fault, error) {
	var helped []*fault
	first := (*armed)[0]
	begun := time.Now()
	for n := 0; !reached() && time.Since(begun) < tryMax; n++ {
		switch provocations[x.point] {
		case byMove:
			if _, err := c.move(c.kv); err != nil {
				c.t.Logf("move: %v", err) // the brokers of the moment are just changing
			}
			c.awhile(reached, 2*time.Second)
		case byKill:
			other := slices.IndexFunc(c.all(), func(i int) bool { return !slices.Contains(*armed, i) })
			k := c.killed(other)
			c.awhile(reached, 8*time.Second)
			if reached() {
				helped = append(helped, k)
			} else {
				k.heal()
				c.brokers[other].WaitReady()
				c.awhile(reached, 3*time.Second)
			}
		case byTerminate:
			if c.brokers[first].Running() {
				c.brokers[first].Signal(syscall.SIGTERM) // and does not wait: it may stop half-way
			}
			c.awhile(reached, 8*time.Second)
			if !reached() {
				c.start(first)
				c.expect(*armed, true)
				c.brokers[first].WaitReady()
			}
		default:
			c.awhile(reached, armNext)
			next := slices.IndexFunc(c.all(), func(i int) bool { return !slices.Contains(*armed, i) })
			if next < 0 || reached() {
				continue
			}
			if err := c.arm(x, next); err != nil {
				return helped, err
			}
			*armed = append(*armed, next)
		}
	}
	return helped, nil
}

// awhile waits for at most d.
func (c *crashRig) awhile(reached func() bool, d time.Duration) {
	for end := time.Now().Add(d); !reached() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
}

// fired counts how often a point has acted, in all brokers.
func (c *crashRig) fired(p failpoint.Point) (n int) {
	c.t.Helper()
	for _, dir := range c.dirs {
		fired, err := failpoint.Fired(dir)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, f := range fired {
			if f == p {
				n++
			}
		}
	}
	return n
}
