package etcd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the requests to etcd, counted per attempt.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_etcd_requests_total",
			Help: "Requests to etcd by operation and outcome; a transaction whose conditions failed is conflict.",
		}, []string{"op", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tidemark_etcd_request_seconds",
			Help:    "Time of requests to etcd by operation.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15), // 0.5 ms to 8 s
		}, []string{"op"}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.seconds)
	}
	return m
}

func (m *metrics) observe(op, outcome string, begun time.Time) {
	m.requests.WithLabelValues(op, outcome).Inc()
	m.seconds.WithLabelValues(op).Observe(time.Since(begun).Seconds())
}
