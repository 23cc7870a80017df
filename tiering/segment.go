package tiering

import (
	"context"
	"fmt"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"github.com/tidemark-io/tidemark/tiering/batch"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

const (
	// sourcesAtOnce extents, or sourceBytes of them, are read ahead while a segment
	// is built.
	sourcesAtOnce = 32
	sourceBytes   = 16 << 20
)

// segmentBuilder lays extents of one or more partitions out as a segment. What
// it holds is the segment, and what is being read.
type segmentBuilder struct {
	log   *Log
	head  wal.SegmentHead
	parts [][]byte // the head, when it is built, and the blocks

	section  *wal.Section
	raw      []byte // of the block that is being filled
	block    wal.Block
	unshrunk bool // some batch of it came compressed
	sums     *producers
}

// build reads the sources, encodes the segment and checks that it says what they
// said. It leaves out those that cannot be read, and returns the others.
func (b *segmentBuilder) build(ctx context.Context, sources []source) (kept []source, refs []wal.SegmentRef, err error) {
	b.parts = make([][]byte, 1)
	for i := range sources {
		parts, head := len(b.parts), b.head
		err := b.add(ctx, &sources[i])
		switch {
		case err == nil:
			kept = append(kept, sources[i])
		case b.log.unreadable(ctx, &sources[i], err):
			b.parts, b.head, b.raw = b.parts[:parts], head, nil
		default:
			return nil, nil, fmt.Errorf("%s: %w", sources[i].p.tp, err)
		}
	}
	if len(kept) == 0 {
		return nil, nil, nil
	}
	if b.parts[0], refs, err = wal.EncodeSegmentHead(&b.head); err != nil {
		return nil, nil, err
	}
	for i := range kept {
		if from := kept[i].refs; refs[i].Base != from[0].Base || refs[i].Last != from[len(from)-1].Last {
			return nil, nil, fmt.Errorf("%w: segment of %s holds offsets %d to %d, its sources %d to %d",
				ErrCorrupt, kept[i].p.tp, refs[i].Base, refs[i].Last, from[0].Base, from[len(from)-1].Last)
		}
	}
	return kept, refs, verifySegment(b.parts)
}

// add appends the section of one source.
func (b *segmentBuilder) add(ctx context.Context, s *source) error {
	b.section = &wal.Section{Partition: s.p.tp, Epoch: s.p.epoch, Base: s.refs[0].Base}
	b.sums = newProducers()
	next := s.refs[0].Base
	for rest := s.refs; len(rest) > 0; {
		n, size := 0, int64(0)
		for n < len(rest) && n < sourcesAtOnce && (n == 0 || size+rest[n].RawLen <= sourceBytes) {
			size += rest[n].RawLen
			n++
		}
		read, release, err := b.log.readSources(ctx, rest[:n])
		for i := range read {
			if err == nil && rest[i].Base != next {
				err = fmt.Errorf("%w: extent at offset %d where %d belongs", ErrCorrupt, rest[i].Base, next)
			}
			if err == nil {
				err = b.extent(read[i], &rest[i])
			}
			next = rest[i].Last + 1
		}
		release()
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	b.endBlock()
	b.section.Producers = b.sums.committed()
	b.head.Sections = append(b.head.Sections, *b.section)
	return nil
}

// readSources reads extents at the same time: from the memory tail where they
// are still there, else as a reader would.
func (l *Log) readSources(ctx context.Context, refs []wal.ExtentRef) ([][]byte, func(), error) {
	read, releases := make([][]byte, len(refs)), make([]func(), len(refs))
	var g errgroup.Group
	g.SetLimit(readConcurrency)
	for i := range refs {
		releases[i] = func() {}
		if refs[i].Incarnation == l.cfg.Incarnation {
			if b, buf := l.tail.get(&refs[i]); buf != nil {
				read[i], releases[i] = b, buf.release
				continue
			}
		}
		g.Go(func() (err error) {
			ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
			defer cancel()
			read[i], err = l.fetchExtent(ctx, &refs[i])
			return err
		})
	}
	err := g.Wait()
	return read, func() {
		for _, release := range releases {
			release()
		}
	}, err
}

// extent adds the batches of one extent.
func (b *segmentBuilder) extent(raw []byte, ref *wal.ExtentRef) error {
	at := ref.Base
	for len(raw) > 0 {
		h, err := batch.Parse(raw)
		if err != nil {
			return fmt.Errorf("%w: offset %d: %w", ErrCorrupt, at, err)
		}
		if h.BaseOffset != at || h.LastOffsetDelta < 0 {
			return fmt.Errorf("%w: batch at offset %d where %d belongs", ErrCorrupt, h.BaseOffset, at)
		}
		// What is in memory was checked when it came. It is checked again, because
		// its other copy, in the bucket, is deleted for it.
		if err := batch.CheckCRC(raw[:h.Length]); err != nil {
			return fmt.Errorf("%w: offset %d: %w", ErrCorrupt, at, err)
		}
		if err := b.batch(raw[:h.Length], &h, ref.Epoch); err != nil {
			return err
		}
		at, raw = h.LastOffset()+1, raw[h.Length:]
	}
	if at != ref.Last+1 {
		return fmt.Errorf("%w: extent of offsets %d to %d ends at %d", ErrCorrupt, ref.Base, ref.Last, at-1)
	}
	return nil
}

// batch adds one batch to the block that is being filled.
func (b *segmentBuilder) batch(raw []byte, h *batch.Header, epoch int32) error {
	if len(b.raw) > 0 && (b.block.Epoch != epoch || len(b.raw)+len(raw) > b.log.cfg.BlockBytes) {
		b.endBlock()
	}
	if len(b.raw) == 0 {
		b.block = wal.Block{Epoch: epoch, Base: h.BaseOffset, MaxTimestamp: -1}
		b.unshrunk = false
	}
	b.raw = append(b.raw, raw...)
	b.block.Last = h.LastOffset()
	b.block.MaxTimestamp = max(b.block.MaxTimestamp, h.MaxTimestamp)
	b.unshrunk = b.unshrunk || h.Codec() != batch.None
	addBatch(&b.section.Data, raw, h)
	row, err := rowOf(raw, h)
	if err != nil {
		return fmt.Errorf("%w: offset %d: %w", ErrCorrupt, h.BaseOffset, err)
	}
	b.sums.commit(&row, h.BaseOffset, b.head.Created)
	return nil
}

// rowOf describes a batch; h is its header.
func rowOf(raw []byte, h *batch.Header) (wal.Row, error) {
	row := wal.Row{
		Len: int32(h.Length), LastOffsetDelta: h.LastOffsetDelta, MaxTimestamp: h.MaxTimestamp,
		Transactional: h.Transactional(), Control: h.Control(),
		ProducerID: h.ProducerID, ProducerEpoch: h.ProducerEpoch, BaseSequence: h.BaseSequence,
	}
	if !h.Control() {
		return row, nil
	}
	m, err := batch.ParseMarker(raw, h)
	row.Commit, row.CoordinatorEpoch = m.Commit, m.CoordinatorEpoch
	return row, err
}

// endBlock stores the block that was filled, compressed where that pays.
func (b *segmentBuilder) endBlock() {
	if len(b.raw) == 0 {
		return
	}
	b.block.RawLen = int64(len(b.raw))
	stored := b.raw
	if !b.unshrunk {
		stored, b.block.Zstd = b.log.tierComp.compress(b.section.Partition.Topic, b.raw)
	}
	if b.block.Zstd {
		b.raw = b.raw[:0]
	} else {
		b.raw = nil // the segment keeps it
	}
	b.block.Len, b.block.CRC = int64(len(stored)), crc32.Checksum(stored, castagnoli)
	b.head.DataLen += b.block.Len
	b.head.DataCRC = crc32.Update(b.head.DataCRC, castagnoli, stored)
	b.parts = append(b.parts, stored)
	b.section.Blocks = append(b.section.Blocks, b.block)
}

// addBatch takes a batch as served into a digest.
func addBatch(d *wal.DataDigest, raw []byte, h *batch.Header) {
	d.Batches++
	d.Records += int64(h.LastOffsetDelta) + 1
	d.Bytes += int64(len(raw))
	d.Sum += xxhash.Sum64(raw)
}

// Digest returns the digest of whole batches as served.
func Digest(b []byte) (d wal.DataDigest, err error) {
	for len(b) > 0 {
		h, err := batch.Parse(b)
		if err != nil {
			return d, err
		}
		addBatch(&d, b[:h.Length], &h)
		b = b[h.Length:]
	}
	return d, nil
}

// verifySegment decodes a segment that was encoded and compares what it holds
// with the digests of its sources: a mistake of the encoder must not replace
// what is right by what is not.
func verifySegment(parts [][]byte) error {
	h, err := wal.DecodeSegmentHead(parts[0])
	if err != nil {
		return err
	}
	n, crc := 1, uint32(0)
	for i := range h.Sections {
		s := &h.Sections[i]
		var sum wal.DataDigest
		next := s.Base
		for _, ref := range s.Extents("") {
			if n == len(parts) {
				return fmt.Errorf("%w: segment has fewer blocks than its index", ErrCorrupt)
			}
			raw, err := openExtentBytes(parts[n], &ref)
			if err != nil {
				return err
			}
			d, err := Digest(raw)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			first, err := batch.Parse(raw)
			if err != nil || first.BaseOffset != ref.Base || ref.Base != next || lastOffset(raw) != ref.Last {
				return fmt.Errorf("%w: block of offsets %d to %d holds others", ErrCorrupt, ref.Base, ref.Last)
			}
			next = ref.Last + 1
			sum = sum.Plus(d)
			crc = crc32.Update(crc, castagnoli, parts[n])
			n++
		}
		if sum != s.Data {
			return fmt.Errorf("%w: segment of %s holds %+v, its sources %+v", ErrCorrupt, s.Partition, sum, s.Data)
		}
	}
	if n != len(parts) || crc != h.DataCRC {
		return fmt.Errorf("%w: segment data", ErrCorrupt)
	}
	return nil
}
