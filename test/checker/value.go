package checker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
)

// The bytes of a record with value v are
//
//	v (8)  filling drawn from a generator seeded with v (n)  CRC32C of all before (4)
//
// big endian, so that a record tells which one it is and whether it is whole.
const (
	valueHead = 8
	valueMin  = valueHead + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Bytes makes the bytes of the record with a value, size of them and at least 12.
func Bytes(value uint64, size int) []byte {
	b := make([]byte, max(size, valueMin))
	binary.BigEndian.PutUint64(b, value)
	body := b[:len(b)-4]
	rnd := rand.New(rand.NewPCG(value, 0))
	for i := valueHead; i < len(body); i++ {
		// Half random: the filling compresses somewhat, as real records do.
		if body[i] = byte(i); i%2 == 0 {
			body[i] = byte(rnd.Uint32())
		}
	}
	binary.BigEndian.PutUint32(b[len(body):], crc32.Checksum(body, castagnoli))
	return b
}

// ValueOf reads the value of a record and checks all of its bytes.
func ValueOf(b []byte) (uint64, error) {
	if len(b) < valueMin {
		return 0, fmt.Errorf("%d bytes are no record of ours", len(b))
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(body):]) {
		return 0, errors.New("the checksum of the record is wrong")
	}
	return binary.BigEndian.Uint64(b), nil
}
