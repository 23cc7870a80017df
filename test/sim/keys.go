package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

// keys is etcd as one process reaches it.
type keys struct {
	p       *Process
	watches sync.WaitGroup
}

var (
	_ metadata.KV        = (*keys)(nil)
	_ metadata.Compactor = (*keys)(nil)
)

const (
	etcdName = "etcd"
	// callTimeout and watchTimeout are those of the adapter: a call that has no
	// nearer deadline, and the keep-alive of the connection that watches share.
	callTimeout  = 5 * time.Second
	watchTimeout = 9 * time.Second
)

// fate draws what becomes of a request.
func (k *keys) fate(name string, writes bool) fate {
	w := k.p.w
	d := newDice(w.seed, name)
	f := fate{
		there: d.between(100*time.Microsecond, w.weather.etcdLatency), back: d.between(50*time.Microsecond, 500*time.Microsecond),
		withdrawn: d.chance(0.3), survives: d.chance(0.5), stalls: d.chance(0.5), wake: d.between(time.Microsecond, 50*time.Millisecond),
	}
	c := &w.weather.etcd
	switch {
	case w.calm():
		c = &callRates{}
	case w.refuses(etcdName):
		c = &callRates{refused: 1}
	}
	w.weather.draw(d, c, writes, &f, metadata.ErrUnavailable)
	if f.name == "throttled" {
		f.name, f.err, f.lost = "refused", nil, true
		f.early, f.earlyAt = metadata.ErrUnavailable, f.there+f.back
	}
	return f
}

// askEtcd sends one request; whatever keeps the answer away is ErrUnavailable.
func askEtcd[T any](ctx context.Context, k *keys, what, key string, writes bool, apply func() (T, error)) (T, error) {
	w := k.p.w
	name := k.p.name + " " + what + " " + w.label(k.p.name, key)
	if writes {
		name = w.nth(name)
	} else {
		name = w.moment(name)
	}
	f := k.fate(name, writes)
	ctx, cancel := context.WithTimeout(ctx, callTimeout+f.wake) // apart from deadlines of the caller's
	defer cancel()
	v, err := ask(ctx, k.p, etcdName, name, f, apply)
	if err != nil && (errors.Is(err, errDead) || ctx.Err() != nil && errors.Is(err, ctx.Err())) {
		err = fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	return v, err
}

type entries struct {
	list []metadata.Entry
	rev  int64
}

// least names a request of many keys, whatever order they come in.
func least(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return slices.Min(keys)
}

// Get implements metadata.KV.
func (k *keys) Get(ctx context.Context, names ...string) ([]metadata.Entry, int64, error) {
	e, err := askEtcd(ctx, k, "read", least(names), false, func() (entries, error) {
		list, rev, err := k.p.w.etcd.Get(context.Background(), names...)
		return entries{list, rev}, err
	})
	return e.list, e.rev, err
}

// Range implements metadata.KV.
func (k *keys) Range(ctx context.Context, prefix string) ([]metadata.Entry, int64, error) {
	e, err := askEtcd(ctx, k, "range", prefix, false, func() (entries, error) {
		list, rev, err := k.p.w.etcd.Range(context.Background(), prefix)
		return entries{list, rev}, err
	})
	return e.list, e.rev, err
}

// Txn implements metadata.KV.
func (k *keys) Txn(ctx context.Context, t metadata.Txn) (metadata.TxnResult, error) {
	if err := t.Validate(); err != nil {
		return metadata.TxnResult{}, err
	}
	what, touched := "look", make([]string, 0, len(t.Then))
	for _, op := range t.Then {
		what, touched = "write", append(touched, op.Key)
	}
	key := least(touched)
	return askEtcd(ctx, k, what, key, len(t.Then) > 0 && len(t.If) > 0, func() (metadata.TxnResult, error) {
		return k.p.w.etcd.Txn(context.Background(), t)
	})
}

// Grant implements metadata.KV.
func (k *keys) Grant(ctx context.Context, ttl time.Duration) (metadata.LeaseID, error) {
	return askEtcd(ctx, k, "grant", "", false, func() (metadata.LeaseID, error) {
		return k.p.w.etcd.Grant(context.Background(), ttl)
	})
}

// Renew implements metadata.KV.
func (k *keys) Renew(ctx context.Context, id metadata.LeaseID) (time.Duration, error) {
	return askEtcd(ctx, k, "renew", "", false, func() (time.Duration, error) {
		return k.p.w.etcd.Renew(context.Background(), id)
	})
}

// Revoke implements metadata.KV.
func (k *keys) Revoke(ctx context.Context, id metadata.LeaseID) error {
	_, err := askEtcd(ctx, k, "revoke", "", true, func() (struct{}, error) {
		return struct{}{}, k.p.w.etcd.Revoke(context.Background(), id)
	})
	return err
}

// Compact implements metadata.Compactor.
func (k *keys) Compact(ctx context.Context, rev int64) error {
	_, err := askEtcd(ctx, k, "compact", "", false, func() (struct{}, error) {
		return struct{}{}, k.p.w.etcd.Compact(context.Background(), rev)
	})
	return err
}

// Progress implements metadata.KV.
func (k *keys) Progress(ctx context.Context) error {
	_, err := askEtcd(ctx, k, "progress", "", false, func() (struct{}, error) {
		return struct{}{}, k.p.w.etcd.Progress(context.Background())
	})
	return err
}

// Close implements metadata.KV. It waits for the watches, which end with their
// contexts or with the process.
func (k *keys) Close() error {
	k.watches.Wait()
	return nil
}

// Watch implements metadata.KV: what etcd delivers is parked on its way.
func (k *keys) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	out := make(chan metadata.Events, 1)
	k.watches.Go(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		err := k.watch(ctx, prefix, from, out)
		select {
		case out <- metadata.Events{Err: err}:
		case <-ctx.Done():
		case <-k.p.gone:
		}
	})
	return out
}

func (k *keys) watch(ctx context.Context, prefix string, from int64, out chan<- metadata.Events) error {
	w := k.p.w
	if err := k.pass(ctx, "watch "+prefix); err != nil {
		return err
	}
	in := w.etcd.Watch(ctx, prefix, from)
	for {
		var events metadata.Events
		select {
		case events = <-in:
		case <-ctx.Done():
			return ctx.Err()
		case <-k.p.gone:
			return metadata.ErrUnavailable
		}
		if events.Err != nil {
			return events.Err
		}
		if err := k.pass(ctx, "deliver "+prefix); err != nil {
			return err
		}
		select {
		case out <- events:
		case <-ctx.Done():
			return ctx.Err()
		case <-k.p.gone:
			return metadata.ErrUnavailable
		}
	}
}

// pass returns when a message of a watch has got through, or with what ends the
// watch.
func (k *keys) pass(ctx context.Context, what string) error {
	name := k.p.w.moment(k.p.name + " " + what)
	f := k.fate(name, false)
	if f.early != nil || f.err != nil || f.lost {
		k.p.w.note(k.p.name, "watch cut", name)
		return metadata.ErrUnavailable
	}
	limited, cancel := context.WithTimeout(ctx, watchTimeout+f.wake)
	defer cancel()
	_, err := ask(limited, k.p, etcdName, name, f, func() (struct{}, error) { return struct{}{}, nil })
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
	}
	return nil
}
