package metadata

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalidTxn marks a transaction no store would take: an empty key, or a key
// written twice.
var ErrInvalidTxn = errors.New("invalid metadata transaction")

// Validate is what every KV checks before it sends t anywhere: the limits, and
// that no key is written by two operations.
func (t Txn) Validate() error {
	if len(t.If) > MaxTxnOps || len(t.Then) > MaxTxnOps || len(t.Else) > MaxTxnOps {
		return fmt.Errorf("%w: %d conditions, %d writes, %d reads, at most %d each",
			ErrTooLarge, len(t.If), len(t.Then), len(t.Else), MaxTxnOps)
	}
	if n := t.bytes(); n > MaxTxnBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, n, MaxTxnBytes)
	}
	return t.checkKeys()
}

func (t Txn) bytes() int {
	n := 0
	for _, c := range t.If {
		n += len(c.Key)
	}
	for _, op := range t.Then {
		n += len(op.Key) + len(op.Value)
	}
	for _, key := range t.Else {
		n += len(key)
	}
	return n
}

func (t Txn) checkKeys() error {
	puts := make(map[string]bool, len(t.Then))
	for _, op := range t.Then {
		if op.Key == "" && !op.Prefix {
			return fmt.Errorf("%w: empty key", ErrInvalidTxn)
		}
		if op.Delete {
			continue
		}
		if puts[op.Key] {
			return fmt.Errorf("%w: %q is put twice", ErrInvalidTxn, op.Key)
		}
		puts[op.Key] = true
	}
	for _, op := range t.Then {
		if op.Delete && deletesAny(op, puts) {
			return fmt.Errorf("%w: %q is both put and deleted", ErrInvalidTxn, op.Key)
		}
	}
	return nil
}

func deletesAny(op Op, puts map[string]bool) bool {
	if !op.Prefix {
		return puts[op.Key]
	}
	for key := range puts {
		if strings.HasPrefix(key, op.Key) {
			return true
		}
	}
	return false
}
