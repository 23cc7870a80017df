// Package objecttest is the conformance suite of package object. Every store
// runs it in its own tests:
//
//	func TestStore(t *testing.T) {
//		objecttest.Run(t, func(t *testing.T) object.Store { return newStore(t) })
//	}
//
// The subpackage miniotest starts a real MinIO server for tests.
package objecttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// callLimit is the deadline of each case; a store that hangs fails its test.
const callLimit = time.Minute

// Run tests that stores made by newStore keep object.Store's contract. Each
// case asks for a new, empty store.
func Run(t *testing.T, newStore func(t *testing.T) object.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, ctx context.Context, s object.Store)
	}{
		{"CreateThenGet", createThenGet},
		{"CreateExists", createExists},
		{"CreateParts", createParts},
		{"CreateEmpty", createEmpty},
		{"RacingCreates", racingCreates},
		{"RacingFirstCreatesOfADirectory", racingDirectory},
		{"Ranges", ranges},
		{"NotFound", notFound},
		{"Delete", deletes},
		{"List", list},
		{"ListMany", listMany},
		{"ListOrder", listOrder},
		{"DataNotRetained", dataNotRetained},
		{"ResultOwned", resultOwned},
		{"Concurrent", concurrent},
		{"Cancelled", cancelled},
		{"CancelledDuringCreate", cancelledDuringCreate},
		{"Large", large},
		{"OddKeys", oddKeys},
		{"HostileKeys", hostileKeys},
		{"Probe", probe},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), callLimit)
			defer cancel()
			c.test(t, ctx, newStore(t))
		})
	}
}

func mustCreate(t *testing.T, ctx context.Context, s object.Store, key string, data ...[]byte) {
	t.Helper()
	if err := s.Create(ctx, key, data...); err != nil {
		t.Fatalf("Create(%q) = %v", key, err)
	}
}

func mustGet(t *testing.T, ctx context.Context, s object.Store, key string, want []byte) {
	t.Helper()
	got, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		t.Fatalf("Get(%q) = %v", key, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("Get(%q) = %d bytes, want %d other bytes", key, len(got), len(want))
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s = %v, want %v", what, err, want)
	}
}

// pattern returns n bytes that differ for every seed.
func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	head := b[:min(n, 1<<20-1)] // the rest repeats it, out of step with every power of two
	_, _ = rng.Read(head)
	for at := len(head); at < n; at *= 2 {
		copy(b[at:], b[:at])
	}
	return b
}

func createThenGet(t *testing.T, ctx context.Context, s object.Store) {
	data := pattern(100_000, 1)
	mustCreate(t, ctx, s, "w/3f/1/000000000001", data)
	mustGet(t, ctx, s, "w/3f/1/000000000001", data)
}

func createExists(t *testing.T, ctx context.Context, s object.Store) {
	mustCreate(t, ctx, s, "k/a", []byte("first"))
	wantErr(t, "second Create", s.Create(ctx, "k/a", []byte("second, longer")), object.ErrExists)
	wantErr(t, "Create of the same bytes", s.Create(ctx, "k/a", []byte("first")), object.ErrExists)
	mustGet(t, ctx, s, "k/a", []byte("first"))
}

func createParts(t *testing.T, ctx context.Context, s object.Store) {
	a, b, c := pattern(70_000, 2), pattern(1, 3), pattern(33_000, 4)
	mustCreate(t, ctx, s, "parts", a, nil, b, []byte{}, c)
	mustGet(t, ctx, s, "parts", bytes.Join([][]byte{a, b, c}, nil))
}

func createEmpty(t *testing.T, ctx context.Context, s object.Store) {
	mustCreate(t, ctx, s, "empty")
	mustGet(t, ctx, s, "empty", nil)
	wantErr(t, "Create over an empty object", s.Create(ctx, "empty", []byte("x")), object.ErrExists)
	got, err := s.Get(ctx, "empty", 0, 10)
	if err != nil || len(got) != 0 {
		t.Fatalf("Get of a range of an empty object = %d bytes, %v", len(got), err)
	}
}

func ranges(t *testing.T, ctx context.Context, s object.Store) {
	data := pattern(1000, 5)
	mustCreate(t, ctx, s, "r", data)
	for _, c := range []struct {
		pos, length int64
		from, to    int
	}{
		{0, -1, 0, 1000}, {0, 1000, 0, 1000}, {0, 1, 0, 1}, {0, 0, 0, 0},
		{999, 1, 999, 1000}, {999, 2, 999, 1000}, {10, 20, 10, 30}, {10, 0, 10, 10},
		{500, -1, 500, 1000}, {999, -1, 999, 1000}, {500, 501, 500, 1000},
		{0, 1 << 40, 0, 1000}, {1, 1<<63 - 1, 1, 1000},
		{1000, -1, 0, 0}, {1000, 1, 0, 0}, {1001, -1, 0, 0}, {1 << 40, 5, 0, 0}, {1<<63 - 1, 5, 0, 0}, {1000, 0, 0, 0},
	} {
		got, err := s.Get(ctx, "r", c.pos, c.length)
		if err != nil {
			t.Errorf("Get(%d, %d) = %v", c.pos, c.length, err)
		} else if !bytes.Equal(got, data[c.from:c.to]) {
			t.Errorf("Get(%d, %d) = %d bytes, want [%d:%d]", c.pos, c.length, len(got), c.from, c.to)
		}
	}
	_, err := s.Get(ctx, "r", -1, 5)
	wantErr(t, "Get at a negative position", err, object.ErrRefused)
}

func notFound(t *testing.T, ctx context.Context, s object.Store) {
	mustCreate(t, ctx, s, "dir/a", []byte("a"))
	for _, key := range []string{"b", "dir/b", "other/a", "dir", "dir/a0"} {
		for _, length := range []int64{-1, 0, 1} {
			_, err := s.Get(ctx, key, 0, length)
			wantErr(t, fmt.Sprintf("Get(%q, 0, %d)", key, length), err, object.ErrNotFound)
		}
	}
}

func deletes(t *testing.T, ctx context.Context, s object.Store) {
	if err := s.Delete(ctx, "no/such/key"); err != nil {
		t.Fatalf("Delete of a missing key = %v", err)
	}
	mustCreate(t, ctx, s, "d/a", []byte("a"))
	mustCreate(t, ctx, s, "d/b", []byte("b"))
	for range 2 {
		if err := s.Delete(ctx, "d/a"); err != nil {
			t.Fatalf("Delete = %v", err)
		}
	}
	_, err := s.Get(ctx, "d/a", 0, -1)
	wantErr(t, "Get of a deleted key", err, object.ErrNotFound)
	mustGet(t, ctx, s, "d/b", []byte("b"))
	mustCreate(t, ctx, s, "d/a", []byte("again"))
	mustGet(t, ctx, s, "d/a", []byte("again"))
}

func dataNotRetained(t *testing.T, ctx context.Context, s object.Store) {
	data := pattern(50_000, 6)
	want := bytes.Clone(data)
	mustCreate(t, ctx, s, "kept", data)
	if !bytes.Equal(data, want) {
		t.Fatal("Create changed the caller's bytes")
	}
	clear(data)
	mustGet(t, ctx, s, "kept", want)
}

func resultOwned(t *testing.T, ctx context.Context, s object.Store) {
	want := pattern(5000, 7)
	mustCreate(t, ctx, s, "owned", want)
	got, err := s.Get(ctx, "owned", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	clear(got)
	mustGet(t, ctx, s, "owned", want)
}

func cancelled(t *testing.T, ctx context.Context, s object.Store) {
	mustCreate(t, ctx, s, "before", []byte("x"))
	over, cancel := context.WithCancel(ctx)
	cancel()
	_, getErr := s.Get(over, "before", 0, -1)
	_, listErr := s.List(over, "", "", 10)
	for what, err := range map[string]error{
		"Create": s.Create(over, "after", []byte("x")),
		"Delete": s.Delete(over, "before"),
		"Get":    getErr,
		"List":   listErr,
	} {
		wantErr(t, what+" with a cancelled context", err, context.Canceled)
	}
}

// cancelledDuringCreate changes the data as soon as Create returns, whatever
// its outcome: what is stored afterwards must be the data as it was, whole.
func cancelledDuringCreate(t *testing.T, ctx context.Context, s object.Store) {
	want := pattern(4<<20, 8)
	data := bytes.Clone(want)
	for i := range 12 {
		key := fmt.Sprintf("c/%d", i)
		short, cancel := context.WithTimeout(ctx, time.Duration(i)*500*time.Microsecond)
		err := s.Create(short, key, data)
		cancel()
		clear(data) // a store that still reads it stores zeroes, or trips the race detector
		copy(data, want)
		got, getErr := s.Get(ctx, key, 0, -1)
		switch {
		case err == nil && getErr != nil:
			t.Fatalf("Create = nil, then Get = %v", getErr)
		case getErr == nil && !bytes.Equal(got, want):
			t.Fatalf("Create = %v, and the object holds other bytes", err)
		case getErr != nil && !errors.Is(getErr, object.ErrNotFound):
			t.Fatalf("Get = %v", getErr)
		}
	}
}

func large(t *testing.T, ctx context.Context, s object.Store) {
	data := pattern(16<<20, 9)
	mustCreate(t, ctx, s, "large", data[:5<<20], data[5<<20:])
	mustGet(t, ctx, s, "large", data)
	got, err := s.Get(ctx, "large", 12<<20, 4<<20)
	if err != nil || !bytes.Equal(got, data[12<<20:]) {
		t.Fatalf("Get of the last chunk = %d bytes, %v", len(got), err)
	}
}

func probe(t *testing.T, ctx context.Context, s object.Store) {
	if err := object.Probe(ctx, s, 4, 8); err != nil {
		t.Fatalf("Probe = %v", err)
	}
	infos, err := s.List(ctx, "", "", 100)
	if err != nil || len(infos) != 0 {
		t.Fatalf("the probe left %v, %v", infos, err)
	}
}
