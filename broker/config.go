package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/tidemark-io/tidemark/metadata"
)

// Config is what a Server is made of. Zero values of the settings mean the
// defaults named in the comments; the dependencies must be given.
type Config struct {
	// Self and ID are this broker's incarnation and the id that clients see,
	// unless the view shows it registered under another one.
	Self      metadata.Incarnation
	ID        int32
	ClusterID string

	// Listener is where clients connect. Run closes it.
	Listener net.Listener

	Log    Log
	View   View
	Admin  Admin
	Groups GroupCoordinator
	// Txns is whom the partitions of a transaction are verified with; nil: there
	// are no transactions, and what needs them is refused.
	Txns TxnVerifier
	// Transactions coordinates transactions; nil: this broker has no coordinator,
	// and advertises none. With it Txns is not needed.
	Transactions TransactionCoordinator

	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: metrics are kept but not exported
	Tracer     trace.Tracer          // nil: no traces

	// FrameBytesMax bounds one request (Kafka: socket.request.max.bytes,
	// 100 MiB).
	FrameBytesMax int32
	// RequestBytesMax bounds the buffers of all requests being read or served
	// (512 MiB). A connection that gets no room within RequestBytesWait (30 s)
	// is closed: waiting longer, while holding part of a frame, would let
	// half-read frames lock one another out.
	RequestBytesMax  int64
	RequestBytesWait time.Duration
	// DecodeBytesMax bounds the memory that decoding one request may take
	// besides its frame (16 MiB: some 230,000 fetched partitions). Serving it
	// takes a few times as much.
	DecodeBytesMax int64
	// FetchBytesMax bounds one fetch response (Kafka: fetch.max.bytes, 55 MiB)
	// and FetchBytesTotalMax all that are being built or sent (256 MiB).
	FetchBytesMax      int32
	FetchBytesTotalMax int64
	// FetchSessionsMax bounds the incremental fetch sessions kept (Kafka:
	// max.incremental.fetch.session.cache.slots, 1000).
	FetchSessionsMax int
	// InFlightMax bounds the requests of one connection that are being served
	// or wait to be answered (64). More would only move the client's queue here.
	InFlightMax int
	// ConnectionsMax bounds connections (20,000); one above it is closed.
	ConnectionsMax int
	// IdleMax closes a connection that asks nothing (Kafka:
	// connections.max.idle.ms, 10 min). A frame must arrive whole in that time.
	IdleMax time.Duration
	// WriteTimeout closes a connection whose client takes no bytes (30 s).
	WriteTimeout time.Duration

	// AutoCreateTopics lets Metadata create topics (Kafka:
	// auto.create.topics.enable). DefaultPartitions (1) and
	// DefaultReplicationFactor (1) serve where a client leaves the choice.
	AutoCreateTopics         bool
	DefaultPartitions        int32
	DefaultReplicationFactor int16
	// TopicPartitionsMax bounds the partitions of one topic (10,000).
	TopicPartitionsMax int32
	// Settings are the values of other broker configs to show and to take
	// topic defaults from, by Kafka's broker config name.
	Settings map[string]string
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// ensureDefaults fills in what was left zero.
func (c *Config) ensureDefaults() {
	if c.Txns == nil && c.Transactions != nil {
		c.Txns = txnAsker{c.Transactions}
	}
	setDefault(&c.Logger, slog.New(slog.DiscardHandler))
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Tracer == nil {
		c.Tracer = noop.NewTracerProvider().Tracer("")
	}
	setDefault(&c.FrameBytesMax, 100<<20)
	setDefault(&c.RequestBytesMax, 512<<20)
	setDefault(&c.RequestBytesWait, 30*time.Second)
	setDefault(&c.DecodeBytesMax, 16<<20)
	setDefault(&c.FetchBytesMax, 55<<20)
	setDefault(&c.FetchBytesTotalMax, 256<<20)
	setDefault(&c.FetchSessionsMax, 1000)
	setDefault(&c.InFlightMax, 64)
	setDefault(&c.ConnectionsMax, 20_000)
	setDefault(&c.IdleMax, 10*time.Minute)
	setDefault(&c.WriteTimeout, 30*time.Second)
	setDefault(&c.DefaultPartitions, 1)
	setDefault(&c.DefaultReplicationFactor, 1)
	setDefault(&c.TopicPartitionsMax, 10_000)
}

// validate reports every conflict at once.
func (c *Config) validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(c.Listener != nil, "no listener")
	need(c.Log != nil, "no log")
	need(c.View != nil, "no metadata view")
	need(c.Admin != nil, "no metadata admin")
	need(c.Groups != nil, "no group coordinator")
	need(c.Self != 0, "no incarnation")
	need(c.ID >= 0, "broker id %d is negative", c.ID)
	need(c.FrameBytesMax >= 1<<10, "a frame limit of %d bytes is below 1 KiB", c.FrameBytesMax)
	need(c.RequestBytesMax >= int64(c.FrameBytesMax), "the budget of all requests, %d bytes, is below that of one, %d", c.RequestBytesMax, c.FrameBytesMax)
	need(c.FetchBytesTotalMax >= int64(c.FetchBytesMax), "the budget of all fetch responses, %d bytes, is below that of one, %d", c.FetchBytesTotalMax, c.FetchBytesMax)
	need(c.InFlightMax > 0, "in-flight limit %d is not positive", c.InFlightMax)
	need(c.ConnectionsMax > 0, "connection limit %d is not positive", c.ConnectionsMax)
	need(c.DefaultPartitions > 0 && c.DefaultPartitions <= c.TopicPartitionsMax, "default partition count %d is not within 1 and %d", c.DefaultPartitions, c.TopicPartitionsMax)
	need(c.DefaultReplicationFactor > 0, "default replication factor %d is not positive", c.DefaultReplicationFactor)
	return errors.Join(errs...)
}
