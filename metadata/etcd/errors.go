package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidemark-io/tidemark/metadata"
)

// definite are the errors etcd returns before it applies anything, and what
// they are called here.
var definite = []struct{ etcd, ours error }{
	{rpctypes.ErrLeaseNotFound, metadata.ErrLeaseNotFound},
	{rpctypes.ErrCompacted, metadata.ErrCompacted},
	{rpctypes.ErrNoSpace, metadata.ErrNoSpace},
	{rpctypes.ErrRequestTooLarge, metadata.ErrTooLarge},
	{rpctypes.ErrTooManyOps, metadata.ErrTooLarge},
	{rpctypes.ErrDuplicateKey, metadata.ErrInvalidTxn},
	{rpctypes.ErrEmptyKey, metadata.ErrInvalidTxn},
}

// ours turns an error of a call into one of the contract's. Whatever is not
// known to be definite is ErrUnavailable: the call may have been applied.
func ours(err error) error {
	if err == nil || errors.Is(err, metadata.ErrUnavailable) || errors.Is(err, metadata.ErrLeaseNotFound) {
		return err
	}
	known := rpctypes.Error(err)
	for _, d := range definite {
		if errors.Is(known, d.etcd) {
			return d.ours
		}
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return fmt.Errorf("etcd: %w", err)
	}
	return fmt.Errorf("%w: %w", metadata.ErrUnavailable, withContext(err))
}

// withContext gives a gRPC error for an ended context that error's identity.
func withContext(err error) error {
	switch status.Code(err) {
	case codes.Canceled:
		return fmt.Errorf("%w (%s)", context.Canceled, status.Convert(err).Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("%w (%s)", context.DeadlineExceeded, status.Convert(err).Message())
	}
	return err
}

// outcome labels a call in metrics.
func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, metadata.ErrUnavailable):
		return "unavailable"
	case errors.Is(err, metadata.ErrLeaseNotFound):
		return "lease_not_found"
	case errors.Is(err, metadata.ErrCompacted):
		return "compacted"
	case errors.Is(err, metadata.ErrNoSpace):
		return "no_space"
	}
	return "error"
}
