package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

var (
	errReadOnly = errors.New("an audit writes nothing")
	// errUnanswered marks a request that failed for reasons that say nothing
	// about the cluster's state: the audit cannot go on.
	errUnanswered = errors.New("the bucket does not answer")
)

// readOnlyStore is the bucket without its writes. It tells apart what is wrong
// with an object from what is wrong with the way to it.
type readOnlyStore struct{ store object.Store }

var _ object.Store = readOnlyStore{}

func (s readOnlyStore) Create(context.Context, string, ...[]byte) error {
	return fmt.Errorf("%w: %w", object.ErrRefused, errReadOnly)
}

func (s readOnlyStore) Delete(context.Context, string) error {
	return fmt.Errorf("%w: %w", object.ErrRefused, errReadOnly)
}

func (s readOnlyStore) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	b, err := s.store.Get(ctx, key, pos, length)
	return b, s.mark(err)
}

func (s readOnlyStore) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	infos, err := s.store.List(ctx, prefix, after, limit)
	return infos, s.mark(err)
}

func (s readOnlyStore) mark(err error) error {
	if err == nil || errors.Is(err, object.ErrNotFound) || errors.Is(err, object.ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnanswered, err)
}

// unanswered reports whether err ends the audit instead of being a finding. A
// format newer than this program is no finding either.
func unanswered(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, errUnanswered) || errors.Is(err, metadata.ErrUnavailable) || errors.Is(err, wal.ErrVersion) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// readOnlyKV is the metadata store without its writes.
type readOnlyKV struct{ metadata.KV }

func (readOnlyKV) Txn(context.Context, metadata.Txn) (metadata.TxnResult, error) {
	return metadata.TxnResult{}, errReadOnly
}

func (readOnlyKV) Grant(context.Context, time.Duration) (metadata.LeaseID, error) {
	return 0, errReadOnly
}

func (readOnlyKV) Renew(context.Context, metadata.LeaseID) (time.Duration, error) {
	return 0, errReadOnly
}

func (readOnlyKV) Revoke(context.Context, metadata.LeaseID) error { return errReadOnly }
