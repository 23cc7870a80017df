package object

import (
	"fmt"
	"strings"
)

const (
	// KeyBytesMax bounds a key together with a store's own prefix. S3 allows
	// 1,024 bytes; ours stay far below, and half of it leaves room for both.
	KeyBytesMax = 512
	// segmentBytesMax is what file systems allow for one name. MinIO keeps keys
	// as directories, so the limit holds for a bucket too.
	segmentBytesMax = 255
	// SizeMax bounds one object, and so the memory of one Get. It is far above
	// the largest segment and below what a store takes in a single PUT (5 GiB).
	SizeMax = 1 << 30
)

// CheckKey returns an error that wraps ErrRefused unless key is a non-empty,
// relative, slash-separated path of printable ASCII without spaces, none of
// whose segments is empty or begins with a dot. The rule is the same for every
// store, so that a key that works in a test works in a bucket.
//
// Callers lay their keys out at a fixed depth: no key may be a directory of
// another ("a" and "a/b"), because stores on file systems cannot hold both.
func CheckKey(key string) error {
	if key == "" || len(key) > KeyBytesMax {
		return fmt.Errorf("%w: key of %d bytes, must be 1 to %d", ErrRefused, len(key), KeyBytesMax)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if err := checkSegment(segment); err != nil {
			return fmt.Errorf("%w: key %q: %w", ErrRefused, key, err)
		}
	}
	return nil
}

// CheckPrefix is CheckKey for the prefix of a listing: it may be empty and may
// end in a slash.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return CheckKey(strings.TrimSuffix(prefix, "/"))
}

func checkSegment(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("empty segment")
	case s[0] == '.':
		return fmt.Errorf("segment begins with a dot")
	case len(s) > segmentBytesMax:
		return fmt.Errorf("segment of %d bytes, at most %d", len(s), segmentBytesMax)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return fmt.Errorf("byte %#02x is not printable ASCII", s[i])
		}
	}
	return nil
}

// CheckRange returns an error that wraps ErrRefused if pos is negative.
func CheckRange(pos int64) error {
	if pos < 0 {
		return fmt.Errorf("%w: negative position %d", ErrRefused, pos)
	}
	return nil
}

// CheckSize returns the summed length of data, and an error that wraps
// ErrRefused if it exceeds SizeMax.
func CheckSize(data [][]byte) (int64, error) {
	var n int64
	for _, d := range data {
		n += int64(len(d))
	}
	if n > SizeMax {
		return 0, fmt.Errorf("%w: object of %d bytes, at most %d", ErrRefused, n, int64(SizeMax))
	}
	return n, nil
}

// Span clips a range of an object of size bytes as Get's contract says: the
// bytes [from, to) are what to return.
func Span(size, pos, length int64) (from, to int64) {
	if pos >= size {
		return size, size
	}
	if length < 0 || length > size-pos {
		return pos, size
	}
	return pos, pos + length
}
