package objecttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// racingCreates: of many racing creates of a key exactly one succeeds, and the
// object holds its bytes. Losers see it at once.
func racingCreates(t *testing.T, ctx context.Context, s object.Store) {
	for round := range 20 {
		race(t, ctx, s, fmt.Sprintf("race/%d", round), 16)
	}
}

func race(t *testing.T, ctx context.Context, s object.Store, key string, racers int) {
	t.Helper()
	start := make(chan struct{})
	errs := make([]error, racers)
	seen := make([][]byte, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			data := pattern(3000+i, uint64(i))
			<-start
			errs[i] = s.Create(ctx, key, data)
			seen[i], _ = s.Get(ctx, key, 0, -1)
		})
	}
	close(start)
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("%s: racers %d and %d both created it", key, winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, object.ErrExists):
			t.Fatalf("%s: racer %d: %v", key, i, err)
		}
	}
	if winner < 0 {
		t.Fatalf("%s: nobody created it", key)
	}
	want := pattern(3000+winner, uint64(winner))
	for i, got := range seen {
		if !bytes.Equal(got, want) {
			t.Fatalf("%s: racer %d read %d bytes, not the winner's, right after its Create", key, i, len(got))
		}
	}
}

// racingDirectory: creates of different keys that need the same new parents.
func racingDirectory(t *testing.T, ctx context.Context, s object.Store) {
	for round := range 10 {
		var wg sync.WaitGroup
		errs := make([]error, 16)
		for i := range errs {
			wg.Go(func() {
				errs[i] = s.Create(ctx, fmt.Sprintf("d%d/e/f/%d", round, i%8), []byte("x"))
			})
		}
		wg.Wait()
		created := 0
		for _, err := range errs {
			if err == nil {
				created++
			} else if !errors.Is(err, object.ErrExists) {
				t.Fatal(err)
			}
		}
		if created != 8 {
			t.Fatalf("%d creates succeeded for 8 keys", created)
		}
	}
}

// concurrent mixes all operations on keys of their own.
func concurrent(t *testing.T, ctx context.Context, s object.Store) {
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for g := range 8 {
		wg.Go(func() {
			for i := range 25 {
				if err := lifeOfAnObject(ctx, s, fmt.Sprintf("g%d/%d", g, i%5), uint64(g*100+i)); err != nil {
					errs <- fmt.Errorf("goroutine %d: %w", g, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

func lifeOfAnObject(ctx context.Context, s object.Store, key string, seed uint64) error {
	data := pattern(2000, seed)
	if err := s.Create(ctx, key, data); err != nil {
		return err
	}
	got, err := s.Get(ctx, key, 100, 500)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, data[100:600]) {
		return errors.New("read other bytes")
	}
	infos, err := s.List(ctx, key, "", 10)
	if err != nil {
		return err
	}
	if len(infos) != 1 || infos[0].Key != key {
		return fmt.Errorf("listed %v", infos)
	}
	return s.Delete(ctx, key)
}
