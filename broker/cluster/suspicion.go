package cluster

import (
	"time"

	"github.com/tidemark-io/tidemark/broker/cluster/peer"
	"github.com/tidemark-io/tidemark/metadata"
)

// verdict is what this broker holds of another one.
type verdict int

const (
	// unknown: never seen registered by this process. Unless the view shows
	// it, it died before.
	unknown verdict = iota
	// live: registered, and nothing speaks against it.
	live
	// suspect: registered, but its connection broke and it does not answer.
	suspect
	// stuck: registered and answering, but it cannot write to the bucket while
	// others can.
	stuck
	// absent: its session is gone. It is being probed, or answers and has time
	// to register again.
	absent
	// dead: its session is gone and it does not answer, or its time is over.
	dead
	// condemned: its chain is being sealed, or is sealed. There is no way back.
	condemned
)

var verdictNames = [...]string{"unknown", "live", "suspect", "stuck", "absent", "dead", "condemned"}

func (v verdict) String() string { return verdictNames[v] }

const (
	// probeAgain is when the second probe is sent after the first, and
	// probeTimeout how long each may take: two failures fit into 500 ms.
	probeAgain   = 150 * time.Millisecond
	probeTimeout = 250 * time.Millisecond
	// probeInterval paces probes of a broker that stays in doubt.
	probeInterval = time.Second
	// probesFailed is how many failures in a row count as silence.
	probesFailed = 2
	// attendGrace is how long a newly registered broker may take until the first
	// connection to it stands, before that counts as a broken one.
	attendGrace = 3 * time.Second
	// registerGrace is how long a broker that answers may be without a session
	// while etcd works: its lease may have lapsed while etcd had no leader.
	registerGrace = 15 * time.Second
	// stuckLimit is how long a broker alone may be unable to write.
	stuckLimit = 5 * time.Second
)

// suspicion is the evidence about one peer. It is a value machine: events go
// in with the time, verdict and nextProbe come out.
type suspicion struct {
	broker     metadata.Broker // as last registered
	registered bool
	since      time.Time // when registered last changed

	attended bool // a stream to it is open
	ever     bool // there has been one since it registered

	failures  int // probes failed in a row
	lastProbe time.Time
	status    peer.Status // of the last probe that was answered
	statusAt  time.Time
	// misrouted: its address led to an older broker, which
	// says something about the configuration and nothing about the peer.
	misrouted bool

	condemned bool
}

func (s *suspicion) register(b metadata.Broker, now time.Time) {
	if !s.registered {
		*s = suspicion{registered: true, since: now, attended: s.attended, ever: s.attended, condemned: s.condemned}
	}
	s.broker = b
}

func (s *suspicion) vanish(now time.Time) {
	if !s.registered {
		return
	}
	s.registered, s.since, s.statusAt = false, now, time.Time{}
	if s.failures < probesFailed { // silence that was found already still counts
		s.failures, s.lastProbe = 0, time.Time{}
	}
}

func (s *suspicion) connected() {
	s.attended, s.ever, s.failures, s.misrouted = true, true, 0, false
}

func (s *suspicion) disconnected() {
	if s.attended {
		s.attended, s.failures, s.lastProbe = false, 0, time.Time{}
	}
}

// replaced records that a newer process answers at its address, which is as
// good as a broken connection.
func (s *suspicion) replaced() {
	if s.attended || !s.ever {
		s.attended, s.ever, s.failures, s.lastProbe = false, true, 0, time.Time{}
	}
}

func (s *suspicion) answered(st peer.Status, now time.Time) {
	s.failures, s.status, s.statusAt, s.lastProbe, s.misrouted = 0, st, now, now, false
}

// silent records a failed probe that was begun at the time given.
func (s *suspicion) silent(begun time.Time) { s.failures, s.lastProbe = s.failures+1, begun }

// lost reports whether there should be a connection and is none.
func (s *suspicion) lost(now time.Time) bool {
	return !s.attended && (s.ever || now.Sub(s.since) >= attendGrace)
}

func (s *suspicion) verdict(now time.Time) verdict {
	switch {
	case s.condemned:
		return condemned
	case !s.registered:
		return s.verdictGone(now)
	case s.lost(now) && s.failures >= probesFailed && !s.misrouted:
		return suspect
	case s.broker.BucketFailing && s.stuckFor(now) >= stuckLimit:
		return stuck
	}
	return live
}

func (s *suspicion) verdictGone(now time.Time) verdict {
	switch {
	case s.broker.Draining: // it left on purpose
		return dead
	case s.failures >= probesFailed:
		return dead
	case s.stuckFor(now) >= stuckLimit: // neither etcd nor the bucket
		return dead
	case now.Sub(s.since) >= registerGrace:
		return dead
	}
	return absent
}

// stuckFor is how long the peer has been unable to write, as far as a recent
// answer tells.
func (s *suspicion) stuckFor(now time.Time) time.Duration {
	if s.statusAt.IsZero() || now.Sub(s.statusAt) > 2*probeInterval {
		return 0
	}
	return s.status.StuckFor
}

// nextProbe says when the peer should be probed next, if at all: nobody is
// probed without a reason.
func (s *suspicion) nextProbe(now time.Time) (time.Time, bool) {
	switch {
	case s.condemned, s.verdict(now) == dead:
		return time.Time{}, false
	case s.registered && s.attended && !s.broker.BucketFailing:
		return time.Time{}, false
	case s.registered && !s.attended && !s.ever && !s.lost(now):
		return s.since.Add(attendGrace), true
	case s.lastProbe.IsZero():
		return now, true
	case s.failures == 1:
		return s.lastProbe.Add(probeAgain), true
	}
	return s.lastProbe.Add(probeInterval), true
}

// nextChange says when the verdict may change by the passing of time alone.
func (s *suspicion) nextChange(now time.Time) (time.Time, bool) {
	if s.verdict(now) == absent {
		return s.since.Add(registerGrace), true
	}
	return time.Time{}, false
}
