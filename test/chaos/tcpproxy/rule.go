package tcpproxy

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Action is what a rule does to a request.
type Action int

const (
	// Hold delivers the request, and what follows on its connection, late.
	Hold Action = iota
	// HoldAndDrop resets the client's connection at once and still delivers what
	// it had sent, late: by then the client has moved to another connection.
	HoldAndDrop
	// Refuse answers a produce request with Code for every partition. The server
	// never sees it.
	RefuseProduce
	// CutBeforeReply delivers the request, takes the reply and resets both sides:
	// the request had its effect and its client cannot know.
	CutBeforeReply
	// CutBeforeRequest resets both sides instead of delivering the request.
	CutBeforeRequest
)

// Rule picks Kafka requests and says what happens to them.
type Rule struct {
	Key    int16 // the API
	Match  func(req kmsg.Request) bool
	Action Action
	// Delay is how long Hold and HoldAndDrop hold.
	Delay time.Duration
	// Code is the error of RefuseProduce.
	Code int16
	// Probability that a request that matches is hit; 0 means always.
	Probability float64
	// Count is the most hits; 0: any number.
	Count int
}

// Active is a rule at work.
type Active struct {
	rule  Rule
	owner *rules

	// Guarded by owner.mu.
	seen, hit, applied, done int
}

// Counts tells what a rule did. Seen requests matched; Hit ones were picked;
// Done ones had what the rule does happen to them; Applied ones are those of
// CutBeforeReply whose lost reply said that a produce had been written.
type Counts struct{ Seen, Hit, Done, Applied int }

// Counts returns the counts so far.
func (a *Active) Counts() Counts {
	a.owner.mu.Lock()
	defer a.owner.mu.Unlock()
	return Counts{a.seen, a.hit, a.done, a.applied}
}

// Remove ends the rule. What it holds stays held.
func (a *Active) Remove() {
	a.owner.mu.Lock()
	defer a.owner.mu.Unlock()
	a.owner.active = slices.DeleteFunc(a.owner.active, func(b *Active) bool { return a == b })
}

type rules struct {
	mu     sync.Mutex // guards what follows and the counts of every Active
	active []*Active
	random *rand.Rand
}

// NewKafka is New for a Kafka listener. The seed decides what rules pick.
func NewKafka(addr, target string, seed uint64) (*Proxy, error) {
	return open(addr, target, nil, &rules{random: rand.New(rand.NewPCG(seed, 1))})
}

// Add puts a rule to work, on open connections too. The proxy must be a Kafka
// proxy. The first rule that picks a request has it.
func (p *Proxy) Add(r Rule) *Active {
	p.frames.mu.Lock()
	defer p.frames.mu.Unlock()
	a := &Active{rule: r, owner: p.frames}
	p.frames.active = append(p.frames.active, a)
	return a
}

// wanted tells whether any rule looks at requests of this API.
func (r *rules) wanted(key int16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.active, func(a *Active) bool { return a.rule.Key == key })
}

// pick returns the rule that has the request, or nil.
func (r *rules) pick(req kmsg.Request) *Active {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.active {
		if a.rule.Key != req.Key() || a.rule.Match != nil && !a.rule.Match(req) {
			continue
		}
		a.seen++
		if a.rule.Count > 0 && a.hit >= a.rule.Count || a.rule.Probability > 0 && r.random.Float64() >= a.rule.Probability {
			continue
		}
		a.hit++
		return a
	}
	return nil
}

func (r *rules) did(a *Active, applied bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.done++
	if applied {
		a.applied++
	}
}
