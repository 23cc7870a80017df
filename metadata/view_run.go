package metadata

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// Run keeps the View until ctx is done, and then returns nil. While the store
// is away the View stays as it was.
func (v *View) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, p := range v.parts {
		wg.Go(func() { v.follow(ctx, p) })
	}
	wg.Wait()
	return nil
}

// follow lists a part and watches it from there. It goes on from where a watch
// ended if it can, and lists again if it cannot.
func (v *View) follow(ctx context.Context, p *viewPart) {
	var b backoff
	listed := false
	for ctx.Err() == nil {
		var err error
		if !listed {
			err = v.list(ctx, p)
			listed = err == nil
		}
		if listed {
			var got bool
			got, err = v.watch(ctx, p)
			if got {
				b = backoff{}
			}
			listed = errors.Is(err, ErrUnavailable) && v.canGoOn(ctx, p)
		}
		if ctx.Err() != nil {
			return
		}
		v.log.LogAttrs(ctx, slog.LevelInfo, "metadata watch interrupted",
			slog.String(logPrefix, p.prefix), slog.Bool("list", !listed), slog.Any(logError, err))
		_ = b.wait(ctx)
	}
}

func (v *View) list(ctx context.Context, p *viewPart) error {
	entries, rev, err := v.kv.Range(ctx, p.prefix)
	if err != nil {
		return err
	}
	v.applyList(p, entries, rev)
	return nil
}

// watch applies changes until the watch ends, and tells whether there were any.
func (v *View) watch(ctx context.Context, p *viewPart) (got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// From the revision applied, not the one after it: a watch from a revision
	// that is still to come cannot report progress.
	for events := range v.kv.Watch(ctx, p.prefix, v.partRevision(p)) {
		if events.Err != nil {
			return got, events.Err
		}
		got = true
		v.applyEvents(p, events)
	}
	return got, ErrUnavailable
}

// canGoOn reports whether the store still is where the part has come to. One
// that was restored from a backup is not, and a watch from a revision it has
// yet to reach would be silent.
func (v *View) canGoOn(ctx context.Context, p *viewPart) bool {
	_, now, err := v.kv.Get(ctx, KeyIdentity)
	return err == nil && now >= v.partRevision(p)
}

func (v *View) partRevision(p *viewPart) int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return p.revision
}
