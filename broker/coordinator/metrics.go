package coordinator

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/broker/group/consumer"
)

type metrics struct {
	rebalances   *prometheus.CounterVec
	commits      *prometheus.CounterVec
	commitTime   prometheus.Histogram
	txns         *prometheus.CounterVec
	txnTime      prometheus.Histogram
	txnOps       prometheus.Histogram
	txnCommits   prometheus.Histogram
	loads        *prometheus.CounterVec
	loadTime     prometheus.Histogram
	offsetsGone  prometheus.Counter
	verifyRounds prometheus.Counter
	mirrored     prometheus.Counter

	txnStates      *prometheus.CounterVec
	txnTimeouts    prometheus.Counter
	txnWriteStates prometheus.Histogram
	txnComplete    prometheus.Histogram
	markers        *prometheus.CounterVec
	markerRequests prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, c *Coordinator) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidemark_group_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tidemark_group_" + name, Help: help, Buckets: buckets})
	}
	seconds := prometheus.ExponentialBuckets(0.0005, 2, 16)
	sizes := prometheus.ExponentialBuckets(1, 2, 11)
	m := &metrics{
		rebalances:   counter("rebalances_total", "Rebalances of groups, by phase reached.", "phase"),
		commits:      counter("offset_commits_total", "Offset commits that reached the store, by outcome.", "outcome"),
		commitTime:   histogram("offset_commit_seconds", "Time from accepting an offset commit to its outcome.", seconds),
		txns:         counter("txns_total", "Metadata transactions of coordinators, by outcome.", "outcome"),
		txnTime:      histogram("txn_seconds", "Time of one metadata transaction.", seconds),
		txnOps:       histogram("offset_txn_operations", "Operations in a transaction of offset commits.", sizes),
		txnCommits:   histogram("offset_txn_commits", "Offset commits that share a transaction.", sizes),
		loads:        counter("shard_loads_total", "Loads of coordinator shards, by outcome.", "outcome"),
		loadTime:     histogram("shard_load_seconds", "Time to load a coordinator shard.", seconds),
		offsetsGone:  prometheus.NewCounter(prometheus.CounterOpts{Name: "tidemark_group_offsets_expired_total", Help: "Committed offsets removed because of their age or because their topic is gone."}),
		mirrored:     prometheus.NewCounter(prometheus.CounterOpts{Name: "tidemark_group_mirrored_records_total", Help: "Records copied into __consumer_offsets."}),
		verifyRounds: prometheus.NewCounter(prometheus.CounterOpts{Name: "tidemark_group_ownership_checks_total", Help: "Reads of shard keys before committed offsets, or what is known of transactions, are told."}),
	}
	m.transactions(seconds, sizes)
	for _, col := range []prometheus.Collector{
		m.txnStates, m.txnTimeouts, m.txnWriteStates, m.txnComplete, m.markers, m.markerRequests,
		m.rebalances, m.commits, m.commitTime, m.txns, m.txnTime, m.txnOps, m.txnCommits,
		m.loads, m.loadTime, m.offsetsGone, m.verifyRounds, m.mirrored, &stateCollector{c: c},
	} {
		if err := reg.Register(col); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) transactions(seconds, sizes []float64) {
	name := func(n string) string { return "tidemark_transaction_" + n }
	m.txnStates = prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("states_total"), Help: "States of transactional ids that were stored, by state."}, []string{"state"})
	m.txnTimeouts = prometheus.NewCounter(prometheus.CounterOpts{Name: name("timeouts_total"), Help: "Transactions aborted because their time was up."})
	m.txnWriteStates = prometheus.NewHistogram(prometheus.HistogramOpts{Name: name("write_states"), Help: "States that share a metadata transaction.", Buckets: sizes})
	m.txnComplete = prometheus.NewHistogram(prometheus.HistogramOpts{Name: name("complete_seconds"), Help: "Time from a stored outcome to the end of the transaction everywhere.", Buckets: seconds})
	m.markers = prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("markers_total"), Help: "Markers answered by partitions, by outcome."}, []string{"outcome"})
	m.markerRequests = prometheus.NewCounter(prometheus.CounterOpts{Name: name("marker_requests_total"), Help: "Requests with markers that were sent."})
}

func (m *metrics) txn(took time.Duration, err error) {
	m.txnTime.Observe(took.Seconds())
	m.txns.WithLabelValues(outcomeLabel(err)).Inc()
}

func outcomeLabel(err error) string {
	switch {
	case err == nil:
		return "ok"
	case isAmbiguous(err):
		return "unknown"
	}
	return "error"
}

func (m *metrics) effects(e group.Effects) {
	if e.Rebalances > 0 {
		m.rebalances.WithLabelValues("begun").Add(float64(e.Rebalances))
	}
	if e.Completed > 0 {
		m.rebalances.WithLabelValues("completed").Add(float64(e.Completed))
	}
}

// stateCollector counts groups by state when asked, so that nothing has to be
// kept in step.
type stateCollector struct{ c *Coordinator }

var (
	groupsDesc = prometheus.NewDesc("tidemark_groups", "Groups coordinated by this broker, by state and type.", []string{"state", "type"}, nil)
	shardsDesc = prometheus.NewDesc("tidemark_group_shards", "Coordinator shards of this broker, by state.", []string{"state"}, nil)
)

func (s *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- groupsDesc
	ch <- shardsDesc
}

func (s *stateCollector) Collect(ch chan<- prometheus.Metric) {
	states := map[[2]string]int{}
	for _, st := range group.States() {
		states[[2]string{st.String(), typeClassic}] = 0
	}
	for _, st := range consumer.States() {
		states[[2]string{string(st), consumerType}] = 0
	}
	var loading, active int
	for i := range s.c.shards {
		sh := &s.c.shards[i]
		sh.mu.Lock()
		switch sh.state {
		case shardLoading:
			loading++
		case shardActive:
			active++
		}
		for _, e := range sh.groups {
			state, kind := e.state()
			states[[2]string{state, kind}]++
		}
		sh.mu.Unlock()
	}
	for labels, n := range states {
		ch <- prometheus.MustNewConstMetric(groupsDesc, prometheus.GaugeValue, float64(n), labels[0], labels[1])
	}
	ch <- prometheus.MustNewConstMetric(shardsDesc, prometheus.GaugeValue, float64(loading), "loading")
	ch <- prometheus.MustNewConstMetric(shardsDesc, prometheus.GaugeValue, float64(active), "active")
}
