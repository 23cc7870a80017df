package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/tidemark-io/tidemark/metadata"
)

// ErrUnsuitable: this etcd cannot be used; waiting will not help.
var ErrUnsuitable = errors.New("unsuitable etcd")

// Open connects and checks, within Config.OpenTimeout and ctx: a member answers,
// the members that do are recent enough, and a linearizable transaction of the
// largest size used is taken. The error names each endpoint and what is wrong
// with it.
func Open(ctx context.Context, cfg Config) (*KV, error) {
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	k, err := connect(cfg)
	if err != nil {
		return nil, err
	}
	k.metrics = newMetrics(cfg.Registerer)
	ctx, cancel := context.WithTimeout(ctx, cfg.OpenTimeout)
	defer cancel()
	if err := k.check(ctx); err != nil {
		_ = k.Close()
		return nil, err
	}
	k.running.Add(1)
	go k.keepProgress()
	return k, nil
}

func (k *KV) check(ctx context.Context) error {
	answers, err := k.awaitMember(ctx)
	if err != nil {
		return err
	}
	for i, a := range answers {
		m := k.members[i]
		if a.err != nil {
			k.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "etcd member does not answer", slog.String("endpoint", m.endpoint), slog.Any("error", a.err))
			continue
		}
		if err := checkVersion(a.resp.Version); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrUnsuitable, m.endpoint, err)
		}
		if len(a.resp.Errors) > 0 {
			k.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "etcd member reports errors",
				slog.String("endpoint", m.endpoint), slog.String("error", strings.Join(a.resp.Errors, "; ")))
		}
	}
	return k.checkTxn(ctx)
}

type statusAnswer struct {
	resp *pb.StatusResponse
	err  error
}

// awaitMember asks all members until one answers.
func (k *KV) awaitMember(ctx context.Context) ([]statusAnswer, error) {
	// The explanation takes a while, and must fit into the time given.
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/5))
	defer cancel()
	for {
		answers := k.statusOfAll(ctx)
		for i, a := range answers {
			if a.err == nil {
				k.current.Store(uint32(i))
				return answers, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, k.explainAll(context.WithoutCancel(ctx), time.Until(deadline), answers)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (k *KV) statusOfAll(ctx context.Context) []statusAnswer {
	answers := make([]statusAnswer, len(k.members))
	var wg sync.WaitGroup
	for i, m := range k.members {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, readAttempt)
			defer cancel()
			begun := time.Now()
			answers[i].resp, answers[i].err = m.maintenance.Status(ctx, &pb.StatusRequest{}, callOptions...)
			k.metrics.observe("status", outcome(ours(answers[i].err)), begun)
		})
	}
	wg.Wait()
	return answers
}

// Oldest versions used: before them a progress report of a watch may overtake
// the changes it vouches for, and 3.5 lost data until 3.5.3.
var (
	oldest34 = version{3, 4, 25}
	oldest35 = version{3, 5, 8}
)

type version [3]int

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

func (v version) less(w version) bool {
	for i := range v {
		if v[i] != w[i] {
			return v[i] < w[i]
		}
	}
	return false
}

func parseVersion(s string) (version, error) {
	var v version
	core, _, _ := strings.Cut(s, "-")
	parts := strings.Split(core, ".")
	if len(parts) != len(v) {
		return v, fmt.Errorf("etcd version %q is not understood", s)
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil {
			return v, fmt.Errorf("etcd version %q is not understood", s)
		}
		v[i] = n
	}
	return v, nil
}

func checkVersion(s string) error {
	v, err := parseVersion(s)
	if err != nil {
		return err
	}
	if v.less(oldest34) || v[0] == 3 && v[1] == 5 && v.less(oldest35) {
		return fmt.Errorf("version %s is too old: want 3.4 from %s, 3.5 from %s, or newer", v, oldest34, oldest35)
	}
	return nil
}

// checkTxn sends a transaction of the largest number of operations that is ever
// used. It only reads, and asks the leader.
func (k *KV) checkTxn(ctx context.Context) error {
	keys := make([]string, metadata.MaxTxnOps)
	for i := range keys {
		keys[i] = metadata.KeyIdentity
	}
	_, _, err := k.getChunk(ctx, keys, 0)
	switch {
	case errors.Is(err, metadata.ErrTooLarge):
		return fmt.Errorf("%w: it refuses transactions of %d operations: its --max-txn-ops (default 128) is too low",
			ErrUnsuitable, metadata.MaxTxnOps)
	case err != nil:
		return fmt.Errorf("etcd %s does not answer reads (has it a leader?): %w", strings.Join(k.cfg.Endpoints, ","), err)
	}
	return nil
}
