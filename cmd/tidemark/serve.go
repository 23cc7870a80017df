package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tidemark-io/tidemark/broker/cluster"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

const (
	// openTimeout bounds the start up to the point where etcd and the store are
	// known to be usable.
	openTimeout = 12 * time.Second
	// restartPause spaces incarnations that end at once.
	restartPause    = 200 * time.Millisecond
	restartPauseMax = 5 * time.Second
)

// serve runs a broker until ctx is done, then drains it. When the incarnation
// is ended by others, the process goes on as a new one.
func serve(ctx context.Context, cfg *Config) error {
	log := newLogger(cfg)
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
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer base.close()

	first := true
	for pause := restartPause; ; pause = min(2*pause, restartPauseMax) {
		begun := time.Now()
		err := base.incarnation(ctx, status, func() {
			if first {
				announce(os.Stderr, cfg)
			}
			first = false
		})
		switch {
		case ctx.Err() != nil:
			return err
		case !over(err):
			return fmt.Errorf("broker stopped: %w", err)
		}
		if time.Since(begun) > time.Minute {
			pause = restartPause
		}
		log.Warn("incarnation ended, starting a new one", "reason", err.Error(), "pause", pause.String())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// over reports whether err means that the incarnation was ended, by a peer or
// because its place in the cluster could not be had or kept, rather than the
// process.
func over(err error) bool {
	return errors.Is(err, tiering.ErrFenced) || errors.Is(err, cluster.ErrIncarnationOver) ||
		errors.Is(err, metadata.ErrIncarnationOver) || errors.Is(err, metadata.ErrUnavailable) ||
		errors.Is(err, metadata.ErrNoSpace) || errors.Is(err, metadata.ErrLeaseNotFound)
}

func newLogger(cfg *Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
