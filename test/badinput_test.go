package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/harness"
)

const (
	// badGrowthMax is what the whole table may add to the broker's memory,
	// badLatencyMax what another client's write or read may take meanwhile at
	// the 99th percentile: far above what is usual, on a machine that this test
	// shares with the broker, its store and its etcd.
	badGrowthMax  = 64 << 20
	badLatencyMax = time.Second
	// badCloseMax is how soon a connection that can lead nowhere is closed.
	badCloseMax = 5 * time.Second
)

// The topics of the table. What is refused goes to the first two, whose high
// watermarks never move.
const (
	badTopic     = "bad.topic"
	badCompacted = "bad-compacted"
	badAccepted  = "bad-accepted" // odd, but Kafka takes it
	badProbed    = "probed"
)

// badCase is one thing a broken or hostile client does. Its run judges the
// answers; everything else of the contract is checked after each case.
type badCase struct {
	name string
	run  func(t *testing.T, r *badRig)
}

// TestBadInput sends a live broker what no client should. Each is answered with
// an error code or a closed connection, and otherwise nothing happens: the
// process lives on in little memory, others are served as before, and neither
// etcd nor the bucket nor any log has anything new.
func TestBadInput(t *testing.T) {
	harness.System(t)
	r := newBadRig(t)
	t.Run("bucket", func(t *testing.T) {
		before := r.objects(t)
		r.cases(t, badRecordCases())
		wantSame(t, "bucket", before, r.objects(t))
	})
	p := r.probe(t)
	r.warm(t)
	for _, group := range []struct {
		name  string
		cases []badCase
	}{
		{"frames", badFrameCases()},
		{"versions", badVersionCases()},
		{"arrays", badArrayCases()},
		{"records", badRecordCases()},
		{"producers", []badCase{{"ids, epochs and sequences nobody was given", absurdProducers}}},
		{"compression", badCompressionCases()},
		{"names", badNameCases()},
	} {
		t.Run(group.name, func(t *testing.T) { r.cases(t, group.cases) })
	}
	writes, reads := p.stop(t)
	figure(t, "bad input: another client's writes p50 %v p99 %v, reads p50 %v p99 %v, over %d",
		percentile(writes, 50), percentile(writes, 99), percentile(reads, 50), percentile(reads, 99), len(writes))
	if worst := max(percentile(writes, 99), percentile(reads, 99)); worst > badLatencyMax {
		t.Errorf("another client's p99 rose to %v, want at most %v", worst, badLatencyMax)
	}
	figure(t, "bad input: memory %d KiB, at most %d KiB since the table began with %d KiB",
		r.memory(t, "VmRSS")>>10, r.memory(t, "VmHWM")>>10, r.rss>>10)
	r.settled(t)
}

// cases runs some cases and holds the broker to the contract after each.
func (r *badRig) cases(t *testing.T, cases []badCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			begun := time.Now()
			held, before := r.memory(t, "VmRSS"), r.state(t)
			c.run(t, r)
			if !r.broker.Running() {
				t.Fatalf("the broker ended:\n%s", r.broker.Log())
			}
			wantSame(t, "etcd and logs", before, r.state(t))
			now := r.memory(t, "VmRSS")
			if now > held+1<<20 {
				t.Logf("memory from %d to %d MiB", held>>20, now>>20)
				// The case that went too far is to blame, and not those after it.
				if r.rss > 0 && now > r.rss+badGrowthMax {
					t.Errorf("memory grew by %d MiB since the table began, want at most %d", (now-r.rss)>>20, badGrowthMax>>20)
				}
			}
			if took := time.Since(begun); took > time.Second {
				t.Logf("took %v", took.Round(time.Millisecond))
			}
		})
	}
}

// wantSame tells what came and went between two states, both in order.
func wantSame(t *testing.T, what string, before, after []string) {
	t.Helper()
	for _, s := range after {
		if _, ok := slices.BinarySearch(before, s); !ok {
			t.Errorf("side effect, %s: new: %s", what, s)
		}
	}
	for _, s := range before {
		if _, ok := slices.BinarySearch(after, s); !ok {
			t.Errorf("side effect, %s: gone: %s", what, s)
		}
	}
}

// settled checks that nothing of the table lingers: no handler panicked, and
// there are no more connections than before.
func (r *badRig) settled(t *testing.T) {
	t.Helper()
	harness.Eventually(t, 10*time.Second, "connections of the table are gone", func() error {
		if n := r.metric(t, "tidemark_connections"); n > r.connections {
			return fmt.Errorf("%v are open, %v were before", n, r.connections)
		}
		return nil
	})
	if n := r.metric(t, "tidemark_panics_total"); n != 0 {
		t.Errorf("%v handlers panicked", n)
	}
	for line := range strings.Lines(r.broker.Log()) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") {
			t.Errorf("the broker logged: %s", line)
		}
	}
}
