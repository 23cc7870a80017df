package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidemark-io/tidemark/broker/cluster/peer/peerpb"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// Handler is the broker behind a Server. Its methods are called concurrently.
type Handler interface {
	// Status reports how the broker fares. It must not block.
	Status() Status
	// Release gives partitions up and returns those whose RELEASE is
	// committed; what it cannot answer for is left out.
	Release(ctx context.Context, from metadata.Incarnation, parts []tiering.Claim) ([]tiering.Released, error)
}

// Server answers other brokers.
type Server struct {
	peerpb.UnimplementedPeerServer

	self    metadata.Incarnation
	handler Handler
	grpc    *grpc.Server
	stopped chan struct{} // closed by Stop: ends the attended streams
}

// NewServer returns a server that answers as incarnation self. Further services
// of the same listener are added by register, which may be nil.
func NewServer(self metadata.Incarnation, h Handler, register func(grpc.ServiceRegistrar)) *Server {
	s := &Server{self: self, handler: h, stopped: make(chan struct{})}
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(16<<10),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.WaitForHandlers(true),
	)
	peerpb.RegisterPeerServer(s.grpc, s)
	if register != nil {
		register(s.grpc)
	}
	return s
}

// Serve answers on l until Stop, and closes l.
func (s *Server) Serve(l net.Listener) error {
	err := s.grpc.Serve(netutil.LimitListener(l, maxConnections))
	if err == nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("serve peers: %w", err)
}

// Stop closes the listener and all connections and waits for running calls.
// It is called once.
func (s *Server) Stop() {
	close(s.stopped)
	s.grpc.Stop()
}

// Attend keeps the stream open until either side ends.
func (s *Server) Attend(req *peerpb.AttendRequest, stream peerpb.Peer_AttendServer) error {
	if err := stream.Send(&peerpb.AttendResponse{Incarnation: uint64(s.self)}); err != nil {
		return err
	}
	if req.GetTo() != uint64(s.self) {
		return nil
	}
	select {
	case <-stream.Context().Done():
	case <-s.stopped:
	}
	return nil
}

// Probe answers at once.
func (s *Server) Probe(_ context.Context, req *peerpb.ProbeRequest) (*peerpb.ProbeResponse, error) {
	resp := &peerpb.ProbeResponse{Incarnation: uint64(s.self)}
	if req.GetTo() != uint64(s.self) {
		return resp, nil
	}
	st := s.handler.Status()
	resp.BucketFailing, resp.SessionValid = st.BucketFailing, st.SessionValid
	resp.StuckMillis = st.StuckFor.Milliseconds()
	return resp, nil
}

// AskRelease gives partitions up.
func (s *Server) AskRelease(ctx context.Context, req *peerpb.AskReleaseRequest) (*peerpb.AskReleaseResponse, error) {
	resp := &peerpb.AskReleaseResponse{Incarnation: uint64(s.self)}
	if req.GetTo() != uint64(s.self) {
		return resp, nil
	}
	if n := len(req.GetPartitions()); n > maxPartitions {
		return nil, status.Errorf(codes.InvalidArgument, "%d partitions in one request, at most %d", n, maxPartitions)
	}
	parts, err := ownedFromWire(req.GetPartitions())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	released, err := s.handler.Release(ctx, metadata.Incarnation(req.GetFrom()), parts)
	if err != nil {
		return nil, status.Error(codes.Aborted, err.Error())
	}
	resp.Released = releasedToWire(released)
	return resp, nil
}
