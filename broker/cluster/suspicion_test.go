package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/broker/cluster/peer"
	"github.com/tidemark-io/tidemark/metadata"
)

// timeline drives a suspicion through time.
type timeline struct {
	t   *testing.T
	s   suspicion
	now time.Time
}

func newTimeline(t *testing.T) *timeline {
	tl := &timeline{t: t, now: time.Unix(1000, 0)}
	tl.s.register(metadata.Broker{Incarnation: 7}, tl.now)
	tl.s.connected()
	return tl
}

func (tl *timeline) after(d time.Duration) *timeline {
	tl.now = tl.now.Add(d)
	return tl
}

func (tl *timeline) is(want verdict) *timeline {
	tl.t.Helper()
	if got := tl.s.verdict(tl.now); got != want {
		tl.t.Errorf("%v, want %v", got, want)
	}
	return tl
}

// probes checks when the next probe is due, from now; negative: none is.
func (tl *timeline) probes(want time.Duration) *timeline {
	tl.t.Helper()
	at, ok := tl.s.nextProbe(tl.now)
	switch {
	case !ok && want >= 0:
		tl.t.Errorf("no probe, want one in %v", want)
	case ok && want < 0:
		tl.t.Errorf("a probe in %v, want none", at.Sub(tl.now))
	case ok && at.Sub(tl.now) != want:
		tl.t.Errorf("a probe in %v, want %v", at.Sub(tl.now), want)
	}
	return tl
}

const none = time.Duration(-1)

func TestConnectedPeerIsNotProbed(t *testing.T) {
	newTimeline(t).is(live).probes(none).after(time.Hour).is(live).probes(none)
}

func TestResetAndTwoFailuresMakeASuspect(t *testing.T) {
	tl := newTimeline(t)
	tl.s.disconnected()
	tl.is(live).probes(0)
	tl.s.silent(tl.now)
	tl.is(live).probes(probeAgain).after(probeAgain)
	tl.s.silent(tl.now)
	tl.is(suspect).probes(probeInterval)
	tl.s.connected()
	tl.is(live).probes(none)
}

func TestFailedProbesWithoutResetAreNoSuspicion(t *testing.T) {
	tl := newTimeline(t)
	tl.s.silent(tl.now)
	tl.s.silent(tl.now)
	tl.is(live)
}

func TestAnswerAfterResetClears(t *testing.T) {
	tl := newTimeline(t)
	tl.s.disconnected()
	tl.s.silent(tl.now)
	tl.s.answered(peer.Status{SessionValid: true}, tl.now)
	tl.s.silent(tl.now)
	tl.is(live).probes(probeAgain)
}

func TestHungPeerWhoseSessionEndsIsDead(t *testing.T) {
	tl := newTimeline(t)
	tl.s.vanish(tl.now)
	tl.is(absent).probes(0)
	tl.s.silent(tl.now)
	tl.is(absent)
	tl.s.silent(tl.now)
	tl.is(dead).probes(none)
	tl.s.register(metadata.Broker{Incarnation: 7}, tl.now)
	tl.is(live)
}

func TestSilenceFoundBeforeTheSessionEndedCounts(t *testing.T) {
	tl := newTimeline(t)
	tl.s.disconnected()
	tl.s.silent(tl.now)
	tl.s.silent(tl.now)
	tl.s.vanish(tl.now)
	tl.is(dead)
}

func TestPeerThatAnswersHasTimeToRegister(t *testing.T) {
	tl := newTimeline(t)
	tl.s.vanish(tl.now)
	for range 14 {
		tl.s.answered(peer.Status{}, tl.now)
		tl.is(absent).probes(probeInterval).after(time.Second)
	}
	tl.s.answered(peer.Status{}, tl.now)
	tl.after(999 * time.Millisecond).is(absent)
	if at, ok := tl.s.nextChange(tl.now); !ok || at.Sub(tl.now) != time.Millisecond {
		t.Errorf("next change %v %v", at, ok)
	}
	tl.after(time.Millisecond).is(dead)
}

func TestPeerWithoutSessionAndBucketIsDead(t *testing.T) {
	tl := newTimeline(t)
	tl.s.vanish(tl.now)
	tl.s.answered(peer.Status{StuckFor: 4 * time.Second}, tl.now)
	tl.is(absent)
	tl.s.answered(peer.Status{StuckFor: 5 * time.Second}, tl.now)
	tl.is(dead)
}

func TestPeerThatLeavesIsDeadAtOnce(t *testing.T) {
	tl := newTimeline(t)
	tl.s.register(metadata.Broker{Incarnation: 7, Draining: true}, tl.now)
	tl.is(live)
	tl.s.vanish(tl.now)
	tl.is(dead)
}

func TestStuckPeer(t *testing.T) {
	tl := newTimeline(t)
	tl.s.answered(peer.Status{BucketFailing: true, StuckFor: time.Minute}, tl.now)
	tl.is(live) // its registration does not say so
	tl.s.register(metadata.Broker{Incarnation: 7, BucketFailing: true}, tl.now)
	tl.probes(probeInterval).is(stuck)
	tl.after(3 * time.Second).is(live) // the answer is too old to act on
}

func TestNewPeerHasTimeToBeReached(t *testing.T) {
	tl := &timeline{t: t, now: time.Unix(1000, 0)}
	tl.s.register(metadata.Broker{Incarnation: 7}, tl.now)
	tl.is(live).probes(attendGrace)
	tl.after(attendGrace).probes(0)
	tl.s.silent(tl.now)
	tl.s.silent(tl.now)
	tl.is(suspect)
}

func TestReplacedPeerIsProbedAtOnce(t *testing.T) {
	tl := &timeline{t: t, now: time.Unix(1000, 0)}
	tl.s.register(metadata.Broker{Incarnation: 7}, tl.now)
	tl.s.replaced()
	tl.probes(0)
	tl.s.silent(tl.now)
	tl.s.silent(tl.now)
	tl.is(suspect)
}

func TestMisroutedPeerIsJudgedByItsSession(t *testing.T) {
	tl := &timeline{t: t, now: time.Unix(1000, 0)}
	tl.s.register(metadata.Broker{Incarnation: 7}, tl.now)
	tl.after(attendGrace)
	tl.s.silent(tl.now)
	tl.s.silent(tl.now)
	tl.s.misrouted = true
	tl.is(live)
	tl.s.vanish(tl.now)
	tl.is(dead)
}

func TestCondemnedStaysCondemned(t *testing.T) {
	tl := newTimeline(t)
	tl.s.condemned = true
	tl.s.register(metadata.Broker{Incarnation: 7}, tl.now)
	tl.s.connected()
	tl.is(condemned).probes(none)
	tl.s.vanish(tl.now)
	tl.s.register(metadata.Broker{Incarnation: 7}, tl.now)
	tl.is(condemned)
}

// An address that leads to a later process, this one included, says that the
// peer is gone; one that leads to an earlier process is wrong.
func TestJudge(t *testing.T) {
	d := &detector{self: 5}
	for _, c := range []struct {
		peer, answered metadata.Incarnation
		want           int
	}{{3, 4, newer}, {3, 5, newer}, {7, 5, older}, {7, 6, older}, {7, 8, newer}} {
		if got := d.judge(c.peer, &peer.WrongIncarnationError{Want: c.peer, Got: c.answered}); got != c.want {
			t.Errorf("%d answered in place of %d: judged %d, want %d", c.answered, c.peer, got, c.want)
		}
	}
	if got := d.judge(3, errors.New("connection refused")); got != nobody {
		t.Errorf("nobody answered: judged %d", got)
	}
}
