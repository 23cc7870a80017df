package s3proxy

import (
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"
)

// Op is a kind of request.
type Op string

const (
	Put    Op = "PUT"
	Get    Op = "GET"
	Head   Op = "HEAD"
	Delete Op = "DELETE"
	List   Op = "LIST"
	Any    Op = ""
)

// Mode is what becomes of a request.
type Mode string

const (
	SlowDown     Mode = "503 SlowDown"
	Internal     Mode = "500"
	Expired      Mode = "403 ExpiredToken"
	Conflict     Mode = "409"
	HangBefore   Mode = "hang before forward" // for Delay, then a reset
	AmbiguousOK  Mode = "ambiguous-ok"        // forwarded; the success is not told
	Late         Mode = "late"                // reset, and forwarded after Delay
	Slow         Mode = "slow"                // the body, Rate bytes a second
	Truncate     Mode = "truncated"           // the body ends early
	TruncateHide Mode = "truncated, length rewritten"
	Flip         Mode = "one bit flipped" // of the answer to GET, of the body of PUT
	MissingOnce  Mode = "404 once"        // the first GET or HEAD of a key
	ListEmpty    Mode = "LIST empty"
	ListStale    Mode = "LIST stale" // what the same LIST said before the rule
	ListCut      Mode = "LIST cut"
)

// Rule picks requests. Each field that is set narrows it.
type Rule struct {
	Mode Mode
	Op   Op
	Key  *regexp.Regexp // of the key in the bucket
	// Probability that a request that matches is hit; 0 means always.
	Probability float64
	// Count is the most hits; 0: any number.
	Count int
	// Delay, and by chance up to Spread more, is for modes that wait.
	Delay, Spread time.Duration
	// Rate is for Slow; 64 KiB/s when 0.
	Rate int
}

// Active is a rule at work.
type Active struct {
	rule  Rule
	proxy *Proxy

	mu       sync.Mutex // guards what follows
	seen     int
	hit      int
	outcomes map[string]int
	told     map[string]bool // keys that MissingOnce has denied
	begun    time.Time
}

// Counts tells what a rule did. Outcomes are the modes' own words: what the
// store answered to a request that was damaged, late or whose success was kept
// from the client, by status.
type Counts struct {
	Seen, Hit int
	Outcomes  map[string]int
}

// Counts returns the counts so far.
func (a *Active) Counts() Counts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Counts{a.seen, a.hit, maps.Clone(a.outcomes)}
}

// Remove ends the rule. What it delayed is still delivered.
func (a *Active) Remove() {
	p := a.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = slices.DeleteFunc(p.rules, func(b *Active) bool { return a == b })
}

func (a *Active) outcome(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.outcomes[what]++
}

// toldMax bounds the keys a rule remembers.
const toldMax = 1 << 17

// wants decides about one request; chance is uniform in [0, 1).
func (a *Active) wants(op Op, key string, chance float64) bool {
	r := a.rule
	if r.Op != Any && r.Op != op || r.Key != nil && !r.Key.MatchString(key) || !r.Mode.fits(op) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Mode == MissingOnce && (a.told[key] || len(a.told) >= toldMax) {
		return false
	}
	a.seen++
	if r.Count > 0 && a.hit >= r.Count || r.Probability > 0 && chance >= r.Probability {
		return false
	}
	a.hit++
	if r.Mode == MissingOnce {
		a.told[key] = true
	}
	return true
}

// fits tells whether a mode means anything for an operation.
func (m Mode) fits(op Op) bool {
	switch m {
	case AmbiguousOK, Late, Conflict:
		return op == Put || op == Delete
	case Truncate, TruncateHide:
		return op == Get
	case Slow, Flip:
		return op == Get || op == Put
	case MissingOnce:
		return op == Get || op == Head
	case ListEmpty, ListStale, ListCut:
		return op == List
	}
	return true
}
