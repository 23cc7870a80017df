package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

// befall does one mishap.
func (d *director) befall(m mishap) {
	w, host := d.w, d.hosts[m.who]
	w.note("world", "MISHAP", fmt.Sprintf("%s %s for %v (%v)", m.kind, host, m.lasts, m.flag))
	w.count(m.kind)
	switch m.kind {
	case "crash":
		d.crash(m.who, m.lasts)
	case "crash all":
		for i := range d.hosts {
			d.crash(i, m.lasts)
		}
	case "stop":
		d.stop(m.who, m.lasts)
	case "pause":
		d.at(m.who).pause(m.lasts)
	case "twin":
		d.lives++
		d.extra = append(d.extra, w.start(host, fmt.Sprintf("%s.%d", host, d.lives)))
	case "cut etcd":
		w.sever(host, etcdName, m.lasts, m.flag)
	case "cut bucket":
		w.sever(host, bucketName, m.lasts, m.flag)
	case "cut peer":
		w.sever(host, d.hosts[m.with], m.lasts, m.flag)
	case "cut clients":
		w.sever(clientsName, host, m.lasts, m.flag)
	case "etcd down":
		w.outage(etcdName, m.lasts, m.flag)
	case "bucket down":
		w.outage(bucketName, m.lasts, m.flag)
	case "leases":
		d.dropLeases()
	case "compact":
		w.keys.Compact(0)
	case "move":
		d.move(int32(m.with), m.who)
	case "reset":
		w.resetAll(host)
	}
}

// crash kills a process, and starts another one after a while.
func (d *director) crash(i int, down time.Duration) {
	p := d.at(i)
	p.kill()
	d.later(i, p, down)
}

// stop ends a process in good order.
func (d *director) stop(i int, down time.Duration) {
	p := d.at(i)
	d.w.note(p.name, "stopping", "")
	p.stopping.Store(true)
	p.stop()
	d.later(i, p, 5*time.Second+down)
}

// later starts a process in place of p, unless that has happened.
func (d *director) later(i int, p *Process, down time.Duration) {
	d.w.after(down, "restart of "+p.name, func() {
		if !d.w.calm() {
			d.replace(i, p)
		}
	})
}

// sever cuts a link, in one direction or both.
func (w *World) sever(a, b string, lasts time.Duration, oneWay bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	until := w.now() + lasts
	w.cuts[[2]string{a, b}] = max(until, w.cuts[[2]string{a, b}])
	if !oneWay {
		w.cuts[[2]string{b, a}] = max(until, w.cuts[[2]string{b, a}])
	}
}

// outage has a service refuse everything, or answer nothing.
func (w *World) outage(service string, lasts time.Duration, silent bool) {
	if silent {
		w.sever("*", service, lasts, true)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outages[service] = max(w.now()+lasts, w.outages[service])
}

// resetAll resets the connections of a host.
func (w *World) resetAll(host string) {
	w.mu.Lock()
	var all []*conn
	for c := range w.conns {
		if c.own == host {
			all = append(all, c)
		}
	}
	w.mu.Unlock()
	for _, c := range all {
		c.reset(newDice(w.seed, c.name+" reset").chance(0.5))
	}
}

// dropLeases ends all sessions, as a pause of etcd's leader may.
func (d *director) dropLeases() {
	entries, _, err := d.w.etcd.Range(context.Background(), metadata.PrefixBrokers)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Lease != 0 {
			d.w.keys.DropLease(e.Lease)
		}
	}
}

// move has a partition prefer another broker, as the controller would.
func (d *director) move(partition int32, to int) {
	ctx := context.Background()
	brokers, _, err := d.w.etcd.Range(ctx, metadata.PrefixBrokers)
	if err != nil || len(brokers) == 0 {
		return
	}
	var b metadata.Broker
	if json.Unmarshal(brokers[to%len(brokers)].Value, &b) != nil {
		return
	}
	entries, _, err := d.w.etcd.Range(ctx, metadata.PrefixPartitions)
	if err != nil || len(entries) == 0 {
		return
	}
	e := entries[int(partition)%len(entries)]
	var p metadata.Partition
	if json.Unmarshal(e.Value, &p) != nil || p.Preferred == b.Incarnation {
		return
	}
	p.Preferred = b.Incarnation
	value, err := json.Marshal(p)
	if err != nil {
		return
	}
	_, _ = d.w.etcd.Txn(ctx, metadata.Txn{If: []metadata.Cond{{Key: e.Key, ModRevision: e.ModRevision}}, Then: []metadata.Op{metadata.Put(e.Key, value)}})
}
