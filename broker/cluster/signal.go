package cluster

import "sync"

// signal tells any number of subscribers that something changed. Sends never
// block: a subscriber that has not looked yet will look once for all of them.
type signal struct {
	mu   sync.Mutex // guards subs
	subs map[chan struct{}]struct{}
}

// subscribe returns a channel that yields at least once after any later notify.
func (s *signal) subscribe() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs == nil {
		s.subs = make(map[chan struct{}]struct{})
	}
	s.subs[ch] = struct{}{}
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subs, ch)
	}
}

func (s *signal) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.subs {
		poke(ch)
	}
}

// poke makes a channel of capacity 1 yield once.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// subscribeAll merges the view's changes and those of signals into one channel.
func (n *Node) subscribeAll(signals ...*signal) (<-chan struct{}, func()) {
	out := make(chan struct{}, 1)
	stop := make(chan struct{})
	view, unsubscribe := n.cfg.View.Subscribe()
	forward := func(in <-chan struct{}, done chan<- struct{}) {
		defer func() { done <- struct{}{} }()
		for {
			select {
			case <-stop:
				return
			case <-in:
				poke(out)
			}
		}
	}
	done := make(chan struct{})
	go forward(view, done)
	cancels := []func(){unsubscribe}
	for _, s := range signals {
		in, cancel := s.subscribe()
		cancels = append(cancels, cancel)
		go forward(in, done)
	}
	return out, func() {
		close(stop)
		for _, cancel := range cancels {
			cancel()
			<-done
		}
	}
}
