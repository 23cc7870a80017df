package etcd

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tidemark-io/tidemark/metadata"
)

// Watch implements metadata.KV.
func (k *KV) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	out := make(chan metadata.Events, 1)
	k.running.Add(1)
	k.watches.Add(1)
	go func() {
		defer k.running.Done()
		defer k.watches.Add(-1)
		defer close(out)
		k.watch(ctx, prefix, max(from, 1), out)
	}()
	return out
}

// watch forwards changes, gathering those that come faster than they are taken.
func (k *KV) watch(ctx context.Context, prefix string, from int64, out chan<- metadata.Events) {
	wctx, cancel := context.WithCancel(k.watchContext(ctx))
	defer cancel()
	defer context.AfterFunc(k.closing, cancel)()
	in := k.watcher.Watch(wctx, string(k.key(prefix)), clientv3.WithPrefix(), clientv3.WithRev(from))
	var pending metadata.Events
	for {
		var deliver chan<- metadata.Events
		if pending.Revision != 0 {
			deliver = out
		}
		select {
		case resp, ok := <-in:
			if err := watchError(resp, ok); err != nil {
				k.endWatch(ctx, out, deliver, pending, err)
				return
			}
			k.gather(&pending, resp)
			if len(pending.Events) > watchBacklogMax {
				k.endWatch(ctx, out, nil, pending, metadata.ErrCompacted)
				return
			}
		case deliver <- pending:
			pending = metadata.Events{}
		}
	}
}

// watchContext makes all watches share one stream, which etcd ends when the
// member it is connected to has no leader: else the watch would be silent.
func (k *KV) watchContext(ctx context.Context) context.Context {
	return clientv3.WithRequireLeader(ctx)
}

func watchError(resp clientv3.WatchResponse, ok bool) error {
	if !ok {
		return metadata.ErrUnavailable
	}
	err := resp.Err()
	switch {
	case err == nil:
		return nil
	case resp.CompactRevision != 0 || errors.Is(err, rpctypes.ErrCompacted):
		return metadata.ErrCompacted
	}
	return ours(err)
}

// gather appends a response. Its events are whole revisions: fragments are not
// asked for.
func (k *KV) gather(pending *metadata.Events, resp clientv3.WatchResponse) {
	for _, ev := range resp.Events {
		e := k.entry(ev.Kv)
		deleted := ev.Type == clientv3.EventTypeDelete
		if deleted {
			e = metadata.Entry{Key: e.Key, ModRevision: e.ModRevision}
		}
		pending.Events = append(pending.Events, metadata.Event{Entry: e, Deleted: deleted})
		pending.Revision = max(pending.Revision, e.ModRevision)
	}
	if resp.IsProgressNotify() {
		pending.Revision = max(pending.Revision, resp.Header.Revision)
	}
}

// endWatch delivers what is left, if deliver is set, and the error.
func (k *KV) endWatch(ctx context.Context, out, deliver chan<- metadata.Events, pending metadata.Events, err error) {
	if ctx.Err() != nil {
		select {
		case out <- metadata.Events{Err: ctx.Err()}:
		default: // nobody may be receiving any more
		}
		return
	}
	if deliver != nil {
		select {
		case deliver <- pending:
		case <-ctx.Done():
			return
		case <-k.closing.Done():
			return
		}
	}
	select {
	case out <- metadata.Events{Err: err}:
	case <-ctx.Done():
	case <-k.closing.Done():
	}
}

// Progress implements metadata.KV.
func (k *KV) Progress(ctx context.Context) error {
	if k.watches.Load() == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.cfg.CallTimeout)
	defer cancel()
	return ours(k.watcher.RequestProgress(k.watchContext(ctx)))
}

// keepProgress asks for progress now and then until the KV is closed.
func (k *KV) keepProgress() {
	defer k.running.Done()
	t := time.NewTicker(progressEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := k.Progress(k.closing); err != nil {
				k.cfg.Log.LogAttrs(k.closing, slog.LevelDebug, "etcd watch progress request failed", slog.Any("error", err))
			}
		case <-k.closing.Done():
			return
		}
	}
}
