package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
	"github.com/tidemark-io/tidemark/tiering/object"
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

// testConfig is an embedded broker that rests on memory.
func testConfig(kv metadata.KV, listen string) *Config {
	cfg := &Config{
		Store: objects.New(), KV: kv, Identity: metadata.Identity{Generation: 1}, Single: true,
		Broker: metadata.Broker{Host: "127.0.0.1", Port: 9092},
		Listen: func() (clients, peers net.Listener, err error) {
			clients, err = net.Listen("tcp", listen)
			return clients, nil, err
		},
		FlushSpacing: time.Millisecond,
	}
	cfg.ensureDefaults()
	return cfg
}

// A broker that is told to stop before it knows the cluster's metadata stops.
func TestStopBeforeTheMetadataIsLoaded(t *testing.T) {
	kv := unlisted{KV: mem.New().Client(), asked: make(chan struct{}, 1)}
	cfg := testConfig(kv, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	cfg.Ready = func() { t.Error("ready") }
	go func() { ended <- runIncarnation(ctx, cfg) }()
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
	cfg := testConfig(kv, addr)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- runIncarnation(ctx, cfg) }()
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

// hanging is a bucket that stops answering.
type hanging struct {
	object.Store
	hung atomic.Bool
}

func (h *hanging) Create(ctx context.Context, key string, data ...[]byte) error {
	if h.hung.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.Store.Create(ctx, key, data...)
}

func (h *hanging) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	if h.hung.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Store.Get(ctx, key, pos, length)
}

// A stop takes the time it is given, whatever has stopped answering.
func TestStopDuringAnOutage(t *testing.T) {
	for _, outage := range []string{"none", "metadata", "bucket", "both"} {
		t.Run(outage, func(t *testing.T) {
			t.Parallel()
			kv := mem.New().Client()
			store := &hanging{Store: objects.New()}
			cfg := testConfig(kv, "127.0.0.1:0")
			cfg.Store, cfg.DrainTimeout = store, time.Second
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ready, ended := make(chan struct{}), make(chan error, 1)
			var current atomic.Pointer[Incarnation]
			cfg.Ready, cfg.Attach = func() { close(ready) }, current.Store
			go func() { ended <- runIncarnation(ctx, cfg) }()
			<-ready
			log := current.Load().Log()
			topic, _, err := metadata.CreateTopic(ctx, kv, metadata.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1})
			if err != nil {
				t.Fatal(err)
			}
			led, cancelLed := context.WithTimeout(ctx, 10*time.Second)
			defer cancelLed()
			if _, err := log.Await(led, metadata.TopicPartition{Topic: topic.ID}); err != nil {
				t.Fatal(err)
			}
			if outage != "none" && outage != "bucket" {
				kv.Pause()
			}
			if outage != "none" && outage != "metadata" {
				store.hung.Store(true)
			}
			begun := time.Now()
			cancel()
			err = <-ended
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("took %v: %v", took, err)
			}
			if outage == "none" && err != nil {
				t.Error(err)
			}
		})
	}
}

// A broker told to stop before it has a place in the cluster stops cleanly: it
// has nothing to hand over.
func TestStopWhileStarting(t *testing.T) {
	for _, silent := range []string{"metadata", "bucket"} {
		t.Run(silent, func(t *testing.T) {
			kv := mem.New().Client()
			store := &hanging{Store: objects.New()}
			cfg := testConfig(kv, "127.0.0.1:0")
			cfg.Store = store
			if silent == "metadata" {
				kv.Pause()
			}
			store.hung.Store(silent == "bucket")
			ctx, cancel := context.WithCancel(t.Context())
			defer time.AfterFunc(300*time.Millisecond, cancel).Stop()
			if err := Run(ctx, *cfg); err != nil {
				t.Error(err)
			}
		})
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
