package peer

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/tidemark-io/tidemark/broker/cluster/peer/peerpb"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// Pool holds at most one connection to each peer. Its size follows the peers
// its owner asks about: the owner calls Forget when a peer is gone.
type Pool struct {
	self    metadata.Incarnation
	connect func(ctx context.Context, addr string) (net.Conn, error) // nil: TCP

	// mu guards conns and closed; it is not held while connecting or calling.
	mu     sync.Mutex
	conns  map[metadata.Incarnation]pooled
	closed bool
}

type pooled struct {
	addr string
	cc   *grpc.ClientConn
}

// NewPool returns an empty pool that asks as incarnation self. Connections are
// made by connect, or by TCP when it is nil.
func NewPool(self metadata.Incarnation, connect func(ctx context.Context, addr string) (net.Conn, error)) *Pool {
	return &Pool{self: self, connect: connect, conns: make(map[metadata.Incarnation]pooled)}
}

// dial prepares a connection; it connects in the background.
func (p *Pool) dial(addr string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0), // an idle connection is the failure detector
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessageBytes),
			grpc.MaxCallSendMsgSize(maxMessageBytes),
		),
	}
	if p.connect != nil {
		options = append(options, grpc.WithContextDialer(p.connect))
	}
	cc, err := grpc.NewClient("passthrough:///"+addr, options...)
	if err != nil {
		return nil, fmt.Errorf("peer address %q: %w", addr, err)
	}
	return cc, nil
}

// conn returns the pooled connection to a peer, replacing one to an older
// address.
func (p *Pool) conn(inc metadata.Incarnation, addr string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("%w: pool is closed", ErrUnreachable)
	}
	if c, ok := p.conns[inc]; ok {
		if c.addr == addr {
			return c.cc, nil
		}
		c.cc.Close()
		delete(p.conns, inc)
	}
	cc, err := p.dial(addr)
	if err != nil {
		return nil, err
	}
	p.conns[inc] = pooled{addr: addr, cc: cc}
	return cc, nil
}

// Forget closes the connection to a peer, which ends every call on it.
func (p *Pool) Forget(inc metadata.Incarnation) {
	p.mu.Lock()
	c, ok := p.conns[inc]
	delete(p.conns, inc)
	p.mu.Unlock()
	if ok {
		c.cc.Close()
	}
}

// Close closes all connections.
func (p *Pool) Close() {
	p.mu.Lock()
	conns := p.conns
	p.conns, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range conns {
		c.cc.Close()
	}
}

// Attend connects, calls attended once the peer has answered in its own name,
// and returns when the connection ends. It never returns nil.
func (p *Pool) Attend(ctx context.Context, inc metadata.Incarnation, addr string, attended func()) error {
	cc, err := p.conn(inc, addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := peerpb.NewPeerClient(cc).Attend(ctx, &peerpb.AttendRequest{From: uint64(p.self), To: uint64(inc)})
	if err != nil {
		return unreachable("attend", addr, err)
	}
	first, err := stream.Recv()
	if err != nil {
		return unreachable("attend", addr, err)
	}
	if err := p.answeredBy(inc, first.GetIncarnation()); err != nil {
		return err
	}
	attended()
	for {
		if _, err := stream.Recv(); err != nil {
			return unreachable("attend", addr, err)
		}
	}
}

// Probe asks on a connection of its own, so that neither a stale connection
// nor one that waits to be tried again decides.
func (p *Pool) Probe(ctx context.Context, inc metadata.Incarnation, addr string) (Status, error) {
	cc, err := p.dial(addr)
	if err != nil {
		return Status{}, err
	}
	defer cc.Close()
	resp, err := peerpb.NewPeerClient(cc).Probe(ctx, &peerpb.ProbeRequest{From: uint64(p.self), To: uint64(inc)})
	if err != nil {
		return Status{}, unreachable("probe", addr, err)
	}
	if err := p.answeredBy(inc, resp.GetIncarnation()); err != nil {
		return Status{}, err
	}
	return Status{
		BucketFailing: resp.GetBucketFailing(),
		SessionValid:  resp.GetSessionValid(),
		StuckFor:      time.Duration(max(resp.GetStuckMillis(), 0)) * time.Millisecond,
	}, nil
}

// AskRelease asks a peer to give partitions up and returns those it released.
// ErrUnreachable means that it may be asked again.
func (p *Pool) AskRelease(ctx context.Context, inc metadata.Incarnation, addr string, parts []tiering.Claim) ([]tiering.Released, error) {
	var all []tiering.Released
	for len(parts) > 0 {
		n := min(len(parts), maxPartitions)
		released, err := p.askRelease(ctx, inc, addr, parts[:n])
		if err != nil {
			return nil, err
		}
		all = append(all, released...)
		parts = parts[n:]
	}
	return all, nil
}

func (p *Pool) askRelease(ctx context.Context, inc metadata.Incarnation, addr string, parts []tiering.Claim) ([]tiering.Released, error) {
	cc, err := p.conn(inc, addr)
	if err != nil {
		return nil, err
	}
	resp, err := peerpb.NewPeerClient(cc).AskRelease(ctx, &peerpb.AskReleaseRequest{
		From: uint64(p.self), To: uint64(inc), Partitions: ownedToWire(parts),
	})
	if err != nil {
		return nil, unreachable("ask for release", addr, err)
	}
	if err := p.answeredBy(inc, resp.GetIncarnation()); err != nil {
		return nil, err
	}
	return releasedFromWire(resp.GetReleased())
}

func (p *Pool) answeredBy(want metadata.Incarnation, got uint64) error {
	if uint64(want) == got {
		return nil
	}
	return &WrongIncarnationError{Want: want, Got: metadata.Incarnation(got)}
}

// unreachable turns a gRPC error into ours. Only what never came to an answer
// is ErrUnreachable; a refusal by the peer is an answer.
func unreachable(act, addr string, err error) error {
	switch status.Code(err) {
	case codes.Aborted, codes.InvalidArgument, codes.ResourceExhausted, codes.Unimplemented:
		return fmt.Errorf("%s %s: %w", act, addr, err)
	}
	return fmt.Errorf("%s %s: %w (%w)", act, addr, ErrUnreachable, err)
}
