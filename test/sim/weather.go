package sim

import (
	"time"

	"github.com/tidemark-io/tidemark/broker/node"
)

// weather is what a seed makes of the run: how much goes wrong with requests,
// and what befalls processes and links, and when.
type weather struct {
	duration      time.Duration // until the world is healed
	brokers       int
	partitions    int32
	bucketLatency time.Duration
	etcdLatency   time.Duration
	netLatency    time.Duration

	bucket, etcd             callRates
	flips, truncates, misses float64
	spacing                  time.Duration // of flushes
	tail                     int64         // memory for recent objects: little of it has brokers read the bucket
	plan                     []mishap
	tiering                  node.Tiering
	trims                    bool // records are deleted now and then
	batchPause               time.Duration
	settle                   time.Duration // before the first fault
}

// callRates are probabilities of what may happen to a request.
type callRates struct {
	lost      float64 // never arrives; no answer
	refused   float64 // an error, and not applied
	ambiguous float64 // applied, and an error
	late      float64 // an error, and applied up to a minute later
	again     float64 // applied twice
	throttled float64
	slow      float64
	silent    float64 // applied; no answer
}

func (c *callRates) any() float64 {
	return c.lost + c.refused + c.ambiguous + c.late + c.again + c.throttled + c.slow + c.silent
}

// draw decides about one request.
func (w *weather) draw(d *dice, c *callRates, writes bool, f *fate, reset error) {
	x := d.float()
	hit := func(p float64) bool { x -= p; return x < 0 }
	soon := f.there + f.back
	switch {
	case hit(c.lost):
		f.name, f.lost = "lost", true
		if d.chance(0.7) { // else silence
			f.early, f.earlyAt = reset, soon+d.between(0, 3*time.Second)
		}
	case hit(c.refused):
		f.name, f.lost = "refused", true
		f.early, f.earlyAt = reset, soon
	case hit(c.ambiguous):
		f.name, f.err = "ambiguous", reset
	case hit(c.late):
		f.name, f.early, f.earlyAt, f.withdrawn, f.survives = "late", reset, soon, false, true
		f.there += d.between(0, lateMax(d))
		if !writes {
			f.lost = true
		}
	case hit(c.again):
		if writes {
			f.name, f.again = "twice", d.between(0, lateMax(d))
		}
	case hit(c.throttled):
		f.name = "throttled" // the caller fills in the error
		f.lost = d.chance(0.5)
		if f.lost {
			f.early, f.earlyAt = reset, soon
		}
	case hit(c.slow):
		f.name = "slow"
		f.there += d.between(0, lateMax(d)/4)
		f.back += d.between(0, lateMax(d)/4)
	case hit(c.silent):
		f.name, f.back = "silent", time.Hour
	}
}

// lateMax is mostly seconds, sometimes a minute.
func lateMax(d *dice) time.Duration {
	switch d.n(4) {
	case 0:
		return time.Minute
	case 1:
		return 15 * time.Second
	case 2:
		return 3 * time.Second
	}
	return 300 * time.Millisecond
}

// mishap is something that befalls a process or a link at a time.
type mishap struct {
	at   time.Duration
	kind string
	who  int // index of a broker
	with int // of another one
	// lasts is how long a pause, a cut or an outage takes, or a process is down.
	lasts time.Duration
	flag  bool // one way only; back with the twin; and the like
}

// Kinds of mishaps, and how often each is drawn.
var mishaps = []struct {
	kind   string
	weight int
}{
	{"crash", 4}, {"stop", 2}, {"pause", 5}, {"twin", 1}, {"cut etcd", 3}, {"cut bucket", 3}, {"cut peer", 2}, {"cut clients", 1},
	{"etcd down", 2}, {"bucket down", 1}, {"leases", 2}, {"compact", 1}, {"move", 5}, {"reset", 1}, {"crash all", 1},
}

// forecast makes the weather of a seed.
func forecast(seed uint64) weather {
	d := newDice(seed, "weather")
	w := weather{
		duration: d.between(12*time.Second, 25*time.Second), brokers: 3, partitions: int32(2 + d.n(3)), settle: 1500 * time.Millisecond,
		bucketLatency: d.between(3*time.Millisecond, 40*time.Millisecond),
		etcdLatency:   d.between(500*time.Microsecond, 10*time.Millisecond),
		netLatency:    d.between(100*time.Microsecond, 3*time.Millisecond),
		spacing:       d.between(2*time.Millisecond, 30*time.Millisecond),
		batchPause:    d.between(150*time.Millisecond, 500*time.Millisecond),
		tail:          256 << 20,
	}
	if d.chance(0.3) {
		w.tail = 1 << 10
	}
	rate := func(p float64) float64 {
		if !d.chance(p) {
			return 0
		}
		return []float64{0.003, 0.01, 0.03, 0.1}[d.n(4)]
	}
	w.bucket = callRates{lost: rate(0.3), refused: rate(0.3), ambiguous: rate(0.4), late: rate(0.4), again: rate(0.3), throttled: rate(0.2), slow: rate(0.3), silent: rate(0.2)}
	w.etcd = callRates{lost: rate(0.2), refused: rate(0.2), ambiguous: rate(0.3), late: rate(0.3), again: rate(0.2), throttled: rate(0.1), slow: rate(0.2), silent: rate(0.15)}
	w.flips, w.truncates, w.misses = rate(0.2), rate(0.2), rate(0.2)
	w.plan = w.draws(d)
	if seed%2 == 1 {
		w.tiering = hasty(newDice(seed, "tiering"))
		w.trims = seed%4 == 1
	}
	return w
}

// hasty has brokers tier, trim, collect and sweep all the time: whatever age
// they wait for otherwise is a courtesy, and nothing may rest on it.
func hasty(d *dice) node.Tiering {
	return node.Tiering{
		Interval: d.between(200*time.Millisecond, time.Second), Age: d.between(time.Millisecond, 2*time.Second),
		SegmentBytes: 1 << (10 + d.n(4)), SegmentBytesMax: 1 << 14, BlockBytes: 1 << (8 + d.n(4)),
		CollectInterval: d.between(300*time.Millisecond, 2*time.Second),
		SweepInterval:   d.between(time.Second, 4*time.Second), SweepAge: d.between(time.Millisecond, 2*time.Second),
		CheckpointInterval: d.between(500*time.Millisecond, 4*time.Second), CheckpointSlots: uint64(8 + d.n(64)),
		AbandonedAge: d.between(3*time.Second, 10*time.Second),
		DeleteGrace:  d.between(time.Millisecond, 2*time.Second), RetentionInterval: d.between(10*time.Millisecond, time.Second),
	}
}

// draws makes the list of mishaps, in order of time.
func (w *weather) draws(d *dice) []mishap {
	total := 0
	for _, m := range mishaps {
		total += m.weight
	}
	var plan []mishap
	for at := w.settle + d.between(0, 2*time.Second); at < w.duration-2*time.Second; at += d.between(50*time.Millisecond, 5*time.Second) {
		m := mishap{at: at, who: d.n(w.brokers), flag: d.chance(0.5)}
		m.with = (m.who + 1 + d.n(w.brokers-1)) % w.brokers
		x := d.n(total)
		for _, k := range mishaps {
			if x -= k.weight; x < 0 {
				m.kind = k.kind
				break
			}
		}
		m.lasts = w.lasts(d, m.kind)
		plan = append(plan, m)
	}
	return plan
}

// lasts draws how long a mishap takes. Leases last 6 s.
func (w *weather) lasts(d *dice, kind string) time.Duration {
	switch kind {
	case "crash", "stop", "crash all":
		return d.between(100*time.Millisecond, 6*time.Second)
	case "pause":
		return []time.Duration{3 * time.Second, 7 * time.Second, 13 * time.Second}[d.n(3)] + d.between(-2*time.Second, 2*time.Second)
	}
	return d.between(200*time.Millisecond, 14*time.Second)
}
