package tiering

import (
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/tidemark-io/tidemark/metadata"
)

const (
	compressMin  = 512  // bytes: below it the frame costs more than it saves
	compressSkip = 64   // extents of a topic stored as they came after one that did not shrink
	topicsMax    = 4096 // topics whose last sample is remembered
)

// compressor stores extents that came uncompressed as zstd frames, where that
// saves at least an eighth. It samples by topic: after an extent that did not
// shrink, the next ones of the topic are not tried. For one goroutine.
type compressor struct {
	level zstd.EncoderLevel // zero: the fastest
	once  sync.Once
	w     *zstd.Encoder
	skip  map[metadata.TopicID]int
}

// compress returns what to store for raw, and whether that is a zstd frame.
func (c *compressor) compress(topic metadata.TopicID, raw []byte) ([]byte, bool) {
	if len(raw) < compressMin {
		return raw, false
	}
	c.once.Do(func() {
		// The options are constants that NewWriter accepts.
		level := max(c.level, zstd.SpeedFastest)
		c.w, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		c.skip = make(map[metadata.TopicID]int)
	})
	if n := c.skip[topic]; n > 0 {
		c.skip[topic] = n - 1
		return raw, false
	}
	out := c.w.EncodeAll(raw, make([]byte, 0, len(raw)/2))
	if len(out) > len(raw)-len(raw)/8 {
		if len(c.skip) >= topicsMax {
			clear(c.skip)
		}
		c.skip[topic] = compressSkip
		return raw, false
	}
	return out, true
}
