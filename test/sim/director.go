package sim

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/tiering/audit"
)

const topicName = "t"

// director sees a run through: it starts brokers and clients, does the mishaps
// at their times, heals the world, and has what is left judged.
type director struct {
	w     *World
	hosts []string

	mu     sync.Mutex
	living []*Process // at each host
	extra  []*Process // twins
	lives  int

	clients sync.WaitGroup
	streams []*stream
}

func (w *World) direct() {
	d := &director{w: w, hosts: hosts(w.weather.brokers)}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	for i := range d.hosts {
		d.living = append(d.living, d.launch(i))
	}
	if !d.createTopic(ctx) {
		w.judge.broken("liveness", "no topic could be created in a minute")
		d.end()
		return
	}
	writing, stopWriting := context.WithCancel(ctx)
	d.launchClients(ctx, writing)
	d.mishaps()
	d.heal()
	d.verify(ctx, stopWriting)
	stop()
	d.clients.Wait()
	d.end()
	d.audit()
}

// hosts names the hosts of brokers.
func hosts(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("b%d", i+1)
	}
	return out
}

// launch starts a process at a host.
func (d *director) launch(i int) *Process {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lives++
	return d.w.start(d.hosts[i], fmt.Sprintf("%s.%d", d.hosts[i], d.lives))
}

// at is the process at a host.
func (d *director) at(i int) *Process {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.living[i]
}

// replace starts a process in place of old, unless another one has been.
func (d *director) replace(i int, old *Process) {
	if d.at(i) != old {
		return
	}
	p := d.launch(i)
	d.mu.Lock()
	d.living[i] = p
	d.mu.Unlock()
}

func (d *director) addresses() []string {
	var out []string
	for _, h := range d.hosts {
		out = append(out, net.JoinHostPort(h, clientPort))
	}
	return out
}

func (d *director) client(name string) *client {
	return d.w.client(name, topicName, d.addresses()...)
}

func (d *director) abrupt(name string) *client {
	c := d.client(name)
	c.abrupt = true
	return c
}

// createTopic makes the topic that all clients use.
func (d *director) createTopic(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c := d.client("admin")
	defer c.close()
	for ctx.Err() == nil {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Version, req.TimeoutMillis = 7, 5000
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = topicName, d.w.weather.partitions, 1
		req.Topics = append(req.Topics, t)
		resp, err := request[*kmsg.CreateTopicsResponse](ctx, c, c.seed(), req, 6*time.Second)
		if err == nil && (resp.Topics[0].ErrorCode == 0 || resp.Topics[0].ErrorCode == kerr.TopicAlreadyExists.Code) {
			return true
		}
		rest(ctx, 200*time.Millisecond)
	}
	return false
}

func (d *director) launchClients(ctx, writing context.Context) {
	w := d.w
	for p := range w.weather.partitions {
		for i := range 2 {
			name := fmt.Sprintf("w%d.%d", p, i)
			s := &stream{
				w: w, c: d.client(name), d: newDice(w.seed, name), name: name, partition: p,
				history: w.judge.history.Producer(name), window: 5, hasty: i == 0, wanders: i == 1,
			}
			if i == 1 && p%2 == 0 {
				s.window = 1
			}
			d.streams = append(d.streams, s)
			d.clients.Go(func() { s.run(ctx, writing) })
		}
		name := fmt.Sprintf("r%d", p)
		r := &reader{w: w, c: d.client(name), d: newDice(w.seed, name), name: name, partition: p, knows: p%2 == 0}
		r.follow(w.judge.history)
		d.clients.Go(func() { r.run(ctx) })
	}
	name := "plain"
	plain := &stream{w: w, c: d.client(name), d: newDice(w.seed, name), name: name, history: w.judge.history.PlainProducer(name), window: 3, plain: true}
	d.clients.Go(func() { plain.run(ctx, writing) })
	for i := range 2 {
		name := fmt.Sprintf("g%d", i)
		c := &committer{w: w, c: d.abrupt(name), d: newDice(w.seed, name), name: name, group: name}
		d.clients.Go(func() { c.run(ctx) })
	}
	for i := range 3 {
		name := fmt.Sprintf("m%d", i)
		m := &member{w: w, c: d.abrupt(name), d: newDice(w.seed, name), name: name, group: "m", partitions: w.weather.partitions}
		d.clients.Go(func() { m.run(ctx) })
	}
	if w.weather.trims {
		name := "trim"
		t := &trimmer{w: w, c: d.client(name), d: newDice(w.seed, name), partitions: w.weather.partitions}
		d.clients.Go(func() { t.run(writing) })
	}
	for i := range 2 {
		name := fmt.Sprintf("probe%d", i)
		p := &prober{w: w, c: d.client(name), d: newDice(w.seed, name), partitions: w.weather.partitions}
		d.clients.Go(func() { p.run(ctx) })
	}
}

// mishaps does what the weather holds, at its times.
func (d *director) mishaps() {
	begun := d.w.now()
	defer d.w.judge.history.Fault("weather", checker.All).End()
	for _, m := range d.w.weather.plan {
		if wait := begun + m.at - d.w.now(); wait > 0 {
			time.Sleep(wait)
		}
		d.befall(m)
	}
	if wait := begun + d.w.weather.duration - d.w.now(); wait > 0 {
		time.Sleep(wait)
	}
}

// heal ends all faults but those under way: requests that are late arrive still.
func (d *director) heal() {
	w := d.w
	w.note("world", "HEALED", "")
	w.judge.history.Heal()
	w.mu.Lock()
	w.healed = true
	clear(w.cuts)
	clear(w.outages)
	w.mu.Unlock()
	for _, p := range d.extra {
		p.kill()
	}
	for i := range d.hosts {
		if p := d.at(i); p.isDead() || p.stopping.Load() {
			d.replace(i, p)
		} else {
			p.wake()
		}
	}
}

// end stops all processes, some in good order and some not.
func (d *director) end() {
	for _, p := range d.extra {
		p.kill()
	}
	for i := range d.hosts {
		p := d.at(i)
		if newDice(d.w.seed, "end").n(len(d.hosts)+1) == i {
			p.kill()
		} else {
			p.stop()
		}
	}
	d.w.mu.Lock()
	all := append([]*Process(nil), d.w.processes...)
	d.w.mu.Unlock()
	for _, p := range all {
		select {
		case <-p.done:
		case <-time.After(endMax):
			d.w.judge.broken("stop", "%s does not end", p.name)
			p.kill()
			<-p.done
		}
	}
	time.Sleep(time.Minute + time.Second) // for the latest of the late requests
}

// audit proves the bucket and etcd from the outside.
func (d *director) audit() {
	report, err := audit.Run(context.Background(), audit.Config{KV: d.w.keys.Client(), Store: d.w.objects, Grace: 24 * time.Hour, SweepGrace: 24 * time.Hour})
	if err != nil {
		d.w.judge.broken("audit", "%v", err)
		return
	}
	d.w.judge.report = report
}
