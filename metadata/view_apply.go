package metadata

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// viewPart is one prefix of the View, listed and watched by itself.
type viewPart struct {
	prefix string
	// put and remove apply a change of one key; mu is held.
	put    func(e Entry) error
	remove func(key string)

	// revision up to which every change of the prefix was applied; 0 before the
	// first list.
	revision int64
	// held is the revision each key of the prefix was last modified at.
	held map[string]int64
}

// newParts names the prefixes. Those of group state and of chains are left out:
// they change all the time and only their owners read them. Topic names are
// left out because topics bear them.
func (v *View) newParts() []*viewPart {
	parts := []*viewPart{
		{prefix: PrefixBrokers, put: v.putBroker, remove: v.removeBroker},
		{prefix: KeyController, put: v.putController, remove: v.removeController},
		{prefix: PrefixTopics, put: v.putTopic, remove: v.removeTopic},
		{prefix: PrefixPartitions, put: v.putPartition, remove: v.removePartition},
		{prefix: PrefixCoordinators, put: v.putCoordinator, remove: v.removeCoordinator},
		{prefix: PrefixConfigs, put: v.putConfig, remove: v.removeConfig},
	}
	for _, p := range parts {
		p.held = make(map[string]int64)
	}
	return parts
}

// applyEvents applies what a watch of p delivered.
func (v *View) applyEvents(p *viewPart, events Events) {
	v.mu.Lock()
	changed := false
	var bad []error
	for _, ev := range events.Events {
		e := ev.Entry
		if e.ModRevision <= p.revision {
			continue // seen by the list, or the watch, that this one went on from
		}
		changed = true
		if ev.Deleted {
			v.removeLocked(p, e.Key)
		} else {
			bad = v.putLocked(p, e, bad)
		}
	}
	v.movedLocked(p, events.Revision)
	v.mu.Unlock()
	v.report(bad)
	if changed {
		v.notify()
	}
}

// applyList makes p what was listed at rev, noticing what has gone.
func (v *View) applyList(p *viewPart, entries []Entry, rev int64) {
	v.mu.Lock()
	first := p.revision == 0
	changed := first
	var bad []error
	listed := make(map[string]bool, len(entries))
	for _, e := range entries {
		listed[e.Key] = true
		if p.held[e.Key] != e.ModRevision {
			changed = true
			bad = v.putLocked(p, e, bad)
		}
	}
	for key := range p.held {
		if !listed[key] {
			changed = true
			v.removeLocked(p, key)
		}
	}
	p.revision = 0 // a store that was restored may have gone back
	v.movedLocked(p, rev)
	ready := first && v.revisionLocked() > 0
	v.mu.Unlock()
	v.report(bad)
	if ready {
		close(v.ready)
	}
	if changed {
		v.notify()
	}
}

// putLocked applies e, or adds to bad why it cannot: e is of a newer version, or
// broken. What was known before stays then.
func (v *View) putLocked(p *viewPart, e Entry, bad []error) []error {
	p.held[e.Key] = e.ModRevision
	if err := p.put(e); err != nil {
		return append(bad, fmt.Errorf("key %q at revision %d: %w", e.Key, e.ModRevision, err))
	}
	return bad
}

func (v *View) report(bad []error) {
	for _, err := range bad {
		v.log.Error("unreadable metadata ignored", slog.Any(logError, err))
	}
}

func (v *View) removeLocked(p *viewPart, key string) {
	p.remove(key)
	delete(p.held, key)
}

func (v *View) movedLocked(p *viewPart, rev int64) {
	if rev > p.revision {
		p.revision = rev
		close(v.moved)
		v.moved = make(chan struct{})
	}
}

func (v *View) putBroker(e Entry) error {
	b, err := decode[Broker](e)
	if err != nil {
		return err
	}
	if BrokerKey(b.Incarnation) != e.Key {
		return fmt.Errorf("names incarnation %s", b.Incarnation)
	}
	v.brokers[b.Incarnation], v.brokerOrder = &b, nil
	return nil
}

func (v *View) removeBroker(key string) {
	if inc, err := ParseIncarnation(strings.TrimPrefix(key, PrefixBrokers)); err == nil {
		delete(v.brokers, inc)
		v.brokerOrder = nil
	}
}

func (v *View) putController(e Entry) error {
	if e.Key != KeyController {
		return nil
	}
	c, err := decode[Controller](e)
	if err == nil {
		v.controller = &c
	}
	return err
}

func (v *View) removeController(key string) {
	if key == KeyController {
		v.controller = nil
	}
}

func (v *View) putTopic(e Entry) error {
	t, err := decode[Topic](e)
	if err != nil {
		return err
	}
	if TopicKey(t.ID) != e.Key {
		return fmt.Errorf("names topic id %s", t.ID)
	}
	v.topics[t.ID], v.topicNames[t.Name], v.topicOrder = &t, &t, nil
	return nil
}

func (v *View) removeTopic(key string) {
	id, err := ParseTopicIDHex(strings.TrimPrefix(key, PrefixTopics))
	t, ok := v.topics[id]
	if err != nil || !ok {
		return
	}
	delete(v.topics, id)
	// The name may be a younger topic's by now: a list shows both at once.
	if v.topicNames[t.Name] == t {
		delete(v.topicNames, t.Name)
	}
	v.topicOrder = nil
}

func (v *View) putPartition(e Entry) error {
	tp, err := ParsePartitionKey(e.Key)
	if err != nil {
		return err
	}
	p, err := decode[Partition](e)
	if err != nil {
		return err
	}
	v.partitions[tp] = partitionEntry{p: &p, rev: e.ModRevision}
	v.partitionChangedLocked(tp)
	return nil
}

func (v *View) removePartition(key string) {
	if tp, err := ParsePartitionKey(key); err == nil {
		delete(v.partitions, tp)
		v.partitionChangedLocked(tp)
	}
}

func parseShard(key string) (int, error) {
	return strconv.Atoi(strings.TrimPrefix(key, PrefixCoordinators))
}

func (v *View) putCoordinator(e Entry) error {
	shard, err := parseShard(e.Key)
	if err != nil {
		return err
	}
	c, err := decode[Coordinator](e)
	if err == nil {
		v.coordinators[shard] = coordinatorEntry{c: c, rev: e.ModRevision}
	}
	return err
}

func (v *View) removeCoordinator(key string) {
	if shard, err := parseShard(key); err == nil {
		delete(v.coordinators, shard)
	}
}

func (v *View) putConfig(e Entry) error {
	configs, err := parseConfigs(e)
	if err == nil {
		v.configs[e.Key] = configs
	}
	return err
}

func (v *View) removeConfig(key string) { delete(v.configs, key) }
