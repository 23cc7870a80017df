package cache

import "github.com/prometheus/client_golang/prometheus"

// Values of labels.
const (
	layerMemory = "memory"
	layerDisk   = "disk"

	errorCorrupt = "corrupt" // a chunk file that failed its checks
	errorRead    = "read"
	errorWrite   = "write"
	errorLoad    = "load"

	droppedQueue    = "queue"    // more to write than the disk takes
	droppedDegraded = "degraded" // the disk failed a moment ago

	prefetchStarted = "started"
	prefetchDropped = "dropped"
)

type metrics struct {
	hits      *prometheus.CounterVec
	misses    prometheus.Counter
	shared    prometheus.Counter
	evictions *prometheus.CounterVec
	errors    *prometheus.CounterVec
	dropped   *prometheus.CounterVec
	prefetch  *prometheus.CounterVec
	bytes     *prometheus.GaugeVec
	chunks    *prometheus.GaugeVec
	loads     prometheus.Gauge
	waits     prometheus.Histogram
	unwritten prometheus.Gauge
	degraded  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidemark_cache_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Name: "tidemark_cache_" + name, Help: help}
	}
	m := &metrics{
		hits: counters("hits_total", "Chunks found, by layer.", "layer"),
		misses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidemark_cache_misses_total", Help: "Chunks found in no layer, and loaded.",
		}),
		shared: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidemark_cache_shared_total", Help: "Reads that joined a load another reader had begun.",
		}),
		evictions: counters("evictions_total", "Chunks displaced by others, by layer.", "layer"),
		errors:    counters("errors_total", "Failures by kind; all but load cost only speed.", "kind"),
		dropped:   counters("writes_dropped_total", "Chunks not written to disk, by reason.", "reason"),
		prefetch:  counters("prefetches_total", "Chunks asked for ahead of their reader, by outcome.", "outcome"),
		bytes:     prometheus.NewGaugeVec(gauge("bytes", "Bytes held, by layer."), []string{"layer"}),
		chunks:    prometheus.NewGaugeVec(gauge("chunks", "Chunks held, by layer."), []string{"layer"}),
		loads:     prometheus.NewGauge(gauge("loads", "Loads under way.")),
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tidemark_cache_load_wait_seconds", Help: "What loads waited for their turn, and for bandwidth.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 10, 6),
		}),
		unwritten: prometheus.NewGauge(gauge("unwritten_chunks", "Chunks waiting to be written to disk, or being written.")),
		degraded:  prometheus.NewGauge(gauge("degraded", "1 while the disk cannot be written, or there is to be one and is not.")),
	}
	if reg != nil {
		reg.MustRegister(m.hits, m.misses, m.shared, m.evictions, m.errors, m.dropped, m.prefetch,
			m.bytes, m.chunks, m.loads, m.waits, m.unwritten, m.degraded)
	}
	return m
}

func (m *metrics) held(layer string, bytes int64, chunks int) {
	m.bytes.WithLabelValues(layer).Set(float64(bytes))
	m.chunks.WithLabelValues(layer).Set(float64(chunks))
}
