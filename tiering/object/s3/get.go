package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	if err := object.CheckKey(key); err != nil {
		return nil, err
	}
	if err := object.CheckRange(pos); err != nil {
		return nil, err
	}
	b, err := s.get(ctx, key, pos, length)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return b, nil
}

func (s *Store) get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	want := wantedRange(pos, length)
	resp, err := s.send(ctx, request{method: http.MethodGet, key: s.prefix + key, header: want.header()})
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusRequestedRangeNotSatisfiable {
		return nil, nil // the object exists and ends before pos
	}
	if err != nil {
		return nil, err
	}
	defer resp.discard()
	size, err := want.answered(resp.Response)
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(resp.Body, b); err != nil {
		return nil, fmt.Errorf("answer ended early: %w", err)
	}
	if err := verify(resp.Header, want, b); err != nil {
		return nil, err
	}
	if length == 0 {
		return nil, nil
	}
	return b, nil
}

// byteRange is a range of an object; last is inclusive, as HTTP has it.
type byteRange struct {
	first, last int64
}

func wantedRange(pos, length int64) byteRange {
	switch {
	case length < 0 || length > math.MaxInt64-pos:
		return byteRange{pos, math.MaxInt64}
	case length == 0: // HTTP has no empty range, and a missing key must be told
		return byteRange{pos, pos}
	}
	return byteRange{pos, pos + length - 1}
}

// whole reports whether the range is all of the object.
func (r byteRange) whole() bool { return r.first == 0 && r.last == math.MaxInt64 }

func (r byteRange) header() http.Header {
	if r.whole() {
		return http.Header{"X-Amz-Checksum-Mode": {"ENABLED"}}
	}
	spec := "bytes=" + strconv.FormatInt(r.first, 10) + "-"
	if r.last != math.MaxInt64 {
		spec += strconv.FormatInt(r.last, 10)
	}
	return http.Header{"Range": {spec}}
}

// answered returns how many bytes follow, if the answer is for the range that
// was asked for. A shorter range is right only where the object ends.
func (r byteRange) answered(resp *http.Response) (int64, error) {
	size := resp.ContentLength
	if size < 0 || size > object.SizeMax {
		return 0, fmt.Errorf("answer with a length of %d", size)
	}
	if resp.StatusCode == http.StatusOK { // the whole object
		if r.first != 0 || size > 0 && size-1 > r.last {
			return 0, errors.New("server ignored the range")
		}
		return size, nil
	}
	first, last, total, err := parseContentRange(resp.Header.Get("Content-Range"))
	switch {
	case err != nil:
		return 0, err
	case resp.StatusCode != http.StatusPartialContent,
		first != r.first, last != min(r.last, total-1), size != last-first+1:
		return 0, fmt.Errorf("asked for bytes %d-%d, answered %s with %q and %d bytes",
			r.first, r.last, resp.Status, resp.Header.Get("Content-Range"), size)
	}
	return size, nil
}

// parseContentRange parses "bytes first-last/total".
func parseContentRange(s string) (first, last, total int64, err error) {
	spec, ok := strings.CutPrefix(s, "bytes ")
	span, totalText, ok2 := strings.Cut(spec, "/")
	firstText, lastText, ok3 := strings.Cut(span, "-")
	first, err1 := parsePosition(firstText)
	last, err2 := parsePosition(lastText)
	total, err3 := parsePosition(totalText)
	if !ok || !ok2 || !ok3 || errors.Join(err1, err2, err3) != nil || first > last || last >= total {
		return 0, 0, 0, fmt.Errorf("malformed Content-Range %q", s)
	}
	return first, last, total, nil
}

func parsePosition(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// verify checks a whole object against the checksum it was stored with. (The
// checksum of an object made by other means in parts is not over its bytes.)
func verify(h http.Header, r byteRange, b []byte) error {
	sum := h.Get(headerCRC32C)
	if !r.whole() || sum == "" || strings.Contains(sum, "-") || h.Get("X-Amz-Checksum-Type") == "COMPOSITE" {
		return nil
	}
	if got := checksum(b); got != sum {
		return fmt.Errorf("%w: checksum %s, stored with %s", object.ErrCorrupt, got, sum)
	}
	return nil
}
