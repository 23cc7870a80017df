package cluster

import (
	"context"
	"fmt"
	"sync"

	"github.com/tidemark-io/tidemark/broker/cluster/peer"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// fakeNet connects the nodes of one test.
type fakeNet struct {
	mu   sync.Mutex
	ends map[string]*fakeEnd // by address
}

type fakeEnd struct {
	inc  metadata.Incarnation
	node peer.Handler
	hung bool
	down chan struct{} // closed when the process is gone
}

func (n *fakeNet) listen(addr string, inc metadata.Incarnation, h peer.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ends[addr] = &fakeEnd{inc: inc, node: h, down: make(chan struct{})}
}

// kill makes an address refuse connections and breaks those that stand.
func (n *fakeNet) kill(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.ends[addr]; e != nil {
		close(e.down)
		delete(n.ends, addr)
	}
}

// hang makes an address accept and never answer.
func (n *fakeNet) hang(addr string, hung bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ends[addr].hung = hung
}

func (n *fakeNet) reach(ctx context.Context, inc metadata.Incarnation, addr string) (*fakeEnd, error) {
	n.mu.Lock()
	e := n.ends[addr]
	hung := e != nil && e.hung
	n.mu.Unlock()
	switch {
	case e == nil:
		return nil, fmt.Errorf("%w: %s refuses", peer.ErrUnreachable, addr)
	case hung:
		select {
		case <-ctx.Done():
		case <-e.down:
		}
		return nil, fmt.Errorf("%w: %s does not answer", peer.ErrUnreachable, addr)
	case e.inc != inc:
		return nil, &peer.WrongIncarnationError{Want: inc, Got: e.inc}
	}
	return e, nil
}

func (n *fakeNet) Attend(ctx context.Context, inc metadata.Incarnation, addr string, attended func()) error {
	e, err := n.reach(ctx, inc, addr)
	if err != nil {
		return err
	}
	attended()
	select {
	case <-ctx.Done():
	case <-e.down:
	}
	return fmt.Errorf("%w: %s reset", peer.ErrUnreachable, addr)
}

func (n *fakeNet) Probe(ctx context.Context, inc metadata.Incarnation, addr string) (peer.Status, error) {
	e, err := n.reach(ctx, inc, addr)
	if err != nil {
		return peer.Status{}, err
	}
	return e.node.Status(), nil
}

func (n *fakeNet) AskRelease(ctx context.Context, inc metadata.Incarnation, addr string, claims []tiering.Claim) ([]tiering.Released, error) {
	e, err := n.reach(ctx, inc, addr)
	if err != nil {
		return nil, err
	}
	return e.node.Release(ctx, 0, claims)
}

func (n *fakeNet) Forget(metadata.Incarnation) {}
func (n *fakeNet) Close()                      {}
