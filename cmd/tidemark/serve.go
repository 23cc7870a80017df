package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tidemark-io/tidemark/broker/node"
)

// openTimeout bounds the start up to the point where etcd and the store are
// known to be usable.
const openTimeout = 12 * time.Second

// deleteGraceMin is the least grace outside of tests: reads that are under way
// when their objects are freed take less.
const deleteGraceMin = 10 * time.Minute

// serve runs a broker until ctx is done, then drains it.
func serve(ctx context.Context, cfg *Config) error {
	log := newLogger(cfg)
	if cfg.DeleteGrace < deleteGraceMin {
		log.Warn("--delete-grace is shorter than it should be but for tests", "grace", cfg.DeleteGrace.String(), "least", deleteGraceMin.String())
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	tracer, stopTraces, err := openTracer(ctx, cfg)
	if err != nil {
		return fmt.Errorf("start: traces: %w", err)
	}
	defer stopTraces()
	status := newStatus(reg)
	stopHTTP, err := status.listen(cfg.HTTP, log)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer stopHTTP()

	open, cancel := context.WithTimeoutCause(ctx, openTimeout, errors.New("gave up after "+openTimeout.String()))
	base, err := openBase(open, cfg, reg, log, tracer)
	cancel()
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // told to stop before it had begun
	case err != nil:
		return fmt.Errorf("start: %w", err)
	}
	defer base.close()

	nodeConfig, err := base.node()
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	nodeConfig.Attach = status.attach
	nodeConfig.Ready = sync.OnceFunc(func() { announce(os.Stderr, cfg) })
	return node.Run(ctx, *nodeConfig)
}

func newLogger(cfg *Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
