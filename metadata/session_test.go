package metadata_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

// bubble runs f in a bubble of fake time with a store and clients of it.
func bubble(t *testing.T, f func(t *testing.T, store *mem.Store)) {
	synctest.Test(t, func(t *testing.T) { f(t, mem.New()) })
}

func client(t *testing.T, store *mem.Store) *mem.Client {
	c := store.Client()
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func register(t *testing.T, kv metadata.KV, change func(*metadata.SessionConfig)) *metadata.Session {
	t.Helper()
	cfg := metadata.SessionConfig{Generation: 1, Broker: metadata.Broker{Host: "h", Port: 9092}}
	if change != nil {
		change(&cfg)
	}
	s, err := metadata.Register(t.Context(), kv, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// running runs the session and returns what ends it and waits.
func running(t *testing.T, s *metadata.Session) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func entry(t *testing.T, kv metadata.KV, key string) metadata.Entry {
	t.Helper()
	entries, _, err := kv.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return entries[0]
}

func keys(t *testing.T, kv metadata.KV, prefix string) []string {
	t.Helper()
	entries, _, err := kv.Range(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Key)
	}
	return out
}

// registered asserts that s holds its keys under one lease.
func registered(t *testing.T, kv metadata.KV, s *metadata.Session, id int32) {
	t.Helper()
	b := s.Broker()
	idKey, brokerKey := entry(t, kv, metadata.BrokerIDKey(id)), entry(t, kv, metadata.BrokerKey(s.Incarnation()))
	if b.ID != id || !idKey.Exists() || !brokerKey.Exists() || idKey.Lease != b.Lease || brokerKey.Lease != b.Lease {
		t.Fatalf("broker %+v, its keys %+v, %+v", b, idKey, brokerKey)
	}
	if chain := entry(t, kv, metadata.ChainKey(s.Incarnation())); !chain.Exists() || chain.Lease != 0 {
		t.Fatalf("chain key %+v", chain)
	}
	if s.Lost() {
		t.Fatal("session counts as lost")
	}
}

func TestRegisterTakesSmallestFreeID(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		one, two, three := register(t, kv, nil), register(t, kv, nil), register(t, kv, nil)
		registered(t, kv, one, 1)
		registered(t, kv, two, 2)
		registered(t, kv, three, 3)
		if !(one.Incarnation() < two.Incarnation() && two.Incarnation() < three.Incarnation()) {
			t.Errorf("incarnations %v, %v, %v", one.Incarnation(), two.Incarnation(), three.Incarnation())
		}
		if err := two.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		four := register(t, kv, nil)
		registered(t, kv, four, 2)
		if four.Incarnation() == two.Incarnation() {
			t.Error("an incarnation was used twice")
		}
		registered(t, kv, register(t, kv, func(c *metadata.SessionConfig) { c.PreferredID = 7 }), 7)
		registered(t, kv, register(t, kv, func(c *metadata.SessionConfig) { c.PreferredID = 7 }), 4)
	})
}

func TestRegisterRace(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		sessions := make(chan *metadata.Session)
		const n = 20
		for range n {
			go func() { sessions <- register(t, kv, nil) }()
		}
		var ids []int32
		for range n {
			s := <-sessions
			registered(t, kv, s, s.Broker().ID)
			ids = append(ids, s.Broker().ID)
		}
		slices.Sort(ids)
		if ids = slices.Compact(ids); len(ids) != n || ids[n-1] != n {
			t.Errorf("ids %v", ids)
		}
	})
}

// Every write of the registration in turn is answered with an error: applied,
// not applied, or applied later.
func TestRegisterAmbiguity(t *testing.T) {
	faults := map[string]mem.Fault{"before": mem.FailBefore(), "after": mem.FailAfter(), "late": mem.FailLate(300 * time.Millisecond)}
	for name, fault := range faults {
		for nth := range 6 {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T, store *mem.Store) {
					kv, other := client(t, store), client(t, store)
					writes := 0
					kv.Inject(func(c mem.Call) (mem.Fault, bool) {
						if !c.Writes() {
							return mem.Fault{}, false
						}
						writes++
						return fault, writes > nth && writes <= nth+2
					})
					s := register(t, kv, nil)
					stop := running(t, s)
					time.Sleep(30 * time.Second) // leases of failed attempts lapse
					registered(t, other, s, s.Broker().ID)
					if got := keys(t, other, metadata.PrefixBrokerIDs); len(got) != 1 {
						t.Errorf("ids taken: %v", got)
					}
					if err := stop(); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestSessionIsRenewed(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		s := register(t, kv, nil)
		lease := s.Lease()
		renewals := 0
		kv.Inject(func(c mem.Call) (mem.Fault, bool) {
			if c.Op == "renew" {
				renewals++
			}
			return mem.Fault{}, false
		})
		stop := running(t, s)
		time.Sleep(time.Minute)
		registered(t, kv, s, 1)
		if s.Lease() != lease {
			t.Error("another lease")
		}
		if renewals < 29 || renewals > 31 {
			t.Errorf("%d renewals in a minute of 6 s sessions", renewals)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		time.Sleep(7 * time.Second)
		if entry(t, kv, metadata.BrokerIDKey(1)).Exists() || !s.Lost() {
			t.Error("the session outlives Run")
		}
	})
}

func TestSessionLeaseLost(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		var heard []metadata.Broker
		s := register(t, kv, func(c *metadata.SessionConfig) {
			c.OnRegister = func(b metadata.Broker) { heard = append(heard, b) }
		})
		inc, lease := s.Incarnation(), s.Lease()
		stop := running(t, s)
		time.Sleep(3 * time.Second)
		store.DropLease(lease)
		if entry(t, kv, metadata.BrokerKey(inc)).Exists() {
			t.Fatal("the lease holds no keys")
		}
		time.Sleep(3 * time.Second)
		registered(t, kv, s, 1)
		if s.Incarnation() != inc || s.Lease() == lease {
			t.Errorf("incarnation %v after %v, lease %d after %d", s.Incarnation(), inc, s.Lease(), lease)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if len(heard) != 1 || heard[0].Lease != s.Lease() {
			t.Errorf("heard %+v", heard)
		}
	})
}

// The store hangs for longer than the session, whose lease lapses meanwhile.
func TestSessionStorePauses(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		s := register(t, kv, nil)
		inc := s.Incarnation()
		stop := running(t, s)
		time.Sleep(10 * time.Second)
		store.Pause()
		time.Sleep(3 * time.Second)
		if s.Lost() {
			t.Error("lost before its time")
		}
		time.Sleep(4 * time.Second)
		if !s.Lost() {
			t.Error("valid after 7 s without the store")
		}
		time.Sleep(23 * time.Second)
		if st := s.State(); st.Valid || time.Since(st.Since) < 20*time.Second {
			t.Errorf("state after 30 s without the store: %+v", st)
		}
		store.Resume()
		time.Sleep(4 * time.Second)
		registered(t, kv, s, 1)
		if s.Incarnation() != inc {
			t.Error("another incarnation")
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// Only this broker cannot reach the store; meanwhile another takes its id.
func TestSessionIDTaken(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		cut, kv := client(t, store), client(t, store)
		s := register(t, cut, nil)
		stop := running(t, s)
		cut.SetUnavailable(true)
		time.Sleep(10 * time.Second)
		other := register(t, kv, nil)
		registered(t, kv, other, 1)
		stopOther := running(t, other)
		cut.SetUnavailable(false)
		time.Sleep(3 * time.Second)
		registered(t, kv, s, 2)
		registered(t, kv, other, 1)
		if err := errors.Join(stop(), stopOther()); err != nil {
			t.Error(err)
		}
	})
}

func TestSessionIncarnationOver(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		cut, kv := client(t, store), client(t, store)
		s := register(t, cut, nil)
		done := make(chan error, 1)
		go func() { done <- s.Run(t.Context()) }()
		cut.Pause()
		time.Sleep(2 * time.Second)
		if end, err := metadata.RecordEnd(t.Context(), kv, s.Incarnation(), 5); err != nil || end != 5 {
			t.Fatal(end, err)
		}
		if got := keys(t, kv, "broker"); len(got) != 0 {
			t.Errorf("keys left: %v", got)
		}
		cut.Resume()
		if err := <-done; !errors.Is(err, metadata.ErrIncarnationOver) {
			t.Errorf("got %v", err)
		}
		if got := keys(t, kv, "broker"); len(got) != 0 {
			t.Errorf("it registered again: %v", got)
		}
	})
}

// The end is recorded at the last moment before the session registers again.
func TestSessionOverWhileRegistering(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv, other := client(t, store), client(t, store)
		s := register(t, kv, nil)
		store.DropLease(s.Lease())
		kv.Inject(func(c mem.Call) (mem.Fault, bool) {
			if c.Op == "txn" {
				if _, err := metadata.RecordEnd(t.Context(), other, s.Incarnation(), 3); err != nil {
					t.Error(err)
				}
			}
			return mem.Fault{}, false
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Run(ctx); !errors.Is(err, metadata.ErrIncarnationOver) {
			t.Error(err)
		}
		if got := keys(t, other, "broker"); len(got) != 0 {
			t.Errorf("registered behind its end: %v", got)
		}
	})
}

func TestSessionReregistrationAmbiguity(t *testing.T) {
	for name, fault := range map[string]mem.Fault{"after": mem.FailAfter(), "late": mem.FailLate(time.Second), "before": mem.FailBefore()} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *mem.Store) {
				kv, other := client(t, store), client(t, store)
				s := register(t, kv, nil)
				n := 0
				kv.Inject(func(c mem.Call) (mem.Fault, bool) {
					if !c.Writes() {
						return mem.Fault{}, false
					}
					n++
					return fault, n <= 7
				})
				stop := running(t, s)
				store.DropLease(s.Lease())
				time.Sleep(time.Minute)
				registered(t, other, s, 1)
				if got := keys(t, other, metadata.PrefixBrokerIDs); len(got) != 1 {
					t.Errorf("ids %v", got)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestSessionUpdate(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		view := metadata.NewView(kv, nil)
		s := register(t, kv, nil)
		stop := running(t, s)
		kv.FailAfter(1)
		done := make(chan error)
		for _, change := range []func(*metadata.Broker){
			func(b *metadata.Broker) { b.Draining = true },
			func(b *metadata.Broker) { b.BucketFailing = true; b.ID = 99 },
			func(b *metadata.Broker) { b.Rack = "r" },
		} {
			go func() { done <- s.Update(t.Context(), change) }()
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		registered(t, kv, s, 1)

		store.DropLease(s.Lease())
		if err := s.Update(t.Context(), func(b *metadata.Broker) { b.Version = "v" }); !errors.Is(err, metadata.ErrSessionLost) {
			t.Errorf("update of a lost session: %v", err)
		}
		time.Sleep(5 * time.Second)
		registered(t, kv, s, 1)

		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- view.Run(ctx) }()
		if err := view.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		b, ok := view.Broker(s.Incarnation())
		if !ok || !b.Draining || !b.BucketFailing || b.Rack != "r" || b.Version != "v" || b.ID != 1 || b != s.Broker() {
			t.Errorf("published %+v, session %+v", b, s.Broker())
		}
		cancel()
		if err := errors.Join(<-done, stop()); err != nil {
			t.Error(err)
		}
	})
}

// An update that was made first is written last: it must not undo the other.
func TestSessionUpdateOrder(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		s := register(t, kv, nil)
		gets := 0
		kv.Inject(func(c mem.Call) (mem.Fault, bool) {
			if c.Op == "get" {
				gets++
			}
			return mem.FailBefore(), c.Op == "get" && gets == 1
		})
		done := make(chan error)
		go func() { done <- s.Update(t.Context(), func(b *metadata.Broker) { b.Draining = true }) }()
		synctest.Wait() // it waits to read again
		if err := s.Update(t.Context(), func(b *metadata.Broker) { b.BucketFailing = true }); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		b := value[metadata.Broker](t, entry(t, kv, metadata.BrokerKey(s.Incarnation())))
		if !b.Draining || !b.BucketFailing {
			t.Errorf("%+v", b)
		}
	})
}

func TestSessionClose(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		s := register(t, kv, nil)
		done := make(chan error, 1)
		go func() { done <- s.Run(t.Context()) }()
		time.Sleep(time.Second)
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := keys(t, kv, "broker"); len(got) != 0 {
			t.Errorf("keys left: %v", got)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := keys(t, kv, "broker"); len(got) != 0 {
			t.Errorf("registered again: %v", got)
		}
	})
}
