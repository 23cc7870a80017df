package node

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// run runs the parts. They outlive ctx by the time the drain takes.
func (i *Incarnation) run(ctx context.Context) error {
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, alive := errgroup.WithContext(alive)
	for _, part := range []func(context.Context) error{i.session.Run, i.view.Run, i.log.Run, i.node.Run, i.groups.Run, i.serve, i.followConfigs, i.cfg.forward.watch} {
		g.Go(func() error {
			err := part(alive)
			if ctx.Err() != nil && over(err) {
				return nil // the drain ended the incarnation itself
			}
			return unlessStopped(alive, err)
		})
	}
	g.Go(func() error {
		if i.awaitView(alive, ctx) == nil {
			i.cfg.Ready()
		}
		select {
		case <-ctx.Done():
			defer stop()
			return i.drain(context.WithoutCancel(ctx))
		case <-alive.Done():
			return nil
		}
	})
	return g.Wait()
}

// serve answers clients once the view is there: answers without topics and
// brokers would mislead them. Until then connections wait to be accepted.
func (i *Incarnation) serve(ctx context.Context) error {
	if err := i.view.WaitReady(ctx); err != nil {
		return nil // stopped before
	}
	return i.server.Run(ctx)
}

// awaitView returns when the view is there, or either context is done.
func (i *Incarnation) awaitView(alive, ctx context.Context) error {
	alive, cancel := context.WithCancel(alive)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	return i.view.WaitReady(alive)
}

// unlessStopped is err, but for what a part says because it was told to stop.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || over(err)) {
		return nil
	}
	return err
}

// groupsDrainMax is how long group writes may hold up the log's closing: an
// etcd that is slow must not cost every partition its graceful end.
const groupsDrainMax = time.Second

// drain hands everything over in an order that keeps promises: group writes
// first, then the log, which others take over, while clients are still answered
// and told where to go; their connections go last.
func (i *Incarnation) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, i.cfg.DrainTimeout)
	defer cancel()
	i.cfg.Logger.Info("draining")
	groups, cancelGroups := context.WithTimeout(ctx, groupsDrainMax)
	err := i.groups.ReleaseAll(groups)
	cancelGroups()
	err = errors.Join(err, i.node.Drain(ctx))
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), 500*time.Millisecond)
	defer cancelLast()
	if e := i.server.Drain(last); e != nil && !errors.Is(e, context.DeadlineExceeded) {
		err = errors.Join(err, e)
	}
	return err
}
