package broker

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/internal/wire"
)

var (
	errFrame       = errors.New("not a Kafka request")
	errNoRoom      = errors.New("no room for the request's bytes")
	errUnsupported = errors.New("unsupported API or version")
)

// frameStep is the first piece of a frame's buffer; each further one is
// frameGrowth times what has arrived, so a claimed length costs nothing and
// copying costs at most a third of the frame.
const (
	frameStep   = 64 << 10
	frameGrowth = 4
)

// header is a request header, version 1 or 2.
type header struct {
	key, version int16
	correlation  int32
	clientID     string
	body         []byte
}

// reserve takes n bytes of a budget, or fails; release gives them back.
type reserve interface {
	take(ctx context.Context, n int64) error
}

// readFrame reads one length-prefixed frame of at most limit bytes. What it
// takes of room stays taken, also after an error; the caller gives it back.
func readFrame(ctx context.Context, r *bufio.Reader, limit int32, room reserve) ([]byte, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	size := int32(binary.BigEndian.Uint32(prefix[:]))
	if size < 8 || size > limit {
		return nil, fmt.Errorf("%w: length %d, at most %d", errFrame, size, limit)
	}
	var buf []byte
	for len(buf) < int(size) {
		grown := min(int(size), max(frameStep, frameGrowth*len(buf)))
		if err := room.take(ctx, int64(grown-len(buf))); err != nil {
			return nil, err
		}
		next := make([]byte, grown)
		have := copy(next, buf)
		if _, err := io.ReadFull(r, next[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		buf = next
	}
	return buf, nil
}

// parseHeader splits a frame. A version of ApiVersions that nobody knows is not
// looked into: its answer needs the correlation id alone.
func parseHeader(frame []byte) (header, error) {
	h := header{
		key:         int16(binary.BigEndian.Uint16(frame)),
		version:     int16(binary.BigEndian.Uint16(frame[2:])),
		correlation: int32(binary.BigEndian.Uint32(frame[4:])),
	}
	req := kmsg.RequestForKey(h.key)
	if req == nil || h.version < 0 || h.version > req.MaxVersion() {
		if h.key == int16(kmsg.ApiVersions) {
			return h, nil
		}
		return h, fmt.Errorf("%w: key %d version %d", errUnsupported, h.key, h.version)
	}
	rest := frame[8:]
	if len(rest) < 2 {
		return h, fmt.Errorf("%w: header cut short", errFrame)
	}
	n := int(int16(binary.BigEndian.Uint16(rest)))
	rest = rest[2:]
	if n > len(rest) {
		return h, fmt.Errorf("%w: header cut short", errFrame)
	}
	if n > 0 {
		h.clientID, rest = string(rest[:n]), rest[n:]
	}
	req.SetVersion(h.version)
	if req.IsFlexible() {
		var err error
		if rest, err = wire.Tags(rest); err != nil {
			return h, fmt.Errorf("%w: header: %w", errFrame, err)
		}
	}
	h.body = rest
	return h, nil
}

// decode makes a request of a header's body, once it is known what that costs.
func decode(h *header, bytesMax int64) (kmsg.Request, error) {
	req := kmsg.RequestForKey(h.key)
	req.SetVersion(h.version)
	if _, err := wire.Check(h.key, h.version, req.IsFlexible(), h.body, bytesMax); err != nil {
		return nil, err
	}
	if err := req.ReadFrom(h.body); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	return req, nil
}

// appendResponse encodes a response with its length and header. The header of
// an ApiVersions response never has tagged fields, so that a client of any
// version can read it (KIP-511).
func appendResponse(dst []byte, correlation int32, resp kmsg.Response) []byte {
	start := len(dst)
	dst = slices.Grow(dst, sizeHint(resp))
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlation))
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		dst = append(dst, 0)
	}
	dst = resp.AppendTo(dst)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// What a response holds beside names and records, generously.
const (
	responseOverhead  = 64
	topicOverhead     = 32
	partitionOverhead = 64
)

// sizeHint is about how many bytes a response will take, where that may be
// many: a buffer that grew while records were appended to it would copy and
// clear several times what it holds in the end.
func sizeHint(resp kmsg.Response) int {
	fetch, ok := resp.(*kmsg.FetchResponse)
	if !ok {
		return 0
	}
	n := responseOverhead
	for i := range fetch.Topics {
		t := &fetch.Topics[i]
		n += topicOverhead + len(t.Topic)
		for j := range t.Partitions {
			n += partitionOverhead + len(t.Partitions[j].RecordBatches)
		}
	}
	return n
}
