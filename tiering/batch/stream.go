package batch

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Scan is Walk over the records of a batch, inflated as they are met when they
// are compressed, so that a batch costs the window of its codec whatever it
// inflates to. b is exactly one batch. Of a compressed record, Key and Value
// tell only whether they are null. A payload of more than inflatedMax bytes is
// ErrTooLarge.
func Scan(b []byte, h *Header, inflatedMax int, f func(*Record) error) error {
	if h.Codec() == None {
		return Walk(b[HeaderLen:], h.Records, f)
	}
	src, release, err := inflating(h.Codec(), b[HeaderLen:], inflatedMax)
	if err != nil {
		return err
	}
	defer release()
	s := stream{src: &io.LimitedReader{R: src, N: int64(inflatedMax) + 1}}
	s.r = bufio.NewReaderSize(s.src, 4<<10)
	return s.walk(h.Records, f)
}

// inflating reads what src inflates to.
func inflating(codec Codec, src []byte, limit int) (io.Reader, func(), error) {
	release := func() {}
	switch codec {
	case Gzip:
		r, err := gzip.NewReader(bytes.NewReader(src))
		if err != nil {
			return nil, nil, fmt.Errorf("%w: gzip: %w", ErrInvalid, err)
		}
		return r, release, nil
	case Snappy:
		return &snappyReader{src: src, limit: limit}, release, nil
	case LZ4:
		return lz4.NewReader(bytes.NewReader(src)), release, nil
	case Zstd:
		r := zstdReaders.Get().(*zstd.Decoder)
		release = func() {
			_ = r.Reset(nil)
			zstdReaders.Put(r)
		}
		if err := r.Reset(bytes.NewReader(src)); err != nil {
			release()
			return nil, nil, fmt.Errorf("%w: zstd: %w", ErrInvalid, err)
		}
		return r, release, nil
	}
	return nil, nil, fmt.Errorf("%w: %s", ErrCodec, codec)
}

// snappyReader inflates one block after the other; src is one block, or several
// in the framing of Java's stream.
type snappyReader struct {
	src     []byte
	limit   int
	begun   bool
	framed  bool
	pending []byte
}

func (s *snappyReader) Read(p []byte) (int, error) {
	if !s.begun {
		s.begun = true
		if s.framed = bytes.HasPrefix(s.src, xerialMagic); s.framed {
			if len(s.src) < xerialHeaderLen {
				return 0, fmt.Errorf("%w: snappy: header cut short", ErrInvalid)
			}
			s.src = s.src[xerialHeaderLen:]
		} else if err := s.decode(s.src); err != nil {
			return 0, err
		}
	}
	for len(s.pending) == 0 {
		if !s.framed || len(s.src) == 0 {
			return 0, io.EOF
		}
		if len(s.src) < 4 {
			return 0, fmt.Errorf("%w: snappy: block length cut short", ErrInvalid)
		}
		n := int64(binary.BigEndian.Uint32(s.src))
		if n > int64(len(s.src)-4) {
			return 0, fmt.Errorf("%w: snappy: block of %d bytes with %d left", ErrInvalid, n, len(s.src)-4)
		}
		block := s.src[4 : 4+n]
		s.src = s.src[4+n:]
		if err := s.decode(block); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.pending)
	s.pending = s.pending[n:]
	return n, nil
}

func (s *snappyReader) decode(block []byte) (err error) {
	s.pending, err = snappyBlock(nil, block, s.limit)
	return err
}

// stream reads records from r, which reads ahead of src. left is what remains of
// the record at hand.
type stream struct {
	src  *io.LimitedReader
	r    *bufio.Reader
	left int64
}

func (s *stream) walk(count int32, f func(*Record) error) error {
	for i := range count {
		r, err := s.record()
		if err == nil && r.OffsetDelta != i {
			err = fmt.Errorf("%w: offset delta %d", ErrInvalid, r.OffsetDelta)
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", i, s.explain(err))
		}
		if err := f(&r); err != nil {
			return err
		}
	}
	switch _, err := s.r.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: bytes after the last record", s.explain(ErrInvalid))
	case !errors.Is(err, io.EOF):
		return s.explain(err)
	}
	return nil
}

// explain tells a stream that is too large from one that is wrong.
func (s *stream) explain(err error) error {
	switch {
	case s.src.N <= 0, errors.Is(err, ErrTooLarge), errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return ErrTooLarge
	case errors.Is(err, ErrInvalid):
		return err
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}

var errFields = fmt.Errorf("%w: fields do not fill the record", ErrInvalid)

func (s *stream) record() (r Record, err error) {
	length, err := binary.ReadVarint(s.r)
	if err != nil {
		return r, err
	}
	if length < 0 || length > math.MaxInt32 {
		return r, fmt.Errorf("%w: length", ErrInvalid)
	}
	s.left = length
	if err = s.skip(1); err != nil {
		return r, err
	}
	if r.TimestampDelta, err = s.varint(math.MaxInt64); err != nil {
		return r, err
	}
	delta, err := s.varint(math.MaxInt32)
	if err != nil {
		return r, err
	}
	r.OffsetDelta = int32(delta)
	if r.Key, err = s.field(); err != nil {
		return r, err
	}
	if r.Value, err = s.field(); err != nil {
		return r, err
	}
	return r, s.headers(&r)
}

func (s *stream) headers(r *Record) error {
	n, err := s.varint(math.MaxInt32)
	if err != nil {
		return err
	}
	if n < 0 || n > s.left {
		return errFields
	}
	r.Headers = int(n)
	for range n {
		key, err := s.field()
		if err == nil && key == nil {
			err = errFields // a header key is never null
		}
		if err == nil {
			_, err = s.field()
		}
		if err != nil {
			return err
		}
	}
	if s.left != 0 {
		return errFields
	}
	return nil
}

// field passes over a length and so many bytes; it returns nil for null.
func (s *stream) field() ([]byte, error) {
	switch n, err := s.varint(math.MaxInt32); {
	case err != nil:
		return nil, err
	case n == -1:
		return nil, nil
	case n < 0:
		return nil, errFields
	default:
		return empty, s.skip(n)
	}
}

func (s *stream) skip(n int64) error {
	if n > s.left {
		return errFields
	}
	s.left -= n
	skipped, err := io.CopyN(io.Discard, s.r, n)
	if err == nil && skipped < n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// ReadByte has varints stay within the record.
func (s *stream) ReadByte() (byte, error) {
	if s.left == 0 {
		return 0, errFields
	}
	s.left--
	return s.r.ReadByte()
}

// varint reads a zigzag integer of a magnitude up to limit.
func (s *stream) varint(limit int64) (int64, error) {
	v, err := binary.ReadVarint(s)
	if err != nil {
		return 0, err
	}
	if v > limit || v < -limit-1 {
		return 0, errFields
	}
	return v, nil
}
