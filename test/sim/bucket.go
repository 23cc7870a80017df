package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// store is the bucket as one process reaches it.
type store struct{ p *Process }

var (
	_ object.Store   = store{}
	_ object.Checker = store{}
)

const (
	bucketName = "bucket"
	// requestTimeout is the adapter's, for a request that has no deadline.
	requestTimeout = time.Minute
)

// fate draws what becomes of a request.
func (s store) fate(name string, writes bool) fate {
	w := s.p.w
	d := newDice(w.seed, name)
	f := fate{
		there: d.between(time.Millisecond, w.weather.bucketLatency), back: d.between(200*time.Microsecond, 2*time.Millisecond),
		withdrawn: d.chance(0.3), survives: d.chance(0.5), stalls: d.chance(0.5), wake: d.between(time.Microsecond, 50*time.Millisecond),
	}
	c := &w.weather.bucket
	switch {
	case w.calm():
		c = &callRates{}
	case w.refuses(bucketName):
		c = &callRates{refused: 1}
	}
	w.weather.draw(d, c, writes, &f, errReset)
	if f.name == "throttled" {
		f.err = object.ErrThrottled
	}
	return f
}

// limited gives a request a deadline.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, requestTimeout)
}

// Create implements object.Store.
func (s store) Create(ctx context.Context, key string, data ...[]byte) error {
	w := s.p.w
	name := w.nth(s.p.name + " put " + w.label(s.p.name, key))
	own := slices.Concat(data...)
	ctx, cancel := limited(ctx)
	defer cancel()
	_, err := ask(ctx, s.p, bucketName, name, s.fate(name, true), func() (struct{}, error) {
		err := w.objects.Create(context.Background(), key, own)
		if err == nil {
			w.did("written", key)
		}
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	return nil
}

// Get implements object.Store.
func (s store) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	w := s.p.w
	name := w.nth(s.p.name + " get " + w.label(s.p.name, key))
	f := s.fate(name, false)
	ctx, cancel := limited(ctx)
	defer cancel()
	b, err := ask(ctx, s.p, bucketName, name, f, func() ([]byte, error) {
		return w.objects.Get(context.Background(), key, pos, length)
	})
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return s.damage(name, key, b)
}

// damage spoils an answer on its way, sometimes.
func (s store) damage(name, key string, b []byte) ([]byte, error) {
	w := s.p.w
	if w.calm() || len(b) == 0 || strings.HasPrefix(key, "_cluster/") {
		return b, nil // a broker that cannot read its identity refuses to start, rightly
	}
	d := newDice(w.seed, name+" damage")
	switch c := &w.weather; {
	case d.chance(c.flips):
		w.count("bit flipped")
		w.note(s.p.name, "bit flipped", name)
		b[d.n(len(b))] ^= 1 << d.n(8)
	case d.chance(c.truncates):
		w.count("truncated")
		w.note(s.p.name, "truncated", name)
		b = b[:d.n(len(b))]
	case d.chance(c.misses) && w.fresh(key) && !isFence(key, b):
		w.count("missed")
		w.note(s.p.name, "missed", name)
		return nil, fmt.Errorf("get %s: %w", key, object.ErrNotFound)
	}
	return b, nil
}

// fresh reports whether an object was created a moment ago.
func (w *World) fresh(key string) bool {
	infos, err := w.objects.List(context.Background(), key, "", 1)
	return err == nil && len(infos) == 1 && infos[0].Key == key && time.Since(infos[0].Modified) < 2*time.Second
}

// isFence reports whether an object is a fence. That one must be found: stores
// are consistent, and a look for a fence is how a leader knows that it is one.
func isFence(key string, b []byte) bool {
	if !strings.HasPrefix(key, "w/") {
		return false
	}
	h, err := wal.DecodeHead(b)
	return err != nil || h.Kind == wal.Fence
}

// Delete implements object.Store.
func (s store) Delete(ctx context.Context, key string) error {
	w := s.p.w
	name := w.nth(s.p.name + " delete " + w.label(s.p.name, key))
	_, err := ask(ctx, s.p, bucketName, name, s.fate(name, true), func() (struct{}, error) {
		_, missing := w.objects.Get(context.Background(), key, 0, 0)
		err := w.objects.Delete(context.Background(), key)
		if err == nil && missing == nil {
			w.did("deleted", key)
		}
		return struct{}{}, err
	})
	return err
}

// objectKinds are the kinds of objects that tiering writes and deletes, by the
// beginning of their keys.
var objectKinds = map[byte]string{'w': "slots", 's': "own segments", 'x': "shared segments", 'm': "pages", 'k': "checkpoints"}

// did counts what was done to an object.
func (w *World) did(what, key string) {
	if kind := objectKinds[key[0]]; kind != "" && key[1] == '/' {
		w.judge.count(kind + " " + what)
	}
}

// List implements object.Store. What it shows may be stale: objects of the last
// second are left out at times.
func (s store) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	w := s.p.w
	name := w.nth(s.p.name + " list " + w.label(s.p.name, prefix))
	stale := !w.calm() && newDice(w.seed, name+" stale").chance(w.weather.bucket.any())
	return ask(ctx, s.p, bucketName, name, s.fate(name, false), func() ([]object.Info, error) {
		infos, err := w.objects.List(context.Background(), prefix, after, limit)
		if stale {
			infos = slices.DeleteFunc(infos, func(i object.Info) bool { return time.Since(i.Modified) < time.Second })
		}
		return infos, err
	})
}

// Check implements object.Checker.
func (s store) Check(context.Context, []string, func(string, error)) error { return nil }
