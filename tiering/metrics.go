package tiering

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	stages      *prometheus.HistogramVec
	flushBytes  prometheus.Histogram
	reads       *prometheus.CounterVec
	checkpoints *prometheus.CounterVec
	seals       *prometheus.CounterVec
	segments    *prometheus.CounterVec
	segmentSize *prometheus.CounterVec
	untiered    prometheus.Gauge
	unreadable  prometheus.Counter
	slowed      prometheus.Counter
	deleted     *prometheus.CounterVec
	trimmed     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tidemark_flush_stage_seconds",
			Help:    "Time a flush spends waiting to start, being put into the bucket, and waiting for earlier slots to commit.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"stage"}),
		flushBytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tidemark_flush_bytes", Help: "Record bytes of one flush.",
			Buckets: prometheus.ExponentialBuckets(1024, 4, 8),
		}),
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_read_bytes_total", Help: "Bytes of the extents that reads looked into, by where they came from.",
		}, []string{"source"}),
		checkpoints: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_checkpoints_total", Help: "Checkpoints written, by outcome.",
		}, []string{"outcome"}),
		seals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_seals_total", Help: "Chains of other incarnations ended by this broker, by outcome.",
		}, []string{"outcome"}),
	}
	m.segments = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_segments_total", Help: "Segments written by tiering, by kind (own, shared) and outcome.",
	}, []string{"kind", "outcome"})
	m.segmentSize = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_segment_bytes_total", Help: "Bytes tiered, as served (raw) and as stored in segments (stored).",
	}, []string{"form"})
	m.untiered = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tidemark_untiered_bytes", Help: "Bytes of led partitions that lie in write-ahead objects and not yet in segments, at the last look.",
	})
	m.unreadable = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "tidemark_tiering_unreadable_total", Help: "How often a partition was left out of tiering because something of it could not be read. An alarm.",
	})
	m.slowed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "tidemark_tiering_slowed_seconds_total", Help: "Time that produce requests waited because tiering was behind.",
	})
	m.deleted = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_deleted_objects_total", Help: "Objects deleted from the bucket, by kind (wal, checkpoint, page, segment, orphan).",
	}, []string{"kind"})
	m.trimmed = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_log_start_raised_total", Help: "Times the log start offset of a partition was raised, by reason (retention, delete records).",
	}, []string{"reason"})
	r.MustRegister(m.trimmed, m.segments, m.segmentSize, m.untiered, m.unreadable, m.slowed, m.deleted)
	r.MustRegister(m.stages, m.flushBytes, m.reads, m.checkpoints, m.seals)
	return m
}

func (m *metrics) stage(name string) prometheus.Observer { return m.stages.WithLabelValues(name) }
