package test

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/harness"
)

const (
	debianTopic      = "debian-index"
	debianPartitions = 12

	// Delimiters of kcat's input and of the console consumer's output. Stanzas
	// are many lines of text, so neither a newline nor a tab will do; these
	// control characters occur in none, which the test checks.
	keyDelimiter    = "\x1f"
	recordDelimiter = "\x1e"
)

// ledWithin is how soon after the last fault every partition has a leader.
const ledWithin = 10 * time.Second

// stanza is one package's entry in the index.
type stanza struct {
	key  string
	text []byte
}

// TestDebianIndex sends the package index of this machine through kcat and reads
// it back, byte for byte, with seven clients; then kills everything and reads
// it back again.
func TestDebianIndex(t *testing.T) {
	harness.System(t)
	input := debianIndex(t)
	t.Run("embedded", func(t *testing.T) {
		debianRoundTrip(t, harness.StartEmbedded(t), input)
	})
	t.Run("cluster", func(t *testing.T) {
		debianRoundTrip(t, harness.StartCluster(t, harness.Options{}), input, "-z", "gzip")
	})
}

func debianRoundTrip(t *testing.T, c *harness.Cluster, input []stanza, kcatArgs ...string) {
	createTopic(t, c, debianTopic, debianPartitions)
	begun := time.Now()
	kcat := harness.Kcat(t, append([]string{"-P", "-b", c.Bootstrap(), "-t", debianTopic,
		"-K", `\x1f`, "-D", `\x1e`, "-X", "enable.idempotence=true", "-X", "partitioner=murmur2_random"}, kcatArgs...)...)
	kcat.Stdin = kcatInput(input)
	out, err := kcat.Run()
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Stderr) > 0 {
		t.Errorf("kcat complained:\n%s", out.Stderr)
	}
	figure(t, "kcat produced %d records in %v", len(input), time.Since(begun).Round(time.Millisecond))

	want, err := readKcat(t, c, debianTopic, len(input))
	if err != nil {
		t.Fatal(err)
	}
	compareInput(t, input, want)
	readAll(t, c, want, len(input), "")
	c.Disaster()
	ready := time.Now()
	endOffsets(t, newAdmin(t, c), debianTopic) // once every leader answers
	took := time.Since(ready).Round(time.Millisecond)
	figure(t, "every partition served again %v after the brokers were ready", took)
	if took > ledWithin {
		t.Errorf("no leader for some partition within %v", ledWithin)
	}
	readAll(t, c, want, len(input), " after kill -9")
}

func readAll(t *testing.T, c *harness.Cluster, want contents, n int, when string) {
	t.Run("read"+when, func(t *testing.T) { // returns when all readers are done
		for _, r := range readers {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				begun := time.Now()
				got, err := r.read(t, c, debianTopic, n)
				if err != nil {
					t.Fatal(err)
				}
				compare(t, want, got)
				figure(t, "%s read %d records in %v", r.name, n, time.Since(begun).Round(time.Millisecond))
			})
		}
	})
}

// debianIndex is the machine's package index, as apt shows it.
func debianIndex(t *testing.T) []stanza {
	t.Helper()
	apt, err := exec.LookPath("apt-cache")
	if err != nil {
		harness.Missing(t, "apt-cache")
	}
	out, err := harness.Command{Path: apt, Args: []string{"dumpavail"}}.Run()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out.Stdout, []byte(keyDelimiter)) || bytes.Contains(out.Stdout, []byte(recordDelimiter)) {
		t.Fatal("the index contains a delimiter")
	}
	var stanzas []stanza
	for _, text := range bytes.Split(bytes.TrimSpace(out.Stdout), []byte("\n\n")) {
		first, _, _ := bytes.Cut(text, []byte("\n"))
		key, ok := bytes.CutPrefix(first, []byte("Package: "))
		if !ok {
			t.Fatalf("a stanza begins with %q", first)
		}
		stanzas = append(stanzas, stanza{string(key), text})
	}
	if len(stanzas) < 10000 {
		harness.Missing(t, "package lists: only %d packages known; run apt-get update", len(stanzas))
	}
	return stanzas
}

func kcatInput(input []stanza) *bytes.Buffer {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	for i, s := range input {
		if i > 0 {
			w.WriteString(recordDelimiter)
		}
		w.WriteString(s.key)
		w.WriteString(keyDelimiter)
		w.Write(s.text)
	}
	w.Flush()
	return &b
}

// compareInput checks what was read against what was sent: every key in one
// partition, its values in the order they were sent, nothing else anywhere.
func compareInput(t *testing.T, input []stanza, got contents) {
	t.Helper()
	sent := make(map[string][][]byte)
	for _, s := range input {
		sent[s.key] = append(sent[s.key], s.text)
	}
	total := 0
	home := make(map[string]int32)
	for p, records := range got {
		for i, r := range records {
			total++
			if r.offset != int64(i) {
				t.Fatalf("partition %d: offset %d where %d was due", p, r.offset, i)
			}
			if first, ok := home[r.key]; ok && first != p {
				t.Fatalf("key %s in partitions %d and %d", r.key, first, p)
			}
			home[r.key] = p
			left := sent[r.key]
			if len(left) == 0 || !bytes.Equal(left[0], r.value) {
				t.Fatalf("partition %d offset %d: key %s: not the value that was sent next", p, r.offset, r.key)
			}
			sent[r.key] = left[1:]
		}
	}
	if total != len(input) || len(got) != debianPartitions {
		t.Fatalf("%d records in %d partitions, want %d in %d", total, len(got), len(input), debianPartitions)
	}
}

// record is one record as a client showed it; contents are a topic's by
// partition, in offset order.
type record struct {
	offset int64
	key    string
	value  []byte
}

type contents map[int32][]record

func compare(t *testing.T, want, got contents) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d partitions, want %d", len(got), len(want))
	}
	for p := range want {
		if err := difference(want[p], got[p]); err != nil {
			t.Errorf("partition %d: %v", p, err)
		}
	}
}

func difference(want, got []record) error {
	for i := range min(len(want), len(got)) {
		w, g := want[i], got[i]
		if w.offset != g.offset || w.key != g.key || !bytes.Equal(w.value, g.value) {
			return fmt.Errorf("record %d: offset %d key %q, %d bytes; want offset %d key %q, %d bytes (or they differ inside)",
				i, g.offset, g.key, len(g.value), w.offset, w.key, len(w.value))
		}
	}
	if len(want) != len(got) {
		return fmt.Errorf("%d records, want %d", len(got), len(want))
	}
	return nil
}
