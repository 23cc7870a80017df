package tiering

import (
	"errors"
	"testing"
	"time"
)

// Producers that wait for room learn that the incarnation is over.
func TestAdmitEndsWithIncarnation(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.store)
	release, err := a.Admit(t.Context(), 256<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ended := make(chan error, 1)
	go func() { _, err := a.Admit(t.Context(), 1); ended <- err }()
	time.Sleep(10 * time.Millisecond)
	a.fail(ErrFenced)
	select {
	case err := <-ended:
		if !errors.Is(err, ErrFenced) {
			t.Fatal(err)
		}
	case <-time.After(3 * time.Second):
		t.Fatal("still waiting for room")
	}
}
