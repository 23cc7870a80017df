package metadata

// Subscribe returns a channel that can be received from at least once after any
// change of the View, and a function that ends the subscription. Changes that
// come faster than they are received are one.
func (v *View) Subscribe() (ch <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.subscribers[c] = true
	return c, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.subscribers, c)
	}
}

func (v *View) notify() {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for c := range v.subscribers {
		signal(c)
	}
	for c := range v.changes {
		if len(c.set) > 0 || c.all {
			signal(c.ch)
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already
	}
}

// maxPartitionChanges bounds what is remembered for a subscriber that does not
// ask; beyond it, everything counts as changed.
const maxPartitionChanges = 1 << 16

// PartitionChanges tells which partitions changed, for subscribers whose work
// should follow the change and not the size of the cluster.
type PartitionChanges struct {
	v   *View
	ch  chan struct{}
	set map[TopicPartition]bool // guarded by v.mu
	all bool                    // guarded by v.mu
}

// SubscribePartitions begins to collect; everything counts as changed at first.
// Close ends it.
func (v *View) SubscribePartitions() *PartitionChanges {
	c := &PartitionChanges{v: v, ch: make(chan struct{}, 1), set: make(map[TopicPartition]bool), all: true}
	signal(c.ch)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.changes[c] = true
	return c
}

// Changed can be received from at least once after a partition changed.
func (c *PartitionChanges) Changed() <-chan struct{} { return c.ch }

// Take returns the partitions that were written or removed since the last call,
// or all when they could not be remembered: then every one may have changed.
func (c *PartitionChanges) Take() (changed []TopicPartition, all bool) {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	all, c.all = c.all, false
	for tp := range c.set {
		changed = append(changed, tp)
	}
	clear(c.set)
	return changed, all
}

// Close ends the subscription.
func (c *PartitionChanges) Close() {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	delete(c.v.changes, c)
}

func (v *View) partitionChangedLocked(tp TopicPartition) {
	for c := range v.changes {
		if c.all {
			continue
		}
		if c.set[tp] = true; len(c.set) > maxPartitionChanges {
			c.all = true
			clear(c.set)
		}
	}
}
