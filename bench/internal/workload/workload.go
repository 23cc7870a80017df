// Package workload reads what a benchmark should do from a YAML file.
//
// Vocabulary: a workload is one comparison, made in one run. Its cases are the
// systems compared, or one system under loads that differ in a few respects;
// its phases are what each case does in each round, and the rounds alternate
// between the cases, so that a busy machine is busy for all of them. The load
// keys at the top of the file hold for every case that does not override them.
package workload

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Phase is one thing a case does in a round.
type Phase string

const (
	Produce Phase = "produce"  // write, nobody reads
	Tail    Phase = "tail"     // write while every consumer reads all of it
	CatchUp Phase = "catch-up" // read what the round has written so far, consumers sharing the partitions
)

// Workload is one file.
type Workload struct {
	Name   string
	About  string
	Rounds int
	Phases []Phase
	Pause  time.Duration // between two measurements
	Cases  []Case
}

// Case is one system under one load.
type Case struct {
	Name   string
	System string   // minio, file, kafka or external
	Model  string   // latency model before the store; minio only
	Price  string   // price table to count requests by
	Args   []string // more arguments of each broker; for kafka, properties
	Binary string   // broker to run instead of the one that was built, to compare two builds
	Raw    bool     // measure the store's own limits beside it
	Load   Load
}

// Load is what the clients do. Rates and sizes are of record values.
type Load struct {
	Rate         float64 // MB a second, all producers together; 0: as much as is taken
	RecordSize   int
	Payload      string // random or json
	Topics       int
	Partitions   int // of each topic
	Idle         int // partitions of one more topic, which nobody touches
	Brokers      int
	Producers    int
	Consumers    int
	Acks         string // all, leader or none
	Idempotent   bool
	Transactions bool
	Linger       time.Duration
	BatchBytes   int
	Compression  string
	Duration     time.Duration // of produce and tail
	WarmUp       time.Duration // before the first round
}

const sizeMax = 1 << 20 // of a file

// Read reads and checks the workload in a file.
func Read(path string) (Workload, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Workload{}, err
	}
	if info.Size() > sizeMax {
		return Workload{}, fmt.Errorf("workload %s: %d bytes", path, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Workload{}, err
	}
	w, err := Parse(data)
	if err != nil {
		return Workload{}, fmt.Errorf("workload %s: %w", path, err)
	}
	if name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)); w.Name == "" {
		w.Name = name
	}
	return w, nil
}

// Parse reads a workload, fills in defaults and checks all of it.
func Parse(data []byte) (Workload, error) {
	var f file
	f.loadYAML = defaults()
	if err := decodeStrict(data, &f); err != nil {
		return Workload{}, err
	}
	w := Workload{
		Name: f.Name, About: strings.TrimSpace(f.About), Rounds: f.Rounds, Phases: f.Phases, Pause: f.Pause,
	}
	if w.Rounds == 0 {
		w.Rounds = 3
	}
	if len(w.Phases) == 0 {
		w.Phases = []Phase{Produce}
	}
	if w.Pause == 0 {
		w.Pause = time.Second
	}
	for i := range f.Cases {
		c := caseYAML{loadYAML: f.loadYAML}
		node, err := yaml.Marshal(&f.Cases[i])
		if err != nil {
			return Workload{}, err
		}
		if err := decodeStrict(node, &c); err != nil {
			return Workload{}, fmt.Errorf("case %d: %w", i+1, err)
		}
		w.Cases = append(w.Cases, Case{c.Name, c.System, c.Model, c.Price, c.Args, c.Binary, c.Raw, Load(c.loadYAML)})
	}
	return w, w.check()
}

func decodeStrict(data []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	return d.Decode(into)
}

type file struct {
	Name     string
	About    string
	Rounds   int
	Phases   []Phase
	Pause    time.Duration
	Cases    []yaml.Node
	loadYAML `yaml:",inline"`
}

type caseYAML struct {
	Name     string
	System   string
	Model    string
	Price    string
	Args     []string
	Binary   string
	Raw      bool
	loadYAML `yaml:",inline"`
}

// loadYAML is Load with the names of its keys.
type loadYAML struct {
	Rate         float64       `yaml:"rate-mb"`
	RecordSize   int           `yaml:"record-size"`
	Payload      string        `yaml:"payload"`
	Topics       int           `yaml:"topics"`
	Partitions   int           `yaml:"partitions"`
	Idle         int           `yaml:"idle-partitions"`
	Brokers      int           `yaml:"brokers"`
	Producers    int           `yaml:"producers"`
	Consumers    int           `yaml:"consumers"`
	Acks         string        `yaml:"acks"`
	Idempotent   bool          `yaml:"idempotent"`
	Transactions bool          `yaml:"transactional"`
	Linger       time.Duration `yaml:"linger"`
	BatchBytes   int           `yaml:"batch-bytes"`
	Compression  string        `yaml:"compression"`
	Duration     time.Duration `yaml:"duration"`
	WarmUp       time.Duration `yaml:"warm-up"`
}

func defaults() loadYAML {
	return loadYAML{
		RecordSize: 1024, Payload: "random", Topics: 1, Partitions: 16, Brokers: 1, Producers: 4, Consumers: 1,
		Acks: "all", Idempotent: true, Linger: 5 * time.Millisecond, BatchBytes: 1 << 20, Compression: "none",
		Duration: 10 * time.Second, WarmUp: 3 * time.Second,
	}
}

// ErrTransactions says why a workload with transactions does not run.
var ErrTransactions = errors.New("transactional: not measured: the broker has no transactions yet")
