package checker

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-io/tidemark/tiering/audit"
)

// Rules say what is expected of a history, beyond what always is.
type Rules struct {
	// Nodes are the brokers at each of which two fresh consumers must have
	// scanned every partition. Without any, no scan is asked for.
	Nodes []string
	// Holes tells topics whose offsets have holes by right: transaction markers,
	// compaction, deleted records.
	Holes func(topic string) bool
	// Resets allows positions to be reset, where records are deleted under readers.
	Resets bool
	// Copies are topics that transactions copied to others, all of them.
	Copies []Copy
	// TxnTimeout is after what time a coordinator aborts a transaction; 0 is a
	// minute. 10 s later nothing holds the last stable offset back any more.
	TxnTimeout time.Duration
	// Audit is the report of the audit, nil if there was none.
	Audit *audit.Report

	// Staleness is how old an answer about watermarks may be, from a leader that
	// does not know yet that it was deposed. 0 is one second.
	Staleness time.Duration
	// FirstAck is how soon after a heal every partition acknowledges, and the
	// width of a window of C18; 0 is 15 s.
	FirstAck time.Duration
	// Failover is how long after it began a minority's fault may stop everything;
	// 0 is 15 s.
	Failover time.Duration
	// Stuck is how long nothing may stand still without a fault; 0 is a minute.
	Stuck time.Duration
}

// Copy is a topic of which every record was copied to another, to the partition
// of the same number or not.
type Copy struct{ From, To string }

func (r *Rules) ensureDefaults() {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&r.Staleness, time.Second)
	set(&r.FirstAck, 15*time.Second)
	set(&r.Failover, 15*time.Second)
	set(&r.Stuck, time.Minute)
	set(&r.TxnTimeout, time.Minute)
	if r.Holes == nil {
		r.Holes = func(string) bool { return false }
	}
}

// Violation is one broken invariant and the events that break it.
type Violation struct {
	ID     string // C3
	Detail string
}

func (v Violation) String() string { return v.ID + " " + names[v.ID] + ": " + v.Detail }

var names = map[string]string{
	"C0": "content", "C1": "lost", "C2": "unseen", "C3": "changed", "C4": "duplicate", "C5": "failed-read",
	"C6": "early-read", "C7": "cycle", "C8": "int-poll", "C9": "poll", "C10": "order", "C11": "torn", "C12": "watermarks", "C13": "offsets", "C14": "exclusive",
	"C15": "copy", "C16": "storage", "C17": "liveness", "C18": "progress",
}

// shownMax is how many violations of one invariant are spelt out.
const shownMax = 25

// Verdict is what a history comes to.
type Verdict struct {
	// Violations are the first of each invariant, in the order of their ids.
	Violations []Violation
	// Broken counts all, by id.
	Broken map[string]int
	Counts Counts
	// Known are the records that are known to be in the log; Scans the complete
	// reads of whole partitions; Watermarks, Fetched and Committed the readings
	// of each kind that were judged.
	Known, Scans, Watermarks, Fetched, Committed int
	Faults, Producers, Consumers                 int
	// Transactions that wrote something, and those of them that were committed for
	// certain, aborted for certain, and neither; Copied records of C15.
	Transactions, Commits, Aborts, Copied int
	// LastsFor is the time of the last event.
	LastsFor time.Duration
}

// OK tells whether nothing is broken.
func (v *Verdict) OK() bool { return len(v.Broken) == 0 }

func (v *Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d events in %v: %d sends (%d acknowledged, %d refused, %d unknown) of %d producers; %d records read in %d polls of %d consumers; %d in the log, %d scans, %d watermarks, %d offset commits, %d fetches of them, %d faults: ",
		v.Counts.Events, v.LastsFor.Round(time.Millisecond), v.Counts.Sends, v.Counts.Acked, v.Counts.Failed,
		v.Counts.Sends-v.Counts.Acked-v.Counts.Failed, v.Producers, v.Counts.Read, v.Counts.Polls, v.Consumers,
		v.Known, v.Scans, v.Watermarks, v.Committed, v.Fetched, v.Faults)
	if v.Transactions > 0 {
		fmt.Fprintf(&b, "%d transactions (%d committed, %d aborted, %d unknown), %d records copied: ", v.Transactions, v.Commits, v.Aborts,
			v.Transactions-v.Commits-v.Aborts, v.Copied)
	}
	if v.OK() {
		b.WriteString("nothing broken")
		return b.String()
	}
	ids := make([]string, 0, len(v.Broken))
	for id, n := range v.Broken {
		ids = append(ids, fmt.Sprintf("%d of %s", n, id))
	}
	slices.Sort(ids)
	fmt.Fprintf(&b, "broken: %s", strings.Join(ids, ", "))
	return b.String()
}

// Check judges the events of a history.
func Check(events []Event, r Rules) *Verdict {
	j := NewJudge(r)
	for i := range events {
		j.Event(&events[i])
	}
	return j.Verdict()
}

// Check judges what was recorded so far. The history must not forget.
func (h *History) Check(r Rules) *Verdict { return Check(h.Events(), r) }

// CheckFile judges the history in a file, without holding all of it.
func CheckFile(path string, r Rules) (*Verdict, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	j := NewJudge(r)
	if err := Read(f, func(e Event) error { j.Event(&e); return nil }); err != nil {
		return nil, fmt.Errorf("history %s: %w", path, err)
	}
	return j.Verdict(), nil
}
