package tiering

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
)

// hooked calls functions before and after what is created.
type hooked struct {
	object.Store
	mu     sync.Mutex
	before func(key string) error // called before a Create; its error is the answer
	after  func(key string) error // called after one that succeeded; its error is the answer
}

func (h *hooked) set(before, after func(string) error) {
	h.mu.Lock()
	h.before, h.after = before, after
	h.mu.Unlock()
}

func (h *hooked) Create(ctx context.Context, key string, data ...[]byte) error {
	h.mu.Lock()
	before, after := h.before, h.after
	h.mu.Unlock()
	if before != nil {
		if err := before(key); err != nil {
			return err
		}
	}
	err := h.Store.Create(ctx, key, data...)
	if err == nil && after != nil {
		err = after(key)
	}
	return err
}

// A CLOSE ends the incarnation even when nobody waits for it any more.
func TestCloseAbandoned(t *testing.T) {
	w := newWorld(t)
	h := &hooked{Store: w.store}
	a := w.start(h)
	w.lead(a, partition(0), owners(a))
	ctx, cancel := context.WithCancel(t.Context())
	gate := make(chan struct{})
	h.set(func(key string) error {
		if key[0] == 'w' {
			cancel()
			<-gate
		}
		return nil
	}, nil)
	if err := a.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(gate)
	select {
	case <-a.Done():
	case <-time.After(3 * time.Second):
		t.Fatal("a closed chain goes on")
	}
}

// A chain is closed once its CLOSE is committed: a metadata store that does not
// take the end down in time makes no failure of that.
func TestCloseWhileMetadataStoreHangs(t *testing.T) {
	w := newWorld(t)
	h := &hooked{Store: w.store}
	a, b := w.start(h), w.start(w.store)
	write(t, w.lead(a, partition(0), owners(a)), "x")
	t.Cleanup(w.kv.Resume)
	h.set(func(key string) error {
		if key[0] == 'w' {
			w.kv.Pause()
		}
		return nil
	}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := a.Close(ctx); err != nil {
		t.Error(err)
	}
	if _, err := a.Release(t.Context(), []Claim{{Partition: partition(0)}}); !errors.Is(err, ErrClosed) {
		t.Errorf("release: %v", err)
	}
	w.kv.Resume()
	if err := <-a.ran; err != nil {
		t.Errorf("run: %v", err)
	}
	a.ran <- nil
	equal(t, readAll(t, w.lead(b, partition(0), owners(a, b)), 0, 1<<20), []string{"x"})
}

// Close returns when the incarnation ends under it.
func TestCloseOfFencedChain(t *testing.T) {
	for range 20 {
		w := newWorld(t)
		h := &hooked{Store: w.store}
		a := w.start(h)
		p := w.lead(a, partition(0), owners(a))
		h.set(nil, func(key string) error {
			if key[0] == 'k' {
				go a.fail(ErrFenced)
				<-a.Done()
			}
			return nil
		})
		raw, hd := makeBatch(-1, -1, -1, 0, "x") // so that there is something to checkpoint
		_, _ = p.Append(raw, hd, 0, false)       // it may be fenced already
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		err := a.Close(ctx)
		cancel()
		if !errors.Is(err, ErrFenced) {
			t.Fatal(err)
		}
	}
}

// Closing twice, one after the other or at once, is closing once.
func TestCloseTwice(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	w.lead(a, partition(0), owners(a))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() { errs <- a.Close(ctx) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil && !errors.Is(err, ErrFenced) {
			t.Fatal(err)
		}
	}
}

// closingHeld has a begin to close its chain; what that writes waits for let.
func closingHeld(t *testing.T, a *node, h *hooked) (let func(), closed <-chan error) {
	t.Helper()
	gate := make(chan struct{})
	h.set(func(string) error { <-gate; return nil }, nil)
	let = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(let)
	ended := make(chan error, 1)
	go func() { ended <- a.Close(t.Context()) }()
	for begun := false; !begun; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		begun = a.closing
		a.mu.Unlock()
	}
	return let, ended
}

// A successor that asks while the predecessor closes its chain waits for that,
// and takes over from the CLOSE: it has no reason to seal.
func TestTakeOverWhileClosing(t *testing.T) {
	w := newWorld(t)
	h := &hooked{Store: w.store}
	a, b := w.start(h), w.start(w.store)
	for i := range int32(3) {
		write(t, w.lead(a, partition(i), owners(a)), fmt.Sprint(i))
	}
	let, closed := closingHeld(t, a, h)
	led := make(chan map[metadata.TopicPartition]error, 1)
	go func() {
		var all []LeadRequest
		for i := range int32(3) {
			all = append(all, LeadRequest{Partition: partition(i), Owners: owners(a, b)})
		}
		led <- b.Lead(t.Context(), all)
	}()
	var errs map[metadata.TopicPartition]error
	select {
	case errs = <-led:
		t.Error("led before the chain was closed")
		let()
	case <-time.After(100 * time.Millisecond):
		let()
		errs = <-led
	}
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	for i := range int32(3) {
		p, err := b.Partition(partition(i))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, readAll(t, p, 0, 1<<20), []string{fmt.Sprint(i)})
	}
}

// Who asks for a release while the chain is being closed learns how that ended,
// but waits no longer than it wants to.
func TestReleaseWhileClosing(t *testing.T) {
	open, never := Claim{Partition: partition(0)}, Claim{Partition: partition(1)}
	for name, end := range map[string]struct {
		end  func(a *node, let func())
		want error
	}{
		"closed": {func(_ *node, let func()) { let() }, ErrClosed},
		"fenced": {func(a *node, let func()) { a.fail(ErrFenced); let() }, ErrFenced},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			h := &hooked{Store: w.store}
			a := w.start(h)
			write(t, w.lead(a, partition(0), owners(a)), "x")
			let, closed := closingHeld(t, a, h)
			for _, c := range []Claim{open, never} {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				if _, err := a.Release(ctx, []Claim{c}); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("while the chain is being closed: %v", err)
				}
				cancel()
			}
			errs := make(chan error, 2)
			for _, c := range []Claim{open, never} {
				go func() {
					got, err := a.Release(t.Context(), []Claim{c})
					if len(got) > 0 {
						err = fmt.Errorf("released %v, %w", got, err)
					}
					errs <- err
				}()
			}
			time.Sleep(20 * time.Millisecond)
			end.end(a, let)
			for range 2 {
				if err := <-errs; !errors.Is(err, end.want) || errors.Is(err, ErrClosed) != (end.want == ErrClosed) {
					t.Errorf("want %v, have %v", end.want, err)
				}
			}
			<-closed
			if _, err := a.Release(t.Context(), []Claim{open}); !errors.Is(err, end.want) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// A broker that leaves while two others ask for what it has, and gives up itself
// what it sees claimed, closes its chain whenever that begins: nobody seals it,
// and nothing is lost.
func TestLeaveWhileOthersTakeOver(t *testing.T) {
	const partitions = 16
	for round := range 40 {
		w := newWorld(t)
		w.tune = func(c *Config) { c.ReleaseTimeout = time.Minute } // a busy machine is no reason to seal
		h := &hooked{Store: w.store}
		a := w.start(h)
		takers := []*node{w.start(w.store), w.start(w.store)}
		for i := range int32(partitions) {
			p := w.lead(a, partition(i), owners(a))
			raw, hd := makeBatch(-1, -1, -1, 0, fmt.Sprint(i))
			if _, err := p.Append(raw, hd, 0, false); err != nil {
				t.Fatal(err)
			}
		}
		slow := time.Duration(rand.IntN(3)) * time.Millisecond
		h.set(func(string) error { time.Sleep(slow); return nil }, nil)
		var wg sync.WaitGroup
		for i := range int32(partitions) {
			wg.Go(func() { // errors are those of a chain that is closed by then
				time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond)
				_, _ = a.Release(t.Context(), []Claim{{Partition: partition(i)}})
			})
		}
		for i, b := range takers {
			for from := int32(i); from < partitions; from += 8 {
				wg.Go(func() {
					time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond)
					var some []LeadRequest
					for p := from; p < min(from+8, partitions); p += 2 {
						some = append(some, LeadRequest{Partition: partition(p), Owners: owners(a, b)})
					}
					if errs := b.Lead(t.Context(), some); len(errs) > 0 {
						t.Error(errs)
					}
				})
			}
		}
		time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond)
		if err := a.Close(t.Context()); err != nil {
			t.Errorf("round %d: close: %v", round, err)
		}
		wg.Wait()
		for i := range int32(partitions) {
			p, err := takers[i%2].Partition(partition(i))
			if err != nil {
				t.Fatal(err)
			}
			equal(t, readAll(t, p, 0, 1<<20), []string{fmt.Sprint(i)})
		}
		for _, n := range []*node{a, takers[0], takers[1]} {
			n.kill()
		}
	}
}
