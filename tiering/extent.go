package tiering

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/seeded"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

const (
	pageCacheBytes = 32 << 20
	refBytes       = 96
	segmentBytes   = 128 // of a wal.SegmentRef in memory
	fetchTimeout   = 30 * time.Second
)

// extentID names an extent, or a block of a segment, for ever.
type extentID struct {
	object   string
	inc      incarnation
	slot     uint64
	position int64
}

func idOf(ref *wal.ExtentRef) extentID {
	if seeded.KeyFromBaseOffset {
		return extentID{position: ref.Base}
	}
	return extentID{ref.Object, ref.Incarnation, ref.Slot, ref.Position}
}

// inMemory reports whether an extent is in the memory tail.
func (l *Log) inMemory(ref *wal.ExtentRef) bool {
	return ref.Incarnation == l.cfg.Incarnation && ref.Object == "" && l.tail.has(ref.Slot)
}

// extent returns an extent's batches as served: from the memory tail, from the
// verified extents, or from disk cache and bucket. release gives memory back.
func (l *Log) extent(ctx context.Context, ref *wal.ExtentRef) (b []byte, release func(), err error) {
	if ref.Incarnation == l.cfg.Incarnation && ref.Object == "" {
		if b, buf := l.tail.get(ref); buf != nil {
			l.m.reads.WithLabelValues("memory").Add(float64(len(b)))
			return b, buf.release, nil
		}
	}
	r := *ref
	b, err = l.hot.get(ctx, idOf(ref), func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		ctx, span := l.cfg.Tracer.Start(ctx, "read extent")
		defer span.End()
		return l.fetchExtent(ctx, &r)
	})
	if err != nil {
		return nil, nil, err
	}
	l.m.reads.WithLabelValues("store").Add(float64(len(b)))
	return b, func() {}, nil
}

// fetchExtent reads an extent and checks it before anyone sees it. What the
// cache holds may be damaged; the bucket is asked before the bytes are given up.
// ErrDataLoss means that the object is gone: whether it should be, the caller
// finds out from the manifest as it is then.
func (l *Log) fetchExtent(ctx context.Context, ref *wal.ExtentRef) ([]byte, error) {
	key := ref.Key()
	stored, err := l.readRange(ctx, key, ref.Position, ref.Len)
	if err == nil {
		var b []byte
		if b, err = openExtentBytes(stored, ref); err == nil {
			return b, nil
		}
		l.cfg.Logger.Warn("extent failed its checksum, reading it again from the bucket", "key", key, "position", ref.Position, "error", err)
		l.dropChunks(key, ref.Position, ref.Len)
	}
	if !errors.Is(err, object.ErrNotFound) {
		if stored, err = l.cfg.Store.Get(ctx, key, ref.Position, ref.Len); err == nil {
			var b []byte
			if b, err = openExtentBytes(stored, ref); err == nil {
				return b, nil
			}
			l.cfg.Logger.Error("extent in the bucket is corrupt", "key", key, "position", ref.Position, "error", err)
			return nil, err
		}
	}
	if errors.Is(err, object.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrDataLoss, key)
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrStoreUnavailable, key, err)
}

// openExtentBytes verifies stored bytes and undoes storage compression.
func openExtentBytes(stored []byte, ref *wal.ExtentRef) ([]byte, error) {
	if int64(len(stored)) != ref.Len {
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrCorrupt, len(stored), ref.Len)
	}
	if crc32.Checksum(stored, castagnoli) != ref.CRC {
		return nil, fmt.Errorf("%w: CRC32C", ErrCorrupt)
	}
	if !ref.Zstd {
		return stored, nil
	}
	b, err := wal.Inflate(stored, ref.RawLen)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return b, nil
}

// readRange reads bytes of an object through the chunk cache.
func (l *Log) readRange(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	if l.cfg.Cache == nil {
		return l.cfg.Store.Get(ctx, key, pos, length)
	}
	out := make([]byte, 0, length)
	for at := pos; at < pos+length; {
		index := at / ChunkLen
		b, release, err := l.cfg.Cache.Chunk(ctx, key, index, l.loadChunk(key, index))
		if err != nil {
			return nil, err
		}
		from := at - index*ChunkLen
		if from >= int64(len(b)) {
			release()
			return nil, fmt.Errorf("%w: %s ends at %d", ErrCorrupt, key, index*ChunkLen+int64(len(b)))
		}
		n := min(int64(len(b))-from, pos+length-at)
		out = append(out, b[from:from+n]...)
		release()
		at += n
	}
	return out, nil
}

func (l *Log) loadChunk(key string, index int64) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		return l.cfg.Store.Get(ctx, key, index*ChunkLen, ChunkLen)
	}
}

// loadPage returns a manifest page's entries.
func (l *Log) loadPage(ctx context.Context, p *Partition, ref wal.PageRef) ([]wal.ExtentRef, error) {
	key := wal.PageKey(p.tp, ref.Epoch, ref.Number)
	return l.pages.get(ctx, key, func(ctx context.Context) ([]wal.ExtentRef, error) {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		b, err := l.cfg.Store.Get(ctx, key, 0, -1)
		if err != nil {
			return nil, missing(key, err)
		}
		refs, err := wal.DecodePage(b, l.cfg.Cluster, ref)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, key, err)
		}
		return refs, nil
	})
}

// missing tells an object that is gone from a bucket that does not answer.
func missing(key string, err error) error {
	if errors.Is(err, object.ErrNotFound) {
		return fmt.Errorf("%w: %s", ErrDataLoss, key)
	}
	return fmt.Errorf("%w: %s: %w", ErrStoreUnavailable, key, err)
}

// loadSegmentPage returns the segments that a manifest page names.
func (l *Log) loadSegmentPage(ctx context.Context, tp metadata.TopicPartition, ref wal.PageRef) ([]wal.SegmentRef, error) {
	key := wal.PageKey(tp, ref.Epoch, ref.Number)
	return l.segmentPages.get(ctx, key, func(ctx context.Context) ([]wal.SegmentRef, error) {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		b, err := l.cfg.Store.Get(ctx, key, 0, -1)
		if err != nil {
			return nil, missing(key, err)
		}
		refs, err := wal.DecodeSegmentPage(b, l.cfg.Cluster, ref)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, key, err)
		}
		return refs, nil
	})
}

// loadSection returns the blocks of a partition's section of a segment.
func (l *Log) loadSection(ctx context.Context, tp metadata.TopicPartition, ref *wal.SegmentRef) ([]wal.ExtentRef, error) {
	key, r := wal.SegmentKey(tp, ref), *ref
	return l.pages.get(ctx, fmt.Sprintf("%s@%d", key, ref.Position), func(ctx context.Context) ([]wal.ExtentRef, error) {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		s, err := l.fetchSection(ctx, tp, &r)
		if err != nil {
			return nil, err
		}
		return s.Extents(key), nil
	})
}

// fetchSection reads a section and checks it. What the cache holds may be
// damaged; the bucket is asked before it is given up.
func (l *Log) fetchSection(ctx context.Context, tp metadata.TopicPartition, ref *wal.SegmentRef) (*wal.Section, error) {
	key := wal.SegmentKey(tp, ref)
	if b, err := l.readRange(ctx, key, ref.Position, ref.Len); err == nil {
		if s, err := wal.DecodeSection(b, tp, ref); err == nil {
			return s, nil
		}
		l.dropChunks(key, ref.Position, ref.Len)
	}
	b, err := l.cfg.Store.Get(ctx, key, ref.Position, ref.Len)
	if err != nil {
		return nil, missing(key, err)
	}
	s, err := wal.DecodeSection(b, tp, ref)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, key, err)
	}
	return s, nil
}

// dropChunks makes the cache forget a range that failed its checks.
func (l *Log) dropChunks(key string, pos, length int64) {
	for index := pos / ChunkLen; l.cfg.Cache != nil && index*ChunkLen < pos+length; index++ {
		l.cfg.Cache.Drop(key, index)
	}
}
