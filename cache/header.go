package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

const (
	magic         = "TMCK"
	formatVersion = 1
	fixedBytes    = 24 // the header before the key
	sumBytes      = 4
	keyBytesMax   = 2048 // twice what S3 allows
	// headerBytesMax is the size of the largest header.
	headerBytesMax = fixedBytes + keyBytesMax + sumBytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("chunk file is damaged")

// headerBytes is the size of the header of a chunk of an object with this key.
func headerBytes(key string) int { return fixedBytes + len(key) + sumBytes }

// encodeHeader returns the header of a chunk file. The key must not be longer
// than keyBytesMax.
func encodeHeader(key string, index int64, data []byte) []byte {
	b := make([]byte, 0, headerBytes(key))
	b = append(b, magic...)
	b = append(b, formatVersion, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))
	b = binary.BigEndian.AppendUint64(b, uint64(index))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(data, castagnoli))
	b = append(b, key...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// header is what the head of a chunk file says.
type header struct {
	key     string
	index   int64
	length  int // of the data
	dataCRC uint32
	size    int // of the header itself
}

// decodeHeader reads the head of a chunk file, hostile bytes included.
func decodeHeader(b []byte) (header, error) {
	if len(b) < fixedBytes+sumBytes || string(b[:4]) != magic {
		return header{}, fmt.Errorf("%w: no header", errDamaged)
	}
	if b[4] != formatVersion || b[5] != 0 {
		return header{}, fmt.Errorf("%w: version %d", errDamaged, b[4])
	}
	keyLen := int(binary.BigEndian.Uint16(b[6:]))
	end := fixedBytes + keyLen
	if keyLen > keyBytesMax || end+sumBytes > len(b) {
		return header{}, fmt.Errorf("%w: key of %d bytes", errDamaged, keyLen)
	}
	if crc32.Checksum(b[:end], castagnoli) != binary.BigEndian.Uint32(b[end:]) {
		return header{}, fmt.Errorf("%w: header checksum", errDamaged)
	}
	index, length := binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:])
	if index > math.MaxInt64 || length > math.MaxInt32 {
		return header{}, fmt.Errorf("%w: index %d, length %d", errDamaged, index, length)
	}
	return header{
		key:     string(b[fixedBytes:end]),
		index:   int64(index),
		length:  int(length),
		dataCRC: binary.BigEndian.Uint32(b[20:]),
		size:    end + sumBytes,
	}, nil
}

// decodeChunk returns the data of a chunk file, if it is the chunk asked for
// and whole.
func decodeChunk(b []byte, key string, index int64) ([]byte, error) {
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	data := b[h.size:]
	switch {
	case h.key != key || h.index != index:
		return nil, fmt.Errorf("%w: it is chunk %d of %q", errDamaged, h.index, h.key)
	case len(data) != h.length:
		return nil, fmt.Errorf("%w: %d bytes of data, want %d", errDamaged, len(data), h.length)
	case crc32.Checksum(data, castagnoli) != h.dataCRC:
		return nil, fmt.Errorf("%w: data checksum", errDamaged)
	}
	return data, nil
}
