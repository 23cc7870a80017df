package s3

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDetached ends a body whose request is over.
var errDetached = errors.New("request is over")

// body reads the concatenation of the caller's slices. net/http may go on
// reading a request's body after the request failed; detach makes sure that
// the caller's bytes are not touched any more.
//
// It is not seekable and has no GetBody, so that net/http cannot send it twice.
type body struct {
	mu    sync.Mutex // guards parts and done; held for one copy, never across I/O
	parts [][]byte
	done  bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return 0, errDetached
	}
	n := 0
	for len(b.parts) > 0 && n < len(p) {
		c := copy(p[n:], b.parts[0])
		n += c
		if b.parts[0] = b.parts[0][c:]; len(b.parts[0]) == 0 {
			b.parts = b.parts[1:]
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Close does nothing: the request's owner detaches.
func (b *body) Close() error { return nil }

func (b *body) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done, b.parts = true, nil
}

// checksum returns the CRC32C of data as S3's headers carry it.
func checksum(data ...[]byte) string {
	var crc uint32
	for _, d := range data {
		crc = crc32.Update(crc, castagnoli, d)
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}
