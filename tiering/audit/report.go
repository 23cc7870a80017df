package audit

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// Kinds of problems.
const (
	KindIdentity      = "identity"            // the bucket's side of the cluster's identity
	KindMetadata      = "metadata"            // a value in the metadata store that cannot be
	KindSlotMissing   = "slot-missing"        // an object of a chain is gone
	KindHeadDamaged   = "head-damaged"        // a head fails its checks, or says it is another
	KindChainBroken   = "chain-broken"        // a head does not follow the one before it
	KindChainEnd      = "chain-end"           // the recorded end and the objects contradict each other
	KindFenceMissing  = "fence-missing"       // an end is recorded and nothing closes the chain there
	KindAckBeyondEnd  = "acknowledged-beyond" // a slot at or above the end was acknowledged
	KindCheckpoint    = "checkpoint"          // the recorded checkpoint is missing, damaged or contradicts the heads
	KindTrim          = "trim"                // the trim mark is above the checkpoint
	KindLeadership    = "leadership"          // OPEN, RELEASE and extents of a partition contradict each other
	KindOwners        = "owners"              // the owner list and the chains contradict each other
	KindRebuild       = "rebuild"             // the next leader could not rebuild the partition
	KindManifest      = "manifest"            // ranges with gaps or overlaps, epochs out of order
	KindPage          = "page"                // a manifest page is missing or damaged
	KindObjectMissing = "object-missing"      // a manifest names an object that is gone
	KindExtentDamaged = "extent-damaged"      // the bytes of an extent or of a block fail their checks
	KindSegment       = "segment"             // the index of a segment is damaged or says something else than the manifest
	KindDigest        = "digest"              // a segment holds other batches than the manifest says
	KindBatch         = "batch"               // a record batch contradicts its place or its checksum
	KindSequence      = "sequence"            // a producer's sequence numbers have a gap or a repeat
	KindTransaction   = "transaction"         // batches, markers, and what the rebuilt state says of transactions, do not fit
	KindProducer      = "producer-state"      // the rebuilt producer state is not what the batches say
	KindStray         = "stray"               // objects nothing accounts for, older than the grace
)

// Problem is one broken invariant.
type Problem struct {
	Kind  string `json:"kind"`
	Where string `json:"where"` // chain, partition or key
	What  string `json:"what"`
}

// Stray is a group of objects that nothing accounts for.
type Stray struct {
	Reason  string  `json:"reason"`
	Owner   string  `json:"owner"`
	Objects int64   `json:"objects"`
	Expired int64   `json:"expired"` // of them, older than the grace
	Bytes   int64   `json:"bytes"`
	Oldest  float64 `json:"oldest_seconds"`
	Example string  `json:"example"`
}

// Topic is the total of one topic.
type Topic struct {
	Name        string `json:"name"`
	Partitions  int64  `json:"partitions"`
	Extents     int64  `json:"extents"`  // in write-ahead objects
	Segments    int64  `json:"segments"` // or parts of shared ones
	Pages       int64  `json:"pages"`
	Batches     int64  `json:"batches"`
	Records     int64  `json:"records"`
	Bytes       int64  `json:"bytes"`        // as served
	BytesStored int64  `json:"bytes_stored"` // in the bucket
}

// Totals is what the audit has seen.
type Totals struct {
	Chains       int64 `json:"chains"`
	ChainsSealed int64 `json:"chains_sealed"`
	Slots        int64 `json:"slots"`
	Partitions   int64 `json:"partitions"`
	Extents      int64 `json:"extents"`
	Segments     int64 `json:"segments"`
	Pages        int64 `json:"pages"`
	Batches      int64 `json:"batches"`
	Records      int64 `json:"records"`
	Bytes        int64 `json:"bytes"`
	BytesStored  int64 `json:"bytes_stored"`
	// Objects and ObjectBytes are of the whole bucket below w/, k/, s/, x/ and m/.
	Objects     int64 `json:"objects"`
	ObjectBytes int64 `json:"object_bytes"`
	// OwedObjects and OwedBytes are what deletion still owes: segments and pages of
	// deleted topics, and those that log start offsets have passed.
	OwedObjects int64 `json:"owed_objects"`
	OwedBytes   int64 `json:"owed_bytes"`
	Strays      int64 `json:"strays"`
	Problems    int64 `json:"problems"`
}

// Report is the outcome of an audit.
type Report struct {
	ClusterID  string    `json:"cluster_id"`
	Generation uint16    `json:"generation"`
	Quick      bool      `json:"quick"`
	Topic      string    `json:"topic,omitempty"`
	Seconds    float64   `json:"seconds"`
	Clean      bool      `json:"clean"`
	Totals     Totals    `json:"totals"`
	Topics     []Topic   `json:"topics"`
	Strays     []Stray   `json:"strays"`
	Problems   []Problem `json:"problems"` // the first of them; Totals has their number
}

// Bounds of the lists in a report; the totals go on counting.
const (
	problemsMax = 1000
	straysMax   = 1000
)

// collector gathers findings and totals.
type collector struct {
	mu     sync.Mutex
	r      Report
	topics map[string]*Topic
	strays map[[2]string]*Stray
}

func newCollector() *collector {
	return &collector{topics: make(map[string]*Topic), strays: make(map[[2]string]*Stray)}
}

func (c *collector) setCluster(id string, generation uint16) {
	c.mu.Lock()
	c.r.ClusterID, c.r.Generation = id, generation
	c.mu.Unlock()
}

func (c *collector) problem(p Problem) {
	c.mu.Lock()
	c.problemLocked(p)
	c.mu.Unlock()
}

func (c *collector) problemLocked(p Problem) {
	c.r.Totals.Problems++
	if len(c.r.Problems) < problemsMax {
		c.r.Problems = append(c.r.Problems, p)
	}
}

func (c *collector) problems() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.Totals.Problems
}

// add counts without a topic.
func (c *collector) add(f func(*Totals)) {
	c.mu.Lock()
	f(&c.r.Totals)
	c.mu.Unlock()
}

// topic adds the counts of one partition.
func (c *collector) topic(t Topic) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := c.topics[t.Name]
	if sum == nil {
		sum = &Topic{Name: t.Name}
		c.topics[t.Name] = sum
	}
	sum.Partitions += t.Partitions
	sum.Extents += t.Extents
	sum.Segments += t.Segments
	sum.Pages += t.Pages
	sum.Batches += t.Batches
	sum.Records += t.Records
	sum.Bytes += t.Bytes
	sum.BytesStored += t.BytesStored
	total := &c.r.Totals
	total.Partitions += t.Partitions
	total.Extents += t.Extents
	total.Segments += t.Segments
	total.Pages += t.Pages
	total.Batches += t.Batches
	total.Records += t.Records
	total.Bytes += t.Bytes
	total.BytesStored += t.BytesStored
}

// stray notes an object that nothing accounts for.
func (c *collector) stray(reason, owner, key string, bytes int64, age time.Duration, expired bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.r.Totals.Strays++
	id := [2]string{reason, owner}
	s := c.strays[id]
	if s == nil {
		if len(c.strays) >= straysMax {
			id = [2]string{"more", ""}
		}
		if s = c.strays[id]; s == nil {
			s = &Stray{Reason: id[0], Owner: id[1], Example: key}
			c.strays[id] = s
		}
	}
	s.Objects++
	s.Bytes += bytes
	s.Oldest = max(s.Oldest, age.Seconds())
	if expired {
		s.Expired++
	}
}

// report returns everything, in a stable order. The collector is not used after.
func (c *collector) report() *Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.strays {
		c.r.Strays = append(c.r.Strays, *s)
	}
	slices.SortFunc(c.r.Strays, func(a, b Stray) int {
		return cmp.Or(strings.Compare(a.Reason, b.Reason), strings.Compare(a.Owner, b.Owner))
	})
	for _, s := range c.r.Strays {
		if s.Expired > 0 {
			c.problemLocked(Problem{KindStray, s.Owner, fmt.Sprintf("%s: %d objects past the grace, such as %s", s.Reason, s.Expired, s.Example)})
		}
	}
	for _, t := range c.topics {
		c.r.Topics = append(c.r.Topics, *t)
	}
	slices.SortFunc(c.r.Topics, func(a, b Topic) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(c.r.Problems, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Where, b.Where))
	})
	c.r.Clean = c.r.Totals.Problems == 0
	r := c.r
	if r.Topics == nil {
		r.Topics = []Topic{}
	}
	if r.Strays == nil {
		r.Strays = []Stray{}
	}
	if r.Problems == nil {
		r.Problems = []Problem{}
	}
	return &r
}

// WriteText prints the report for people.
func (r *Report) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "Cluster %s, generation %d, checked in %.1f s", r.ClusterID, r.Generation, r.Seconds)
	if r.Quick {
		fmt.Fprint(w, "; records were not read")
	}
	fmt.Fprintf(w, "\n%d chains (%d sealed), %d slots, %d objects of %d bytes\n\n",
		r.Totals.Chains, r.Totals.ChainsSealed, r.Totals.Slots, r.Totals.Objects, r.Totals.ObjectBytes)
	fmt.Fprintln(t, "partitions\textents\tsegments\tpages\tbatches\trecords\tbytes\tstored\t  topic")
	line := func(p, e, s, g, b, rec, by, st int64, name string) {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t  %s\n", p, e, s, g, b, rec, by, st, name)
	}
	for _, x := range r.Topics {
		line(x.Partitions, x.Extents, x.Segments, x.Pages, x.Batches, x.Records, x.Bytes, x.BytesStored, x.Name)
	}
	total := &r.Totals
	line(total.Partitions, total.Extents, total.Segments, total.Pages, total.Batches, total.Records, total.Bytes, total.BytesStored, "(all)")
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.Strays) > 0 {
		fmt.Fprintf(w, "\n%d strays, objects that nothing accounts for:\n", total.Strays)
	}
	for _, s := range r.Strays {
		fmt.Fprintf(w, "  %s %s: %d objects of %d bytes, the oldest %s old, %d past the grace, such as %s\n",
			s.Reason, s.Owner, s.Objects, s.Bytes, (time.Duration(s.Oldest) * time.Second).String(), s.Expired, s.Example)
	}
	if total.OwedObjects > 0 {
		fmt.Fprintf(w, "\nDeletion still owes %d objects of %d bytes\n", total.OwedObjects, total.OwedBytes)
	}
	fmt.Fprintln(w)
	for _, p := range r.Problems {
		fmt.Fprintf(w, "PROBLEM %s: %s: %s\n", p.Kind, p.Where, p.What)
	}
	if more := total.Problems - int64(len(r.Problems)); more > 0 {
		fmt.Fprintf(w, "and %d problems more\n", more)
	}
	verdict := "clean: no problems"
	if !r.Clean {
		verdict = fmt.Sprintf("%d problems", total.Problems)
	}
	_, err := fmt.Fprintln(w, verdict)
	return err
}
