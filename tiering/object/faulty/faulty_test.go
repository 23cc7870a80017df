package faulty_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/faulty"
	"github.com/tidemark-io/tidemark/tiering/object/mem"
	"github.com/tidemark-io/tidemark/tiering/object/objecttest"
)

func TestWithoutFaults(t *testing.T) {
	objecttest.Run(t, func(*testing.T) object.Store { return faulty.New(mem.New()) })
}

func TestCreateFaults(t *testing.T) {
	for _, c := range []struct {
		kind    faulty.Kind
		applied bool
	}{{faulty.Before, false}, {faulty.After, true}} {
		inner := mem.New()
		s := faulty.New(inner)
		f := s.Inject(&faulty.Fault{Op: object.OpCreate, Match: faulty.Prefix("w/"), Skip: 1, Count: 1, Kind: c.kind})
		for _, key := range []string{"k/1", "w/1"} {
			if err := s.Create(t.Context(), key, []byte("x")); err != nil {
				t.Fatalf("Create(%s) = %v", key, err)
			}
		}
		if err := s.Create(t.Context(), "w/2", []byte("x")); !errors.Is(err, faulty.Err) {
			t.Fatalf("Create(w/2) = %v", err)
		}
		_, err := inner.Get(t.Context(), "w/2", 0, -1)
		if (err == nil) != c.applied {
			t.Errorf("kind %d: the object exists: %v", c.kind, err == nil)
		}
		if err := s.Create(t.Context(), "w/3", []byte("x")); err != nil || s.Hits(f) != 1 {
			t.Errorf("Create(w/3) = %v after %d hits", err, s.Hits(f))
		}
	}
}

func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New()
		s := faulty.New(inner)
		s.Inject(&faulty.Fault{Op: object.OpCreate, Count: 1, Kind: faulty.Late, Delay: 5 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		data := []byte("late")
		if err := s.Create(ctx, "a", data); !errors.Is(err, faulty.Err) {
			t.Fatal(err)
		}
		cancel()
		clear(data)
		if _, err := inner.Get(t.Context(), "a", 0, -1); !errors.Is(err, object.ErrNotFound) {
			t.Fatalf("applied too early: %v", err)
		}
		s.Close()
		if got, err := inner.Get(t.Context(), "a", 0, -1); err != nil || string(got) != "late" {
			t.Fatalf("Get = %q, %v", got, err)
		}
	})
}

func TestGetFaults(t *testing.T) {
	s := faulty.New(mem.New())
	want := bytes.Repeat([]byte("0123456789"), 10)
	if err := s.Create(t.Context(), "a", want); err != nil {
		t.Fatal(err)
	}
	get := func(kind faulty.Kind) ([]byte, error) {
		s.Inject(&faulty.Fault{Op: object.OpGet, Match: faulty.Key("a"), Count: 1, Kind: kind})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return s.Get(ctx, "a", 0, -1)
	}
	if _, err := get(faulty.Missing); !errors.Is(err, object.ErrNotFound) {
		t.Errorf("Missing: %v", err)
	}
	if got, err := get(faulty.Corrupt); err != nil || len(got) != len(want) || bytes.Equal(got, want) {
		t.Errorf("Corrupt: %q, %v", got, err)
	}
	if got, err := get(faulty.Truncated); err != nil || len(got) != len(want)/2 {
		t.Errorf("Truncated: %q, %v", got, err)
	}
	if _, err := get(faulty.Hang); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Hang: %v", err)
	}
	if got, err := s.Get(t.Context(), "a", 0, -1); err != nil || !bytes.Equal(got, want) {
		t.Errorf("without a fault: %q, %v", got, err)
	}
}
