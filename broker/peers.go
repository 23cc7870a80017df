package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/coordinator"
	"github.com/tidemark-io/tidemark/broker/internal/kclient"
	"github.com/tidemark-io/tidemark/metadata"
)

// Peers asks brokers of the cluster for what Kafka has a request of its own: on
// their listeners for clients, or, this broker itself, without the network.
type Peers struct {
	self   metadata.Incarnation
	client *kclient.Client
	server atomic.Pointer[Server]
}

var _ coordinator.Peers = (*Peers)(nil)

// NewPeers returns the peers of an incarnation; a nil dial means TCP. The
// coordinator needs them before there is a server, which Serve names later.
func NewPeers(self metadata.Incarnation, dial func(ctx context.Context, addr string) (net.Conn, error)) *Peers {
	return &Peers{self: self, client: kclient.New("tidemark-"+self.String(), dial)}
}

// Serve has requests to this broker served by s.
func (p *Peers) Serve(s *Server) { p.server.Store(s) }

// Close ends the connections to the others.
func (p *Peers) Close() { p.client.Close() }

// Request implements coordinator.Peers.
func (p *Peers) Request(ctx context.Context, to metadata.Broker, req kmsg.Request) (kmsg.Response, error) {
	if to.Incarnation != p.self {
		return p.client.Request(ctx, net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))), req)
	}
	s := p.server.Load()
	markers, ok := req.(*kmsg.WriteTxnMarkersRequest)
	switch {
	case s == nil:
		return nil, errors.New("not serving yet")
	case !ok:
		return nil, fmt.Errorf("this broker does not ask itself for %s", kmsg.NameForKey(req.Key()))
	}
	return s.writeOwnMarkers(ctx, markers), nil
}
