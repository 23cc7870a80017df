package checker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
)

// A payload is
//
//	producer (4)  partition (4)  seq (8)  filling (n)  CRC32C of all before (4)
//
// big endian; the filling is drawn from a generator seeded with the id.
const (
	payloadHead = 16
	payloadMin  = payloadHead + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Payload makes the bytes of a record, size of them and at least 20.
func Payload(id ID, size int) []byte {
	b := make([]byte, max(size, payloadMin))
	binary.BigEndian.PutUint32(b, id.Producer)
	binary.BigEndian.PutUint32(b[4:], uint32(id.Partition))
	binary.BigEndian.PutUint64(b[8:], id.Seq)
	body := b[:len(b)-4]
	fill(body[payloadHead:], id)
	binary.BigEndian.PutUint32(b[len(body):], crc32.Checksum(body, castagnoli))
	return b
}

func fill(b []byte, id ID) {
	rnd := rand.New(rand.NewPCG(uint64(id.Producer)<<32|uint64(uint32(id.Partition)), id.Seq))
	for i := range b {
		// Half random: the filling compresses somewhat, as real records do.
		if b[i] = byte(i); i%2 == 0 {
			b[i] = byte(rnd.Uint32())
		}
	}
}

// Parse reads a payload back and checks all of it.
func Parse(b []byte) (ID, error) {
	if len(b) < payloadMin {
		return ID{}, fmt.Errorf("%d bytes are no payload", len(b))
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(body):]) {
		return ID{}, errors.New("the checksum of the payload is wrong")
	}
	id := ID{
		Stream: Stream{
			Producer:  binary.BigEndian.Uint32(b),
			Partition: int32(binary.BigEndian.Uint32(b[4:])),
		},
		Seq: binary.BigEndian.Uint64(b[8:]),
	}
	return id, nil
}
