package tiering

import (
	"context"
	"sync"
)

// tasks owns goroutines that are started on demand. After stop none starts. The
// zero value is ready.
type tasks struct {
	mu      sync.Mutex
	stopped bool
	ctx     context.Context // of every task; ends with stop
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// run starts f unless the owner is stopping. f's context ends when it stops, and
// carries nothing else.
func (t *tasks) run(f func(context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	if t.ctx == nil {
		t.ctx, t.cancel = context.WithCancel(context.Background())
	}
	ctx := t.ctx
	t.wg.Go(func() { f(ctx) })
	return true
}

// stop ends what runs, waits for it, and refuses what comes.
func (t *tasks) stop() {
	t.mu.Lock()
	t.stopped = true
	if t.cancel != nil {
		t.cancel()
	}
	t.mu.Unlock()
	t.wg.Wait()
}
