package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/broker/cluster"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

const (
	// restartPause spaces incarnations that end at once.
	restartPause    = 200 * time.Millisecond
	restartPauseMax = 5 * time.Second
	// steady is how long an incarnation lasts that is no part of a series.
	steady = time.Minute
)

// Run runs a broker until ctx is done, then drains it. When the incarnation is
// ended by others, it goes on as a new one. A nil error means that all was
// handed over.
func Run(ctx context.Context, cfg Config) error {
	cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	for pause := restartPause; ; pause = min(2*pause, restartPauseMax) {
		begun := time.Now()
		err := runIncarnation(ctx, &cfg)
		switch {
		case ctx.Err() != nil:
			return err
		case !over(err) || errors.Is(err, metadata.ErrIdentity):
			return fmt.Errorf("broker stopped: %w", err)
		}
		if time.Since(begun) > steady {
			pause = restartPause
		}
		cfg.Logger.Warn("incarnation ended, starting a new one", "reason", err.Error(), "pause", pause.String())
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
