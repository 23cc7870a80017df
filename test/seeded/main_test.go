package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/seeded"
)

func TestTurnsReachEveryBug(t *testing.T) {
	all := seeded.Bugs()
	picked := make(map[string]int)
	for n := range len(all) {
		for _, b := range rotate(all, n, 2) {
			picked[b.ID]++
		}
	}
	for _, b := range all {
		if picked[b.ID] != 2 {
			t.Errorf("%s is picked %d times in %d turns, want 2", b.ID, picked[b.ID], len(all))
		}
	}
	n, err := turn(t.Context())
	if err != nil {
		t.Skip(err) // not a checkout
	}
	if again, err := turn(t.Context()); err != nil || again != n {
		t.Errorf("turn %d, then %d, %v", n, again, err)
	}
}

func TestChoice(t *testing.T) {
	got, err := choose(t.Context(), options{bugs: "b10,B1"})
	if err != nil || len(got) != 2 || got[0].ID != "B10" || got[1].ID != "B1" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := choose(t.Context(), options{bugs: "B99"}); err == nil {
		t.Error("a bug that does not exist was chosen")
	}
	if got, _ := choose(t.Context(), options{}); len(got) != len(seeded.Bugs()) {
		t.Errorf("%d bugs by default", len(got))
	}
}

// script is a suite that is a shell script in place of a test binary.
func script(t *testing.T, text string) (suite, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "suite.test")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return suite{name: "script", pkg: dir, rounds: func(int) ([]string, []string) { return nil, []string{"ROUND=1"} }}, path
}

func TestOutcomesOfASuite(t *testing.T) {
	f := func(text, want string, ok bool) {
		t.Helper()
		s, path := script(t, text)
		what, err := s.once(t.Context(), seeded.Bug{ID: "B0"}, path, []string{"SEEDED=1"}, 0, 10*time.Second, t.TempDir())
		if (err == nil) != ok || !strings.Contains(what, want) || want == "" && what != "" {
			t.Errorf("%q: %q, %v", text, what, err)
		}
	}
	f("echo '--- PASS: TestX (0s)'", "", true)
	f("test $SEEDED$ROUND = 11 && echo '--- PASS: TestX (0s)'", "", true)
	f("echo 'testing: warning: no tests to run'", "", false)
	f("echo '    x_test.go:7: sad'; echo '--- FAIL: TestX (0s)'; exit 1", "sad", true)
	f("echo '    x_test.go:7: seed 3'; echo '    C3 changed: t-0 offset 1 was …'; echo '--- FAIL: TestX (0s)'; exit 1", "C3 changed: t-0", true)
	f("echo '  x_test.go:7: exit status 1'; echo '     at 13.47s position reset: c'; echo '--- FAIL: TestX (0s)'; exit 1", "at 13.47s position reset: c", true)
	f("echo 'panic: oh'; exit 2", "panic: oh", true)
	f("echo no such file; exit 1", "", false)
	f("kill -9 $$", "", false)

	s, path := script(t, "sleep 30")
	begun := time.Now()
	if what, err := s.once(t.Context(), seeded.Bug{ID: "B0"}, path, nil, 0, 200*time.Millisecond, t.TempDir()); what != "" || err != nil || time.Since(begun) > 10*time.Second {
		t.Errorf("a suite that takes too long: %q, %v, %v", what, err, time.Since(begun))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.once(ctx, seeded.Bug{ID: "B0"}, path, nil, 0, time.Second, t.TempDir()); err == nil {
		t.Error("an interrupt is no time that ran out")
	}
}
