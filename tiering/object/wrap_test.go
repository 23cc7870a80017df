package object_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/faulty"
	"github.com/tidemark-io/tidemark/tiering/object/mem"
	"github.com/tidemark-io/tidemark/tiering/object/objecttest"
)

func TestWrappedStoreKeepsTheContract(t *testing.T) {
	tracer := sdktrace.NewTracerProvider().Tracer("test")
	objecttest.Run(t, func(*testing.T) object.Store {
		s := object.Metered(mem.New(), prometheus.NewRegistry())
		return object.Retrying(object.Traced(s, tracer), object.RetryConfig{})
	})
}

func TestMetered(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := faulty.New(mem.New())
	s := object.Metered(f, reg)
	ctx := t.Context()
	_ = s.Create(ctx, "a", []byte("123"), []byte("45"))
	_ = s.Create(ctx, "a", []byte("12345"))
	_, _ = s.Get(ctx, "a", 1, 2)
	_, _ = s.Get(ctx, "b", 0, -1)
	f.Inject(&faulty.Fault{Op: object.OpDelete, Err: object.ErrThrottled})
	_ = s.Delete(ctx, "a")
	_, _ = s.List(ctx, "../", "", 1)
	want := map[string]float64{
		"tidemark_store_bytes_total{create}":              5,
		"tidemark_store_bytes_total{get}":                 2,
		"tidemark_store_requests_total{create,exists}":    1,
		"tidemark_store_requests_total{create,ok}":        1,
		"tidemark_store_requests_total{delete,throttled}": 1,
		"tidemark_store_requests_total{get,not_found}":    1,
		"tidemark_store_requests_total{get,ok}":           1,
		"tidemark_store_requests_total{list,refused}":     1,
		"tidemark_store_request_seconds{create}":          2,
		"tidemark_store_request_seconds{get}":             2,
		"tidemark_store_request_seconds{delete}":          1,
		"tidemark_store_request_seconds{list}":            1,
	}
	if got := gather(t, reg); !maps.Equal(got, want) {
		t.Errorf("metrics %v, want %v", got, want)
	}
}

// gather returns counters, and the counts of histograms, by name and labels.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			name := f.GetName() + "{" + strings.Join(labels, ",") + "}"
			values[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

func TestTraced(t *testing.T) {
	inner := mem.New()
	if object.Traced(inner, nil) != object.Store(inner) {
		t.Error("Traced without a tracer is not the store itself")
	}
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	f := faulty.New(inner)
	s := object.Traced(f, provider.Tracer("test"))
	_, _ = s.Get(t.Context(), "a", 0, -1)
	f.Inject(&faulty.Fault{})
	_, _ = s.Get(t.Context(), "a", 0, -1)
	got := spans.GetSpans()
	if len(got) != 2 || got[0].Status.Code != codes.Unset || got[1].Status.Code != codes.Error || got[0].Name != "store.get" {
		t.Errorf("spans: %+v", got)
	}
}

func TestRetrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := faulty.New(mem.New())
		s := object.Retrying(f, object.RetryConfig{Attempts: 5})
		ctx := t.Context()
		if err := s.Create(ctx, "a", []byte("x")); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name  string
			fault faulty.Fault
			calls int
			want  error
		}{
			{"passes after two", faulty.Fault{Op: object.OpGet, Count: 2}, 2, nil},
			{"throttled", faulty.Fault{Op: object.OpGet, Count: 4, Err: object.ErrThrottled}, 4, nil},
			{"corrupt", faulty.Fault{Op: object.OpGet, Count: 1, Err: object.ErrCorrupt}, 1, nil},
			{"hangs", faulty.Fault{Op: object.OpGet, Count: 1, Kind: faulty.Hang}, 1, nil},
			{"never passes", faulty.Fault{Op: object.OpGet}, 5, faulty.Err},
			{"refused", faulty.Fault{Op: object.OpGet, Err: object.ErrRefused}, 1, object.ErrRefused},
			{"not found", faulty.Fault{Op: object.OpGet, Kind: faulty.Missing}, 1, object.ErrNotFound},
		} {
			fault := f.Inject(&c.fault)
			_, err := s.Get(ctx, "a", 0, -1)
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Errorf("%s: Get = %v, want %v", c.name, err, c.want)
			}
			if n := f.Hits(fault); n != c.calls {
				t.Errorf("%s: %d faulty requests, want %d", c.name, n, c.calls)
			}
			f.Clear()
		}
	})
}

func TestRetryingNeverRepeatsCreate(t *testing.T) {
	f := faulty.New(mem.New())
	fault := f.Inject(&faulty.Fault{Op: object.OpCreate, Kind: faulty.After})
	s := object.Retrying(f, object.RetryConfig{})
	if err := s.Create(t.Context(), "a", []byte("x")); !errors.Is(err, faulty.Err) || f.Hits(fault) != 1 {
		t.Errorf("Create = %v after %d requests", err, f.Hits(fault))
	}
}

func TestRetryingKeepsTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := faulty.New(mem.New())
		f.Inject(&faulty.Fault{})
		s := object.Retrying(f, object.RetryConfig{Attempts: 1000})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.List(ctx, "", "", 1)
		if !errors.Is(err, faulty.Err) || time.Since(start) > 3*time.Second {
			t.Errorf("List = %v after %v", err, time.Since(start))
		}
	})
}

func TestAs(t *testing.T) {
	s := object.Retrying(object.Metered(mem.New(), nil), object.RetryConfig{})
	if _, ok := object.As[object.Checker](s); !ok {
		t.Error("the store's Checker was not found behind its wrappers")
	}
	if _, ok := object.As[object.PerEndpoint](s); ok {
		t.Error("found an ability that no store has")
	}
}

// twoPools is a store that is atomic in each of two halves and not across them.
type twoPools struct {
	object.Store
	mu     sync.Mutex
	second object.Store
	turn   int
}

func (s *twoPools) Create(ctx context.Context, key string, data ...[]byte) error {
	s.mu.Lock()
	s.turn++
	pool := s.Store
	if s.turn%2 == 0 {
		pool = s.second
	}
	s.mu.Unlock()
	return pool.Create(ctx, key, data...)
}

func TestProbe(t *testing.T) {
	var notAtomic *object.NotAtomicError
	if err := object.Probe(t.Context(), &twoPools{Store: mem.New(), second: mem.New()}, 2, 8); !errors.As(err, &notAtomic) {
		t.Errorf("Probe of a store that is not atomic = %v", err)
	} else if !strings.Contains(err.Error(), "pool") {
		t.Errorf("the message does not help: %v", err)
	}
	t.Run("each address by itself", func(t *testing.T) {
		s := &addresses{Store: mem.New(), stores: []object.Store{mem.New(), mem.New()}}
		if err := object.Probe(t.Context(), s, 1, 4); !errors.As(err, &notAtomic) {
			t.Errorf("Probe = %v", err)
		}
	})
	t.Run("overwritten", func(t *testing.T) {
		f := faulty.New(mem.New())
		f.Inject(&faulty.Fault{Op: object.OpGet, Kind: faulty.Corrupt})
		if err := object.Probe(t.Context(), f, 1, 4); !errors.As(err, &notAtomic) {
			t.Errorf("Probe = %v", err)
		}
	})
	t.Run("lost", func(t *testing.T) {
		f := faulty.New(mem.New())
		f.Inject(&faulty.Fault{Op: object.OpGet, Kind: faulty.Missing})
		if err := object.Probe(t.Context(), f, 1, 4); !errors.As(err, &notAtomic) {
			t.Errorf("Probe = %v", err)
		}
	})
}

type addresses struct {
	object.Store
	stores []object.Store
}

func (s *addresses) PerEndpoint(context.Context) ([]object.Store, error) { return s.stores, nil }

// TestProbeUnderFaults: an unreliable network is no reason to refuse a store.
func TestProbeUnderFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New()
		f := faulty.New(inner)
		f.Inject(&faulty.Fault{Op: object.OpCreate, Kind: faulty.After, Count: 3})
		f.Inject(&faulty.Fault{Op: object.OpCreate, Skip: 3, Count: 3, Err: object.ErrThrottled})
		if err := object.Probe(t.Context(), f, 3, 4); err != nil {
			t.Errorf("Probe = %v", err)
		}
		if infos, _ := inner.List(t.Context(), "", "", 10); len(infos) != 0 {
			t.Errorf("left %v", infos)
		}
		f.Inject(&faulty.Fault{Op: object.OpCreate})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var notAtomic *object.NotAtomicError
		if err := object.Probe(ctx, f, 1, 2); !errors.Is(err, faulty.Err) || errors.As(err, &notAtomic) {
			t.Errorf("Probe of an unreachable store = %v", err)
		}
		f.Clear()
		f.Inject(&faulty.Fault{Op: object.OpCreate, Err: object.ErrRefused})
		if err := object.Probe(t.Context(), f, 1, 2); !errors.Is(err, object.ErrRefused) {
			t.Errorf("Probe of a store that refuses = %v", err)
		}
	})
}
