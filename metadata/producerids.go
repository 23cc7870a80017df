package metadata

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// ErrProducerIDsExhausted: all 2^63 producer ids are allocated.
var ErrProducerIDsExhausted = errors.New("producer ids are exhausted")

// ProducerIDs is the value of the producer-ids key.
type ProducerIDs struct {
	// Next is the first id that no block holds.
	Next int64 `json:"next"`
}

// AllocateProducerIDs reserves the block [first, first+n) for the caller, for
// ever. When the answer to a write is lost, its block is given up.
func AllocateProducerIDs(ctx context.Context, kv KV, n int64) (first int64, err error) {
	if n < 1 {
		return 0, fmt.Errorf("allocate %d producer ids", n)
	}
	_, _, err = update(ctx, kv, KeyProducerIDs, func(cur Entry) (*Op, error) {
		var ids ProducerIDs
		if cur.Exists() {
			if ids, err = decode[ProducerIDs](cur); err != nil {
				return nil, err
			}
		}
		if ids.Next < 0 || ids.Next > math.MaxInt64-n {
			return nil, ErrProducerIDsExhausted
		}
		first = ids.Next
		op := Put(cur.Key, encode(ProducerIDs{Next: first + n}))
		return &op, nil
	})
	return first, err
}
