package audit

import (
	"context"
	"sync"
	"time"
)

// Progress tells how far a running audit has come.
type Progress struct {
	Chains, ChainsDone         int64
	Partitions, PartitionsDone int64
	Slots, Extents, Bytes      int64
	Problems                   int64
}

// reportProgress calls Config.Progress until stop is called.
func (a *auditor) reportProgress(ctx context.Context) (stop func()) {
	if a.cfg.Progress == nil {
		return func() {}
	}
	interval := a.cfg.ProgressInterval
	if interval <= 0 {
		interval = defaultProgress
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				a.cfg.Progress(a.progress())
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (a *auditor) progress() Progress {
	return Progress{
		Chains: a.chainsSeen.Load(), ChainsDone: a.chainsDone.Load(),
		Partitions: a.partitionsSeen.Load(), PartitionsDone: a.partitionsDone.Load(),
		Slots: a.slots.Load(), Extents: a.extents.Load(), Bytes: a.bytesRead.Load(), Problems: a.out.problems(),
	}
}
