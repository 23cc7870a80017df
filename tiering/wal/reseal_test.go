package wal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
)

// reseal gives hostile bytes valid checksums, so that the decoder behind them
// is reached.
func reseal(b []byte) []byte {
	b = bytes.Clone(b)
	be := binary.BigEndian
	copy(b, magicObject)
	be.PutUint16(b[8:], major)
	body := len(b) - HeaderLen - DigestLen
	if body < 0 {
		return b
	}
	index := min(int(be.Uint32(b[100:])), body)
	be.PutUint32(b[96:], uint32(len(b)))
	be.PutUint32(b[100:], uint32(index))
	be.PutUint32(b[104:], uint32(body-index))
	be.PutUint32(b[144:], crc32.Checksum(b[HeaderLen:len(b)-DigestLen], castagnoli))
	be.PutUint32(b[148:], crc32.Checksum(b[:148], castagnoli))
	sum := sha256.Sum256(b[:len(b)-DigestLen])
	copy(b[len(b)-DigestLen:], sum[:])
	return b
}
