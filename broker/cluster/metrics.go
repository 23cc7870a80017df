package cluster

import "github.com/prometheus/client_golang/prometheus"

// Log keys of this package.
const (
	keyPeer      = "peer"
	keyBroker    = "broker"
	keyFrom      = "from"
	keyTo        = "to"
	keyError     = "error"
	keyAddress   = "address"
	keyEpoch     = "epoch"
	keyCount     = "count"
	keyPartition = "partition"
	keyEnd       = "end"
	keyDuration  = "duration"
	keyKind      = "kind"
	keyFailing   = "failing"
)

type metrics struct {
	leadershipChanges *prometheus.CounterVec // by change: open, release
	leadFailures      prometheus.Counter
	led               prometheus.Gauge       // by outcome: ok, error
	suspicions        *prometheus.CounterVec // by verdict
	controller        prometheus.Gauge
	assignments       *prometheus.CounterVec // by kind: partition, shard
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		leadershipChanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_cluster_leadership_changes_total",
			Help: "Partitions this broker opened or released.",
		}, []string{"change"}),
		leadFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidemark_cluster_lead_failures_total",
			Help: "Attempts to lead a partition that failed and will be repeated.",
		}),
		led: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidemark_cluster_partitions_led",
			Help: "Partitions this broker leads.",
		}),
		suspicions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_cluster_suspicions_total",
			Help: "Peers that this broker began to hold for suspect, stuck or dead.",
		}, []string{"verdict"}),
		controller: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidemark_cluster_controller",
			Help: "1 while this broker is the controller.",
		}),
		assignments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_cluster_assignments_total",
			Help: "Partitions and group shards this broker, as the controller, gave to a broker.",
		}, []string{"kind"}),
	}
	r.MustRegister(m.leadershipChanges, m.leadFailures, m.led, m.suspicions, m.controller, m.assignments)
	return m
}
