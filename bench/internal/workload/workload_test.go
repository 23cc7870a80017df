package workload

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

func TestCasesOverrideTheLoad(t *testing.T) {
	w, err := Parse([]byte(`
name: x
rate-mb: 2
record-size: 500
phases: [produce, catch-up]
cases:
  - {name: a, system: minio, raw: true}
  - {name: b, system: kafka, args: [log.flush.interval.messages=1], rate-mb: 3, acks: leader, idempotent: false}
`))
	if err != nil {
		t.Fatal(err)
	}
	a, b := w.Cases[0], w.Cases[1]
	if a.Load.Rate != 2 || a.Load.RecordSize != 500 || a.Load.Acks != "all" || !a.Load.Idempotent || !a.Raw {
		t.Errorf("case a: %+v", a)
	}
	if b.Load.Rate != 3 || b.Load.RecordSize != 500 || b.Load.Acks != "leader" || b.Load.Idempotent || b.Raw || len(b.Args) != 1 {
		t.Errorf("case b: %+v", b)
	}
	if got := a.Load.PerSecond(); got != 4000 {
		t.Errorf("2 MB/s of 500 bytes are %v records a second", got)
	}
	if w.Rounds != 3 || w.Pause != time.Second {
		t.Errorf("defaults: %+v", w)
	}
}

func TestFaultsAreReported(t *testing.T) {
	for text, want := range map[string]string{
		"name: x":                           "cases: 0",
		"cases: [{name: a, system: redis}]": "redis",
		"cases: [{name: a, system: file, partitions: 0}]":                    "partitions",
		"cases: [{name: a, system: file, record-size: 3}]":                   "record-size",
		"cases: [{name: a, system: file, rate-mb: .nan}]":                    "rate-mb",
		"cases: [{name: a, system: file, acks: none}]":                       "idempotent",
		"cases: [{name: a, system: kafka, raw: true}]":                       "raw",
		"cases: [{name: a, system: file, model: s3}]":                        "model",
		"cases: [{name: a, system: file}, {name: a, system: file}]":          "a short name of its own",
		"cases: [{name: a/b, system: file}]":                                 "a short name of its own",
		"cases: [{name: a, system: file, typo: 1}]":                          "typo",
		"rate: 3\ncases: [{name: a, system: file}]":                          "rate",
		"cases: [{name: a, system: kafka, binary: x}]":                       "binary",
		"phases: [catch-up]\ncases: [{name: a, system: file}]":               "catch-up",
		"cases: [{name: a, system: file, rate-mb: 9000, record-size: 16}]":   "records a second",
		"cases: [{name: a, system: file, topics: 10000, partitions: 10000}]": "topics times partitions",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n gave %v, not %q", text, err, want)
		}
	}
}

func TestTransactionsAreRefused(t *testing.T) {
	_, err := Parse([]byte("cases: [{name: a, system: minio, transactional: true}]"))
	if !errors.Is(err, ErrTransactions) {
		t.Errorf("got %v", err)
	}
}

// Every workload that is shipped can be read.
func TestShippedWorkloads(t *testing.T) {
	files, err := filepath.Glob("../../workloads/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no workloads: %v", err)
	}
	for _, f := range files {
		if _, err := Read(f); err != nil {
			t.Error(err)
		}
	}
}

func TestPayloads(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	ratio := func(kind string) float64 {
		p := NewPayload(kind, 1000, 1)
		var all []byte
		for range 4000 {
			all = append(all, p.Next()...)
		}
		return float64(len(enc.EncodeAll(all, nil))) / float64(len(all))
	}
	if r := ratio("random"); r < .99 {
		t.Errorf("random payload compresses to %.2f", r)
	}
	if r := ratio("json"); r < .1 || r > .35 {
		t.Errorf("json payload compresses to %.2f", r)
	}
	a, b := NewPayload("random", 64, 1), NewPayload("random", 64, 2)
	if bytes.Equal(a.Next(), b.Next()) {
		t.Error("two producers send the same")
	}
	first := bytes.Clone(a.Next())
	if bytes.Equal(first, a.Next()) {
		t.Error("values repeat")
	}
}
