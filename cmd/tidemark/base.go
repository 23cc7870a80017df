package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark-io/tidemark/cache"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/embedded"
	"github.com/tidemark-io/tidemark/metadata/etcd"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/file"
	"github.com/tidemark-io/tidemark/tiering/object/s3"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// The start-up probe: enough racers to catch a store that is not atomic (of
// 200 rounds on one, 199 had two winners), few enough to take no time.
const (
	probeKeys   = 4
	probeRacers = 8
)

// base is what outlives an incarnation: the store, the metadata store, the
// cache, and the identity of the cluster they belong to.
type base struct {
	cfg      *Config
	reg      *prometheus.Registry
	log      *slog.Logger
	tracer   trace.Tracer
	store    object.Store
	kv       metadata.KV
	cache    tiering.Cache
	identity metadata.Identity
	cluster  wal.ClusterID

	closers []func() error // last opened first
}

// openBase opens and checks everything the broker rests on. What cannot be
// reached or is unsuitable is an error: there is nothing to fall back to.
func openBase(ctx context.Context, cfg *Config, reg *prometheus.Registry, log *slog.Logger, tracer trace.Tracer) (*base, error) {
	b := &base{cfg: cfg, reg: reg, log: log, tracer: tracer}
	for _, step := range []func(context.Context) error{b.openStore, b.openMetadata, b.checkStore, b.identify, b.openCache} {
		if err := step(ctx); err != nil {
			b.close()
			return nil, err
		}
	}
	return b, nil
}

func (b *base) closeLater(f func() error) { b.closers = append(b.closers, f) }

func (b *base) close() {
	for i := len(b.closers) - 1; i >= 0; i-- {
		if err := b.closers[i](); err != nil {
			b.log.Warn("closing failed", "error", err)
		}
	}
	b.closers = nil
}

func (b *base) openStore(context.Context) error {
	loc, err := b.cfg.StoreLocation()
	if err != nil {
		return err
	}
	var store object.Store
	if loc.Bucket != "" {
		s, err := s3.Open(s3.Config{Endpoint: b.cfg.S3Endpoint, Region: b.cfg.S3Region, Bucket: loc.Bucket, Prefix: loc.Prefix, Logger: b.log})
		if err != nil {
			return err
		}
		b.closeLater(s.Close)
		store = s
	} else {
		s, err := file.Open(file.Config{Dir: loc.Dir, Logger: b.log})
		if errors.Is(err, file.ErrLocked) && b.cfg.Embedded() {
			return fmt.Errorf("another broker is running with --data-dir %s: %w", b.cfg.DataDir, err)
		}
		if err != nil {
			return err
		}
		b.closeLater(s.Close)
		store = s
	}
	store = object.Metered(store, b.reg)
	if b.cfg.OTLPEndpoint != "" {
		store = object.Traced(store, b.tracer)
	}
	b.store = object.Retrying(store, object.RetryConfig{})
	return nil
}

// checkStore proves that the store can hold a log.
func (b *base) checkStore(ctx context.Context) error {
	warn := func(msg string, err error) { b.log.Warn(msg, "error", err) }
	if c, ok := object.As[object.Checker](b.store); ok {
		if err := c.Check(ctx, wal.Prefixes, warn); err != nil {
			return fmt.Errorf("object store: %w", err)
		}
	}
	if err := object.Probe(ctx, b.store, probeKeys, probeRacers); err != nil {
		return fmt.Errorf("object store: %w", err)
	}
	return nil
}

func (b *base) openMetadata(ctx context.Context) error {
	endpoints := b.cfg.Etcd
	if b.cfg.Embedded() {
		s, err := embedded.Start(ctx, filepath.Join(b.cfg.DataDir, "etcd"), b.log)
		if err != nil {
			return err
		}
		b.closeLater(s.Close)
		endpoints = s.Endpoints()
	}
	kv, err := etcd.Open(ctx, etcd.Config{Endpoints: endpoints, Cluster: b.cfg.Cluster, Registerer: b.reg, Log: b.log})
	if err != nil {
		return err
	}
	b.closeLater(kv.Close)
	b.kv = kv
	return nil
}

func (b *base) identify(ctx context.Context) (err error) {
	b.identity, err = metadata.EnsureIdentity(ctx, b.kv, b.store, metadata.IdentityConfig{
		Exists: object.ErrExists, NotFound: object.ErrNotFound, Store: b.etcdName(), Bucket: b.storeName(),
	})
	if err != nil {
		return err
	}
	id, err := base64.RawURLEncoding.DecodeString(b.identity.ClusterID)
	if err != nil || len(id) != len(b.cluster) {
		return fmt.Errorf("cluster id %q is not 22 characters of base64", b.identity.ClusterID)
	}
	copy(b.cluster[:], id)
	return nil
}

func (b *base) etcdName() string {
	if b.cfg.Embedded() {
		return "the embedded etcd in " + b.cfg.DataDir
	}
	return fmt.Sprintf("etcd (cluster %s)", b.cfg.Cluster)
}

func (b *base) storeName() string {
	if b.cfg.Embedded() {
		return "the embedded bucket in " + b.cfg.DataDir
	}
	return b.cfg.Store
}

func (b *base) openCache(context.Context) error {
	if b.cfg.CacheBytes > 0 {
		if err := os.MkdirAll(b.cfg.CacheDir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			b.log.Warn("no cache directory", "error", err)
		}
	}
	c, err := cache.Open(cache.Config{
		Dir: b.cfg.CacheDir, Cluster: b.identity.ClusterID, DiskBytes: b.cfg.CacheBytes, ChunkBytes: tiering.ChunkLen,
		LoadBytesPerSecond: b.cfg.CatchUpBandwidth,
		Registerer:         b.reg, Logger: b.log,
	})
	if err != nil {
		return err
	}
	b.closeLater(c.Close)
	b.cache = chunkCache{c}
	return nil
}

// chunkCache makes the cache what the log asks for.
type chunkCache struct{ *cache.Cache }

func (c chunkCache) Chunk(ctx context.Context, key string, index int64, load func(context.Context) ([]byte, error)) ([]byte, func(), error) {
	return c.Cache.Chunk(ctx, key, index, load)
}

func (c chunkCache) Prefetch(ctx context.Context, key string, index int64, load func(context.Context) ([]byte, error)) {
	c.Cache.Prefetch(ctx, key, index, load)
}
