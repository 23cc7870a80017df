package workload

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Bounds that keep a slip of the pen from filling a machine.
const (
	roundsMax     = 100
	casesMax      = 8
	partitionsMax = 200_000
	clientsMax    = 256
	brokersMax    = 9
	recordMin     = 16
	recordMax     = 8 << 20
	batchMin      = 1 << 10
	batchMax      = 32 << 20
	rateMax       = 10_000
	perSecondMax  = 5_000_000 // records
	durationMax   = time.Hour
)

// nameForm is what a case may be called: files are named after it.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 .-]{0,59}$`)

// check reports every fault.
func (w Workload) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if w.Rounds < 1 || w.Rounds > roundsMax {
		fault("rounds: %d is not within 1 and %d", w.Rounds, roundsMax)
	}
	if len(w.Cases) < 1 || len(w.Cases) > casesMax {
		fault("cases: %d are not within 1 and %d", len(w.Cases), casesMax)
	}
	if w.Pause < 0 || w.Pause > time.Minute {
		fault("pause: %v", w.Pause)
	}
	seen := make(map[Phase]bool)
	for _, p := range w.Phases {
		if !slices.Contains([]Phase{Produce, Tail, CatchUp}, p) || seen[p] {
			fault("phases: %q is unknown or given twice", p)
		}
		seen[p] = true
	}
	if seen[CatchUp] && w.Phases[0] == CatchUp {
		fault("phases: catch-up needs something written before it")
	}
	names := make(map[string]bool)
	for i, c := range w.Cases {
		if !nameForm.MatchString(c.Name) || names[c.Name] {
			fault("case %d: needs a short name of its own, of letters, digits, dots, dashes and spaces", i+1)
		}
		names[c.Name] = true
		if err := c.check(); err != nil {
			faults = append(faults, fmt.Errorf("case %s: %w", c.Name, err))
		}
	}
	return errors.Join(faults...)
}

func (c Case) check() error {
	var faults []error
	if !slices.Contains([]string{"minio", "file", "kafka", "external"}, c.System) {
		faults = append(faults, fmt.Errorf("system: %q is none of minio, file, kafka, external", c.System))
	}
	if c.Model != "" && c.System != "minio" {
		faults = append(faults, errors.New("model: only minio has a store that a model can stand before"))
	}
	if c.Raw && (c.System == "kafka" || c.System == "external") {
		faults = append(faults, fmt.Errorf("raw: %s has no store to measure", c.System))
	}
	if c.Binary != "" && c.System != "minio" && c.System != "file" {
		faults = append(faults, fmt.Errorf("binary: %s is not ours to start", c.System))
	}
	if c.Load.Brokers > 1 && c.System != "minio" {
		faults = append(faults, fmt.Errorf("brokers: %s is one broker", c.System))
	}
	return errors.Join(append(faults, c.Load.check())...)
}

func (l Load) check() error {
	var faults []error
	within := func(name string, n, low, high float64) {
		if !(n >= low && n <= high) { // NaN is not within
			faults = append(faults, fmt.Errorf("%s: %v is not within %v and %v", name, n, low, high))
		}
	}
	one := func(name, value string, of ...string) {
		if !slices.Contains(of, value) {
			faults = append(faults, fmt.Errorf("%s: %q is none of %v", name, value, of))
		}
	}
	if l.Transactions {
		faults = append(faults, ErrTransactions)
	}
	within("rate-mb", l.Rate, 0, rateMax)
	within("record-size", float64(l.RecordSize), recordMin, recordMax)
	within("records a second", l.Rate*1e6/float64(max(l.RecordSize, 1)), 0, perSecondMax)
	within("topics", float64(l.Topics), 1, 10_000)
	within("partitions", float64(l.Partitions), 1, partitionsMax)
	within("topics times partitions", float64(l.Topics)*float64(l.Partitions), 1, partitionsMax)
	within("idle-partitions", float64(l.Idle), 0, partitionsMax)
	within("brokers", float64(l.Brokers), 1, brokersMax)
	within("producers", float64(l.Producers), 1, clientsMax)
	within("consumers", float64(l.Consumers), 1, clientsMax)
	within("linger", l.Linger.Seconds(), 0, 60)
	within("batch-bytes", float64(l.BatchBytes), batchMin, batchMax)
	within("duration", l.Duration.Seconds(), .1, durationMax.Seconds())
	within("warm-up", l.WarmUp.Seconds(), 0, durationMax.Seconds())
	one("payload", l.Payload, "random", "json")
	one("acks", l.Acks, "all", "leader", "none")
	one("compression", l.Compression, "none", "gzip", "snappy", "lz4", "zstd")
	if l.Idempotent && l.Acks != "all" {
		faults = append(faults, errors.New("idempotent: needs acks: all"))
	}
	return errors.Join(faults...)
}

// PerSecond is the records a second of all producers; 0 is no limit.
func (l Load) PerSecond() float64 { return l.Rate * 1e6 / float64(l.RecordSize) }
