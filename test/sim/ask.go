package sim

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

var (
	errDead  = errors.New("the process is dead")
	errReset = errors.New("connection reset")
	errEOF   = io.EOF
)

// fate is what becomes of one request to the bucket or to etcd. The zero value
// with delays is a request that is answered.
type fate struct {
	name        string // of the fault; empty: none
	there, back time.Duration
	// lost: it never arrives. Otherwise it is applied when it arrives, however
	// long its sender has been gone.
	lost bool
	// early, if set, is answered after earlyAt, whether or not the request has
	// arrived: a reset connection.
	early   error
	earlyAt time.Duration
	// err, if set, is answered in place of what came of it.
	err error
	// again, if not 0, has it applied once more so long after the first time.
	again time.Duration
	// withdrawn: not applied if the sender gave up before it arrived.
	withdrawn bool
	// survives: applied although the process died before it arrived.
	survives bool
	// stalls: held back by a pause of its process that begins after it was sent.
	stalls bool
	// wake is by how much a request held back goes on after the others.
	wake time.Duration
}

// ask sends a request from a process to a service, has the scheduler apply it,
// and waits for the answer, for ctx, or for the end of the process. apply may
// run later, and again, when nobody waits any more.
func ask[T any](ctx context.Context, p *Process, service, name string, f fate, apply func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	if p.isDead() {
		return none, errDead
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	w := p.w
	answers := make(chan answer, 1)
	reply := func(a answer) {
		select {
		case answers <- a:
		default: // answered already
		}
	}
	var abandoned atomic.Bool
	tie := newDice(w.seed, name).next()
	if f.name != "" {
		w.count(f.name)
		w.note(p.name, f.name, name)
	}
	back := func(a answer) {
		w.park(&event{due: w.now() + f.back, tie: tie, name: name, run: func() time.Duration {
			if wait := max(w.cut(service, p.host), p.paused()); wait > 0 {
				return wait + f.wake
			}
			reply(a)
			return 0
		}})
	}
	sent := w.now()
	w.park(&event{due: sent + f.there, tie: tie, name: name, run: func() time.Duration {
		wait := w.cut(p.host, service)
		if f.stalls || p.pausedBefore(sent) {
			wait = max(wait, p.paused())
		}
		if wait > 0 {
			return wait + f.wake
		}
		if f.lost || f.withdrawn && abandoned.Load() || p.isDead() && !f.survives {
			w.note(p.name, "lost", name)
			return 0
		}
		v, err := apply()
		w.note(p.name, "applied", name+outcome(err))
		if f.err != nil {
			v, err = none, f.err
		}
		if f.early == nil {
			back(answer{v, err})
		}
		return 0
	}})
	if f.early != nil {
		w.after(f.earlyAt, name, func() { reply(answer{none, f.early}) })
	}
	if f.again > 0 {
		w.after(f.there+f.again, name, func() {
			_, err := apply()
			w.note(p.name, "applied again", name+outcome(err))
		})
	}
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		abandoned.Store(true)
		w.note(p.name, "gave up", name)
		return none, ctx.Err()
	case <-p.gone:
		return none, errDead
	}
}

func outcome(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}
