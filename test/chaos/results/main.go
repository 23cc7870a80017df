// Command results prints what the rig has measured as a table: of every figure
// the newest, from the files that TIDEMARK_RESULTS named.
//
//	go run ./test/chaos/results .build/chaos/results.jsonl
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// line is one figure as the rig appends it.
type line struct {
	Date, Commit, Test, Scenario, Figure string
	Values                               map[string]any
	Seed                                 uint64
	Seconds                              int
	Failed                               bool
}

func main() {
	newest := make(map[string]line)
	for _, path := range os.Args[1:] {
		f, err := os.Open(path)
		if err == nil {
			err = read(f, newest)
			f.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "results:", err)
			os.Exit(1)
		}
	}
	write(os.Stdout, newest)
}

// read keeps the newest line of each figure.
func read(r io.Reader, newest map[string]line) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			return fmt.Errorf("%q: %w", s.Text(), err)
		}
		if key := l.Scenario + "\x00" + l.Figure; newest[key].Date <= l.Date {
			newest[key] = l
		}
	}
	return s.Err()
}

func write(w io.Writer, newest map[string]line) {
	fmt.Fprintln(w, "| scenario | figure | measured | seconds | date | commit | seed |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
	for _, key := range slices.Sorted(maps.Keys(newest)) {
		l := newest[key]
		var values []string
		for _, k := range slices.Sorted(maps.Keys(l.Values)) {
			values = append(values, fmt.Sprintf("%s **%v**", k, l.Values[k]))
		}
		if l.Failed {
			values = append(values, "**the test failed**")
		}
		fmt.Fprintf(w, "| %s | %s | %s | %d | %s | %s | %d |\n", l.Scenario, l.Figure, strings.Join(values, ", "), l.Seconds, l.Date, l.Commit, l.Seed)
	}
}
