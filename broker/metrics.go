package broker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures of the Kafka surface. Label values come from fixed
// sets: API names and error classes.
type metrics struct {
	requests    *prometheus.CounterVec   // by api and class of its worst error
	seconds     *prometheus.HistogramVec // by api: from the frame's last byte to the response's
	produce     *prometheus.HistogramVec // by stage: admit, append, commit
	fetch       *prometheus.HistogramVec // by stage: wait, read
	connections prometheus.Gauge
	accepted    prometheus.Counter
	refused     *prometheus.CounterVec // by reason
	bytesIn     prometheus.Counter
	bytesOut    prometheus.Counter
	records     *prometheus.CounterVec // by direction: in
	sessions    prometheus.Gauge
	panics      prometheus.Counter
}

// latencyBuckets go from a cache hit to a client's patience.
var latencyBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

func newMetrics(r prometheus.Registerer) *metrics {
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: latencyBuckets}, labels)
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		requests:    counters("tidemark_requests_total", "Requests answered, by API and class of the worst error in the answer.", "api", "error"),
		seconds:     histogram("tidemark_request_seconds", "Time from a request's last byte to its response's, long polls included.", "api"),
		produce:     histogram("tidemark_produce_stage_seconds", "Time a produce request spends waiting for room, validating and appending, and waiting for its commit.", "stage"),
		fetch:       histogram("tidemark_fetch_stage_seconds", "Time a fetch request spends waiting for records and reading them.", "stage"),
		connections: gauge("tidemark_connections", "Open client connections."),
		accepted:    counter("tidemark_connections_accepted_total", "Client connections accepted."),
		refused:     counters("tidemark_connections_closed_total", "Client connections closed by the broker, by reason.", "reason"),
		bytesIn:     counter("tidemark_request_bytes_total", "Bytes of requests received."),
		bytesOut:    counter("tidemark_response_bytes_total", "Bytes of responses sent."),
		records:     counters("tidemark_record_bytes_total", "Bytes of record batches appended and fetched.", "direction"),
		sessions:    gauge("tidemark_fetch_sessions", "Incremental fetch sessions kept."),
		panics:      counter("tidemark_panics_total", "Requests that ended in a panic; each is a bug."),
	}
	r.MustRegister(m.requests, m.seconds, m.produce, m.fetch, m.connections, m.accepted, m.refused,
		m.bytesIn, m.bytesOut, m.records, m.sessions, m.panics)
	return m
}

func since(t time.Time) float64 { return time.Since(t).Seconds() }
