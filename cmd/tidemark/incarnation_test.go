package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
	objects "github.com/tidemark-io/tidemark/tiering/object/mem"
)

// unlisted is a metadata store that does not list topics.
type unlisted struct {
	metadata.KV
	asked chan struct{}
}

func (u unlisted) Range(ctx context.Context, prefix string) ([]metadata.Entry, int64, error) {
	if prefix != metadata.PrefixTopics {
		return u.KV.Range(ctx, prefix)
	}
	select {
	case u.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return nil, 0, fmt.Errorf("%w: %w", metadata.ErrUnavailable, ctx.Err())
}

// testBase is what an embedded broker rests on, in memory.
func testBase(kv metadata.KV, listen string) *base {
	cfg := defaultConfig()
	cfg.Listen, cfg.Advertise, cfg.FlushSpacing, cfg.FlushBudget = listen, "127.0.0.1:9092", time.Millisecond, 0
	return &base{
		cfg: cfg, reg: prometheus.NewRegistry(), log: slog.New(slog.DiscardHandler),
		store: objects.New(), kv: kv, identity: metadata.Identity{Generation: 1},
	}
}

// A broker that is told to stop before it knows the cluster's metadata stops.
func TestStopBeforeTheMetadataIsLoaded(t *testing.T) {
	kv := unlisted{KV: mem.New().Client(), asked: make(chan struct{}, 1)}
	b := testBase(kv, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.incarnation(ctx, newStatus(b.reg), func() { t.Error("ready") }) }()
	<-kv.asked
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("goes on")
	}
}

// Whoever asks before the metadata is loaded waits: an answer without topics and
// brokers would have consumers of a pattern give up their partitions.
func TestNoAnswersBeforeTheMetadataIsLoaded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	kv := unlisted{KV: mem.New().Client(), asked: make(chan struct{}, 1)}
	b := testBase(kv, addr)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.incarnation(ctx, newStatus(b.reg), func() {}) }()
	defer func() { cancel(); <-ended }()
	<-kv.asked
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(1) // null topics: all of them
	if _, err := nc.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)); err != nil {
		t.Fatal(err)
	}
	_ = nc.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := nc.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// What a store answers for a while must not end the process.
func TestOver(t *testing.T) {
	for _, err := range []error{metadata.ErrUnavailable, metadata.ErrIncarnationOver, metadata.ErrNoSpace, metadata.ErrLeaseNotFound} {
		if !over(fmt.Errorf("register broker: %w", err)) {
			t.Errorf("%v ends the process", err)
		}
	}
	if over(io.ErrUnexpectedEOF) {
		t.Error("an unforeseen error does not end the process")
	}
}
