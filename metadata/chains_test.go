package metadata_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
)

func TestUpdateChain(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		inc := register(t, store.Client(), nil).Incarnation()
		set := func(checkpoint, trim uint64) error {
			c, err := metadata.UpdateChain(t.Context(), kv, inc, func(c *metadata.Chain) error {
				c.Checkpoint, c.Trim = checkpoint, trim
				return nil
			})
			if err == nil && (c.Checkpoint != checkpoint || c.Trim != trim) {
				t.Errorf("%+v", c)
			}
			return err
		}
		for _, step := range [][2]uint64{{5, 0}, {5, 5}, {9, 7}, {9, 7}} {
			if err := set(step[0], step[1]); err != nil {
				t.Fatal(err)
			}
		}
		for _, step := range [][2]uint64{{8, 7}, {9, 6}, {9, 10}} {
			if err := set(step[0], step[1]); !errors.Is(err, metadata.ErrChainRule) {
				t.Errorf("to %v: %v", step, err)
			}
		}
		end := uint64(12)
		_, err := metadata.UpdateChain(t.Context(), kv, inc, func(c *metadata.Chain) error { c.End = &end; return nil })
		if !errors.Is(err, metadata.ErrChainRule) {
			t.Errorf("end by update: %v", err)
		}
		no := errors.New("no")
		if _, err := metadata.UpdateChain(t.Context(), kv, inc, func(*metadata.Chain) error { return no }); !errors.Is(err, no) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		c, rev, err := metadata.LoadChain(t.Context(), kv, inc)
		if err != nil || rev == 0 || c != (metadata.Chain{Checkpoint: 9, Trim: 7}) {
			t.Errorf("%+v at %d, %v", c, rev, err)
		}
		if _, _, err := metadata.LoadChain(t.Context(), kv, 99); !errors.Is(err, metadata.ErrNoChain) {
			t.Error(err)
		}
	})
}

func TestRecordEnd(t *testing.T) {
	ambiguous(t, func(t *testing.T, kv *mem.Client, store *mem.Store) {
		s, other := register(t, store.Client(), nil), register(t, store.Client(), nil)
		lease := s.Lease()
		putLeased(t, store.Client(), metadata.KeyController, metadata.Controller{Incarnation: s.Incarnation()}, lease)
		end, err := metadata.RecordEnd(t.Context(), kv, s.Incarnation(), 5)
		if err != nil || end != 5 {
			t.Fatal(end, err)
		}
		time.Sleep(time.Second)
		for _, again := range []uint64{3, 5, 9} {
			if end, err := metadata.RecordEnd(t.Context(), kv, s.Incarnation(), again); err != nil || end != 5 {
				t.Errorf("again at %d: %d, %v", again, end, err)
			}
		}
		for _, key := range []string{metadata.KeyController, metadata.BrokerIDKey(1), metadata.BrokerKey(s.Incarnation())} {
			if entry(t, kv, key).Exists() {
				t.Errorf("%s is left", key)
			}
		}
		if _, err := store.Client().Renew(t.Context(), lease); !errors.Is(err, metadata.ErrLeaseNotFound) {
			t.Errorf("the session lives: %v", err)
		}
		registered(t, kv, other, 2)
		if c, err := metadata.UpdateChain(t.Context(), kv, s.Incarnation(), func(c *metadata.Chain) error { c.Checkpoint = 4; return nil }); err != nil || c.End == nil || *c.End != 5 {
			t.Errorf("a sealed chain's checkpoint: %+v, %v", c, err)
		}
	})
}

func putLeased(t *testing.T, kv metadata.KV, key string, v any, lease metadata.LeaseID) {
	t.Helper()
	putJSON(t, kv, key, v)
	e := entry(t, kv, key)
	if _, err := kv.Txn(t.Context(), metadata.Txn{Then: []metadata.Op{metadata.PutLeased(key, e.Value, lease)}}); err != nil {
		t.Fatal(err)
	}
}

// The id and the controller key are another's by now: they stay.
func TestRecordEndSparesOthers(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		s := register(t, kv, nil)
		store.DropLease(s.Lease())
		other := register(t, kv, nil)
		putJSON(t, kv, metadata.KeyController, metadata.Controller{Incarnation: other.Incarnation()})
		if end, err := metadata.RecordEnd(t.Context(), kv, s.Incarnation(), 0); err != nil || end != 0 {
			t.Fatal(end, err)
		}
		registered(t, kv, other, 1)
		if !entry(t, kv, metadata.KeyController).Exists() {
			t.Error("the controller key is gone")
		}
	})
}

// The session cannot be revoked, and its holder goes on renewing it: what it held
// is free all the same.
func TestRecordEndWithoutRevoke(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv, zombie := client(t, store), client(t, store)
		s := register(t, zombie, nil)
		stop := running(t, s)
		putLeased(t, kv, metadata.KeyController, metadata.Controller{Incarnation: s.Incarnation()}, s.Lease())
		kv.Inject(func(c mem.Call) (mem.Fault, bool) { return mem.FailBefore(), c.Op == "revoke" })
		if _, err := metadata.RecordEnd(t.Context(), kv, s.Incarnation(), 1); err != nil {
			t.Fatal(err)
		}
		if got := append(keys(t, kv, "broker"), keys(t, kv, metadata.KeyController)...); len(got) != 0 {
			t.Errorf("keys left: %v", got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestRecordEndRefusals(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		kv := client(t, store)
		inc := register(t, kv, nil).Incarnation()
		if _, err := metadata.UpdateChain(t.Context(), kv, inc, func(c *metadata.Chain) error { c.Checkpoint, c.Trim = 9, 4; return nil }); err != nil {
			t.Fatal(err)
		}
		for _, end := range []uint64{0, 3, 8} {
			if _, err := metadata.RecordEnd(t.Context(), kv, inc, end); !errors.Is(err, metadata.ErrEndVoid) {
				t.Errorf("end %d: %v", end, err)
			}
		}
		if !entry(t, kv, metadata.BrokerKey(inc)).Exists() {
			t.Error("a void fence unregistered the broker")
		}
		if _, err := metadata.RecordEnd(t.Context(), kv, 99, 1); !errors.Is(err, metadata.ErrNoChain) {
			t.Error(err)
		}
		if end, err := metadata.RecordEnd(t.Context(), kv, inc, 9); err != nil || end != 9 {
			t.Error(end, err)
		}
	})
}

// Of many that record different ends, all learn the same one.
func TestRecordEndRace(t *testing.T) {
	bubble(t, func(t *testing.T, store *mem.Store) {
		s := register(t, client(t, store), nil)
		stop := running(t, s) // the zombie goes on renewing
		ends := make(chan uint64)
		const n = 16
		for i := range n {
			kv := client(t, store)
			kv.FailAfter(i % 3)
			go func() {
				end, err := metadata.RecordEnd(t.Context(), kv, s.Incarnation(), uint64(i))
				if err != nil {
					t.Error(err)
				}
				ends <- end
			}()
		}
		first := <-ends
		for range n - 1 {
			if end := <-ends; end != first {
				t.Errorf("ends %d and %d", first, end)
			}
		}
		time.Sleep(10 * time.Second)
		if err := stop(); !errors.Is(err, metadata.ErrIncarnationOver) {
			t.Errorf("the zombie: %v", err)
		}
	})
}
