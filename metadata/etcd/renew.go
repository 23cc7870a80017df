package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tidemark-io/tidemark/metadata"
)

// renewal is what one member said.
type renewal struct {
	member uint32
	ttl    time.Duration
	err    error
}

// Renew implements metadata.KV. The member that answered last is asked first;
// the next is asked as well when it fails or takes longer than renewStagger, and
// so on. The first definite answer counts. All of it ends within the attempts
// of all members, about 1.5 s for three.
func (k *KV) Renew(ctx context.Context, id metadata.LeaseID) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the attempts left need not go on
	n := len(k.members)
	answers := make(chan renewal, n)
	first := k.current.Load()
	asked, failed := 0, 0
	ask := func() {
		i := (first + uint32(asked)) % uint32(n)
		asked++
		k.running.Go(func() { answers <- k.renewAt(ctx, i, id) })
	}
	ask()
	stagger := time.NewTicker(renewStagger)
	defer stagger.Stop()
	var last error
	for {
		select {
		case a := <-answers:
			if !errors.Is(a.err, metadata.ErrUnavailable) {
				if a.member != first { // a member that stalls here stalls everything
					k.current.CompareAndSwap(first, a.member)
				}
				return a.ttl, a.err
			}
			last = a.err
			if failed++; failed == n {
				return 0, last
			}
			if asked < n {
				ask()
			}
		case <-stagger.C:
			if asked < n {
				ask()
			}
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %w", metadata.ErrUnavailable, ctx.Err())
		}
	}
}

// renewAt asks one member once.
func (k *KV) renewAt(ctx context.Context, i uint32, id metadata.LeaseID) renewal {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), renewAttempt)
	defer cancel()
	m := k.members[i]
	begun := time.Now()
	ttl, err := m.renew(ctx, id)
	err = ours(err)
	if errors.Is(err, metadata.ErrUnavailable) {
		err = fmt.Errorf("%w (renew at %s)", err, m.endpoint)
	}
	if !errors.Is(err, context.Canceled) {
		k.metrics.observe("renew", outcome(err), begun)
	}
	return renewal{member: i, ttl: ttl, err: err}
}

// renew sends one request over a stream of its own.
func (m *member) renew(ctx context.Context, id metadata.LeaseID) (time.Duration, error) {
	stream, err := m.lease.LeaseKeepAlive(ctx, callOptions...)
	if err != nil {
		return 0, err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return 0, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return 0, err
	}
	_ = stream.CloseSend() // the context's end frees it in any case
	if resp.TTL <= 0 {
		return 0, metadata.ErrLeaseNotFound
	}
	return time.Duration(resp.TTL) * time.Second, nil
}
