package model

import (
	"strings"
	"testing"
)

// statesMax bounds an exploration: about 500 MB. A model that does not fit is no
// proof, and its test fails.
const statesMax = 8_000_000

// holds explores a protocol to the end. No promise may be broken, and each of
// the steps, named by a part of its text, must have occurred.
func holds[S comparable](t *testing.T, p protocol[S], steps ...string) {
	t.Helper()
	o := explore(p, statesMax)
	t.Logf("%d states", o.states)
	switch {
	case o.broken != "":
		t.Fatalf("%s:%s", o.broken, told(o.trace))
	case !o.complete:
		t.Fatalf("not explored to the end")
	}
	for _, want := range steps {
		occurred := false
		for format := range o.taken {
			occurred = occurred || strings.Contains(format, want)
		}
		if !occurred {
			t.Errorf("nothing is proved about %q: it never happened", want)
		}
	}
}

// breaks demands a counterexample.
func breaks[S comparable](t *testing.T, p protocol[S], want string) {
	t.Helper()
	o := explore(p, statesMax)
	if o.broken == "" {
		t.Fatalf("the guard is not needed: no promise is broken in %d states", o.states)
	}
	t.Logf("%s, found after %d states:%s", o.broken, o.states, told(o.trace))
	if !strings.Contains(o.broken, want) {
		t.Errorf("broken: %s; want: %s", o.broken, want)
	}
}

func told(trace []string) string {
	return "\n\t" + strings.Join(trace, "\n\t")
}

// counter is a protocol to test explore with: it counts to a limit by ones and
// twos, and must not reach bad.
type counter struct{ limit, bad int }

func (c counter) start() int { return 0 }

func (c counter) next(s *int, yield func(int, step)) {
	for _, by := range []int{1, 2} {
		if *s+by <= c.limit {
			yield(*s+by, step{"%d to %d", *s, *s + by})
		}
	}
}

func (c counter) broken(s *int) string {
	if *s == c.bad {
		return "bad"
	}
	return ""
}

func TestExplore(t *testing.T) {
	const limit = 5 * chunkLen
	if o := explore(counter{limit, -1}, limit+1); !o.complete || o.states != limit+1 || o.broken != "" {
		t.Errorf("all good: %d states, complete %v, broken %q", o.states, o.complete, o.broken)
	}
	if o := explore(counter{limit, -1}, limit/2); o.complete {
		t.Error("complete although there were more states than allowed")
	}
	o := explore(counter{limit, 5}, limit)
	if got := strings.Join(o.trace, ", "); o.broken != "bad" || got != "0 to 1, 1 to 3, 3 to 5" {
		t.Errorf("broken %q by %q, want the shortest way to 5", o.broken, got)
	}
}
