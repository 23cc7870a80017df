package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

var (
	// ErrTooLarge: the batch, or what it inflates to, exceeds the limit given.
	ErrTooLarge = errors.New("record batch is too large")
	// ErrCodec: the compression codec is unknown or not allowed here.
	ErrCodec = errors.New("compression codec is not supported")
)

// zstdWindowMax is what a frame may ask for: the window of level 20, of which
// a decoder allocates the whole whatever follows. RFC 8878 recommends that 8 MiB,
// the window of level 19, be supported. A frame that asks for more is refused.
const zstdWindowMax = 32 << 20

// String is the codec's name in Kafka's configuration.
func (c Codec) String() string {
	if c < None || c > Zstd {
		return fmt.Sprintf("codec %d", int8(c))
	}
	return [...]string{"none", "gzip", "snappy", "lz4", "zstd"}[c]
}

// Inflate decompresses src. A result of more than limit bytes is ErrTooLarge
// and is given up as soon as that is seen; bytes that do not decompress are
// ErrInvalid; an unknown codec is ErrCodec. The caller owns the result.
func Inflate(codec Codec, src []byte, limit int) ([]byte, error) {
	switch codec {
	case None:
		if len(src) > limit {
			return nil, ErrTooLarge
		}
		return bytes.Clone(src), nil
	case Gzip:
		r, err := gzip.NewReader(bytes.NewReader(src))
		if err != nil {
			return nil, fmt.Errorf("%w: gzip: %w", ErrInvalid, err)
		}
		return drain(codec, r, limit)
	case Snappy:
		return inflateSnappy(src, limit)
	case LZ4:
		return drain(codec, lz4.NewReader(bytes.NewReader(src)), limit)
	case Zstd:
		return inflateZstd(src, limit)
	}
	return nil, fmt.Errorf("%w: %s", ErrCodec, codec)
}

// drain reads r to its end, growing with what arrives.
func drain(codec Codec, r io.Reader, limit int) ([]byte, error) {
	var out bytes.Buffer
	_, err := io.Copy(&out, io.LimitReader(r, int64(limit)+1))
	switch {
	case out.Len() > limit:
		return nil, ErrTooLarge
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return nil, ErrTooLarge
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, codec, err)
	}
	return out.Bytes(), nil
}

// zstdReaders keeps decoders, which are expensive to make.
var zstdReaders = sync.Pool{New: func() any {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(zstdWindowMax))
	if err != nil {
		panic(err) // the options are constants
	}
	return r
}}

func inflateZstd(src []byte, limit int) ([]byte, error) {
	r := zstdReaders.Get().(*zstd.Decoder)
	defer func() {
		_ = r.Reset(nil)
		zstdReaders.Put(r)
	}()
	if err := r.Reset(bytes.NewReader(src)); err != nil {
		return nil, fmt.Errorf("%w: zstd: %w", ErrInvalid, err)
	}
	return drain(Zstd, r, limit)
}

// xerialMagic begins the framing that Java's snappy stream puts around blocks:
// the magic, two version numbers, then a length and a block, repeated.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeaderLen = 16

func inflateSnappy(src []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, xerialMagic) {
		return snappyBlock(nil, src, limit)
	}
	if len(src) < xerialHeaderLen {
		return nil, fmt.Errorf("%w: snappy: header cut short", ErrInvalid)
	}
	var out []byte
	for src = src[xerialHeaderLen:]; len(src) > 0; {
		if len(src) < 4 {
			return nil, fmt.Errorf("%w: snappy: block length cut short", ErrInvalid)
		}
		n := int64(binary.BigEndian.Uint32(src))
		if src = src[4:]; n > int64(len(src)) {
			return nil, fmt.Errorf("%w: snappy: block of %d bytes with %d left", ErrInvalid, n, len(src))
		}
		var err error
		if out, err = snappyBlock(out, src[:n], limit); err != nil {
			return nil, err
		}
		src = src[n:]
	}
	return out, nil
}

// snappyRatioMax bounds what a block may claim against its own length: a copy
// element of 3 bytes yields at most 64, which is 21 and a third for each.
const snappyRatioMax = 22

// snappyBlock appends the decoded block to out.
func snappyBlock(out, src []byte, limit int) ([]byte, error) {
	n, err := snappy.DecodedLen(src)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: snappy: %w", ErrInvalid, err)
	case n > limit-len(out):
		return nil, ErrTooLarge
	case n > snappyRatioMax*len(src):
		return nil, fmt.Errorf("%w: snappy: block of %d bytes claims %d", ErrInvalid, len(src), n)
	}
	block, err := snappy.Decode(nil, src)
	if err != nil {
		return nil, fmt.Errorf("%w: snappy: %w", ErrInvalid, err)
	}
	if out == nil {
		return block, nil
	}
	return append(out, block...), nil
}
