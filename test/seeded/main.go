// Command seeded tests the testers: it builds the program with one known bug
// after the other (package tiering/seeded), runs the log's own tests of
// transactions, the simulation and then the rig against it, and tells what found
// it and after how long. A bug that nothing finds within the limit is a failure.
//
//	seeded                      every bug, ten minutes each at most
//	seeded -bugs B1,B5          some of them
//	seeded -turns 2             two of them by turns, chosen by the commit
//	seeded -control -limit 5m   none of them: then nothing may be found
//
// The suites are packages of ordinary tests. The first two have the broker's code
// in themselves and are compiled with the bug's tag; they take their seeds from
// TIDEMARK_FIRST_SEED and TIDEMARK_SEEDS. The rig runs the broker that
// TIDEMARK_BIN names, which is built with the tag. Finding a bug is a failing
// test, exit status 1; anything else that goes wrong is an error of this
// command. Output is kept under -logs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tidemark-io/tidemark/tiering/seeded"
)

type options struct {
	bugs    string
	turns   int
	limit   time.Duration
	suites  string
	control bool
	logs    string
}

func main() {
	var o options
	flag.StringVar(&o.bugs, "bugs", "", "the bugs to seed, separated by commas; default: all")
	flag.IntVar(&o.turns, "turns", 0, "seed so many bugs, by turns from commit to commit")
	flag.DurationVar(&o.limit, "limit", 10*time.Minute, "how long the suites may look for one bug, builds not counted")
	flag.StringVar(&o.suites, "suites", "log,sim,rig", "the suites that look, in this order")
	flag.BoolVar(&o.control, "control", false, "seed nothing, and expect that nothing is found")
	flag.StringVar(&o.logs, "logs", filepath.Join(".build", "seeded"), "where output is kept")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	logs, err := filepath.Abs(o.logs)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	var look []suite
	for name := range strings.SplitSeq(o.suites, ",") {
		s, ok := suites[name]
		if !ok {
			return fmt.Errorf("there is no suite %q", name)
		}
		look = append(look, s)
	}
	bugs, err := choose(ctx, o)
	if err != nil {
		return err
	}
	missed := 0
	for _, b := range bugs {
		begun := time.Now()
		found, err := hunt(ctx, b, look, o.limit, logs)
		if err != nil {
			return fmt.Errorf("%s: %w", b.ID, err)
		}
		fmt.Println(found.line(b, time.Since(begun)))
		if (found.by == "") != o.control {
			missed++
		}
	}
	switch {
	case missed > 0 && o.control:
		return errors.New("something was found that nobody seeded")
	case missed > 0:
		return fmt.Errorf("%d of %d seeded bugs were not found within %v", missed, len(bugs), o.limit)
	case !o.control:
		fmt.Printf("%d of %d seeded bugs found\n", len(bugs), len(bugs))
	}
	return nil
}

// choose returns the bugs to seed.
func choose(ctx context.Context, o options) ([]seeded.Bug, error) {
	all := seeded.Bugs()
	if o.control {
		return []seeded.Bug{{ID: "control", What: "no bug at all"}}, nil
	}
	if o.turns > 0 {
		n, err := turn(ctx)
		if err != nil {
			return nil, err
		}
		return rotate(all, n, o.turns), nil
	}
	if o.bugs == "" {
		return all, nil
	}
	var chosen []seeded.Bug
	for id := range strings.SplitSeq(o.bugs, ",") {
		n := len(chosen)
		for _, b := range all {
			if strings.EqualFold(b.ID, id) {
				chosen = append(chosen, b)
			}
		}
		if len(chosen) == n {
			return nil, fmt.Errorf("there is no bug %q", id)
		}
	}
	return chosen, nil
}

// rotate picks k of the bugs at turn n, so that all are picked as often.
func rotate(all []seeded.Bug, n, k int) []seeded.Bug {
	k = min(k, len(all))
	picked := make([]seeded.Bug, k)
	for i := range picked {
		picked[i] = all[(n*k+i)%len(all)]
	}
	return picked
}
