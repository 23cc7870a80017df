package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/tidemark-io/tidemark/broker/internal/fetchsession"
	"github.com/tidemark-io/tidemark/broker/internal/producerid"
)

// Keys of log attributes.
const (
	keyRemote      = "remote"
	keyClient      = "client_id"
	keyAPI         = "api"
	keyVersion     = "version"
	keyTopic       = "topic"
	keyPartition   = "partition"
	keyError       = "error"
	keyStack       = "stack"
	keyReason      = "reason"
	keySoftware    = "software"
	keySoftwareVer = "software_version"
)

// Server serves Kafka clients on one listener.
type Server struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	apis     map[int16]*api
	sessions *fetchsession.Cache
	pids     *producerid.Source
	txns     *verifications

	leaderless waits // for topics' leaders
	unopened   waits // for own partitions

	requestBytes *semaphore.Weighted // Config.RequestBytesMax
	fetchBytes   *semaphore.Weighted // Config.FetchBytesTotalMax
	behindBytes  *semaphore.Weighted // of which fetches of what has left memory may take half
	inflating    *semaphore.Weighted // batches of compacted topics inflated at once
	lookups      *semaphore.Weighted // lookups by time at once, which may inflate batches

	drainOnce sync.Once
	// drain ends when Drain is called: nothing more is read, long polls end.
	drain      context.Context
	startDrain context.CancelFunc
	// abort ends when Drain is out of time: requests that outlive their client
	// are cut off.
	abort      context.Context
	startAbort context.CancelFunc

	// mu guards conns and closed. Each connection has an entry until its
	// goroutines are gone.
	mu     sync.Mutex
	conns  map[*conn]struct{}
	closed bool
	wg     sync.WaitGroup // one per entry of conns
}

// New checks cfg and returns a server that does not listen yet.
func New(cfg Config) (*Server, error) {
	cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("broker configuration: %w", err)
	}
	s := &Server{
		cfg:          cfg,
		log:          cfg.Logger,
		metrics:      newMetrics(cfg.Registerer),
		requestBytes: semaphore.NewWeighted(cfg.RequestBytesMax),
		fetchBytes:   semaphore.NewWeighted(cfg.FetchBytesTotalMax),
		behindBytes:  semaphore.NewWeighted(max(int64(cfg.FetchBytesMax), cfg.FetchBytesTotalMax/2)),
		inflating:    semaphore.NewWeighted(inflatingMax),
		lookups:      semaphore.NewWeighted(lookupsMax),
		conns:        map[*conn]struct{}{},
	}
	s.drain, s.startDrain = context.WithCancel(context.Background())
	s.abort, s.startAbort = context.WithCancel(context.Background())
	s.sessions = fetchsession.NewCache(cfg.FetchSessionsMax)
	s.pids = producerid.New(cfg.Admin.AllocateProducerIDs)
	s.txns = newVerifications(cfg.Txns)
	s.apis = s.table()
	return s, nil
}

// Run accepts connections until ctx is done or Drain has finished, and returns
// when every connection is gone. When ctx ends, requests at work are cut off:
// call Drain first for a graceful end.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.closeListener() })
	defer stop()
	defer context.AfterFunc(s.abort, cancel)()
	err := s.accept(ctx)
	s.closeListener()
	select {
	case <-s.drain.Done(): // Drain decides how long connections may go on
	default:
		cancel()
	}
	s.wg.Wait()
	if ctx.Err() != nil || s.isDraining() {
		return nil
	}
	return err
}

func (s *Server) isDraining() bool { return s.drain.Err() != nil }

func (s *Server) closeListener() { _ = s.cfg.Listener.Close() }

// accept hands each connection a goroutine. It returns when the listener is
// closed; errors that pass, such as a lack of file descriptors, are waited out.
func (s *Server) accept(ctx context.Context) error {
	const pauseMax = time.Second
	pause := 5 * time.Millisecond
	for {
		nc, err := s.cfg.Listener.Accept()
		if err == nil {
			pause = 5 * time.Millisecond
			s.serve(ctx, nc)
			continue
		}
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil || s.isDraining() {
			return nil
		}
		s.log.Warn("accepting a connection failed", keyError, err)
		select {
		case <-time.After(pause):
			pause = min(2*pause, pauseMax)
		case <-ctx.Done():
			return nil
		}
	}
}

// serve starts a connection's goroutine unless there are too many.
func (s *Server) serve(ctx context.Context, nc net.Conn) {
	s.mu.Lock()
	if s.closed || len(s.conns) >= s.cfg.ConnectionsMax {
		s.mu.Unlock()
		s.metrics.refused.WithLabelValues("limit").Inc()
		_ = nc.Close()
		return
	}
	c := newConn(s, nc)
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	s.metrics.accepted.Inc()
	s.metrics.connections.Inc()
	go func() {
		defer s.wg.Done()
		defer func() {
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			s.metrics.connections.Dec()
		}()
		c.run(ctx)
	}()
}

// Drain stops accepting and reading, ends long polls, lets the requests at work
// finish and their responses go out, and closes the connections. Those left
// when ctx is done are cut off. It returns when all are gone.
func (s *Server) Drain(ctx context.Context) error {
	s.drainOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.startDrain()
	})
	s.closeListener()
	s.eachConn((*conn).stopReading)
	gone := make(chan struct{})
	go func() { // ends when the connections do, which the next lines see to
		s.wg.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		s.eachConn(func(c *conn) { c.cut("drain timeout") })
		s.startAbort()
		<-gone
		return ctx.Err()
	}
}

// Close cuts every connection off and waits until they are gone.
func (s *Server) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Drain(ctx)
	return nil
}

func (s *Server) eachConn(f func(*conn)) {
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		f(c)
	}
}
