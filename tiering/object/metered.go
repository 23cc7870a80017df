package object

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The operations, as metrics, traces and injected faults name them.
const (
	OpCreate = "create"
	OpGet    = "get"
	OpDelete = "delete"
	OpList   = "list"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_store_requests_total",
			Help: "Requests to the object store by operation and outcome; exists and not_found are answers, not failures.",
		}, []string{"op", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tidemark_store_request_seconds",
			Help: "Duration of requests to the object store by operation, whatever the outcome.",
			// From a local file (1 ms) to a request that meets its deadline (30 s).
			Buckets: []float64{.001, .0025, .005, .01, .02, .04, .08, .15, .3, .6, 1.2, 2.5, 5, 10, 30},
		}, []string{"op"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_store_bytes_total",
			Help: "Object bytes written (create) and read (get) by requests that succeeded.",
		}, []string{"op"}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.seconds, m.bytes)
	}
	return m
}

func (m *metrics) observe(op string, start time.Time, bytes int64, err error) {
	m.requests.WithLabelValues(op, Outcome(err)).Inc()
	m.seconds.WithLabelValues(op).Observe(time.Since(start).Seconds())
	if err == nil && bytes > 0 {
		m.bytes.WithLabelValues(op).Add(float64(bytes))
	}
}

type metered struct {
	store Store
	m     *metrics
}

// Metered counts and times the requests that reach store. It belongs directly
// around an adapter, inside Retrying, so that every request is counted.
func Metered(store Store, reg prometheus.Registerer) Store {
	return &metered{store: store, m: newMetrics(reg)}
}

func (s *metered) Unwrap() Store { return s.store }

func (s *metered) Create(ctx context.Context, key string, data ...[]byte) error {
	start := time.Now()
	err := s.store.Create(ctx, key, data...)
	var n int64
	for _, d := range data {
		n += int64(len(d))
	}
	s.m.observe(OpCreate, start, n, err)
	return err
}

func (s *metered) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	start := time.Now()
	b, err := s.store.Get(ctx, key, pos, length)
	s.m.observe(OpGet, start, int64(len(b)), err)
	return b, err
}

func (s *metered) Delete(ctx context.Context, key string) error {
	start := time.Now()
	err := s.store.Delete(ctx, key)
	s.m.observe(OpDelete, start, 0, err)
	return err
}

func (s *metered) List(ctx context.Context, prefix, after string, limit int) ([]Info, error) {
	start := time.Now()
	infos, err := s.store.List(ctx, prefix, after, limit)
	s.m.observe(OpList, start, 0, err)
	return infos, err
}
