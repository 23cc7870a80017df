package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/tidemark-io/tidemark/broker/node"
)

// status serves liveness, readiness, metrics and Go's profiles.
type status struct {
	process *prometheus.Registry

	mu          sync.Mutex
	incarnation *node.Incarnation // nil between incarnations
}

func newStatus(process *prometheus.Registry) *status { return &status{process: process} }

func (s *status) attach(i *node.Incarnation) {
	s.mu.Lock()
	s.incarnation = i
	s.mu.Unlock()
}

func (s *status) current() *node.Incarnation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.incarnation
}

// Gather joins the metrics of the process with those of the incarnation.
func (s *status) Gather() ([]*dto.MetricFamily, error) {
	g := prometheus.Gatherers{s.process}
	if i := s.current(); i != nil {
		g = append(g, i.Gatherer())
	}
	return g.Gather()
}

// ready tells why clients should not be sent here, or nil.
func (s *status) ready(ctx context.Context) error {
	i := s.current()
	if i == nil {
		return errors.New("no incarnation is running")
	}
	return i.Check(ctx)
}

const httpTimeout = 10 * time.Second

// listen serves on addr, unless it is empty, until stop is called.
func (s *status) listen(addr string, log *slog.Logger) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for health and metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.ready(r.Context()); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: httpTimeout}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: httpTimeout, ReadTimeout: httpTimeout, WriteTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("health and metrics stopped", "error", err)
		}
	}()
	return func() { _ = server.Close(); <-done }, nil
}
