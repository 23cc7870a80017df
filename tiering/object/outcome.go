package object

import (
	"context"
	"errors"
)

// The outcomes of a call, as metrics and traces name them.
const (
	OutcomeOK        = "ok"
	OutcomeExists    = "exists"
	OutcomeNotFound  = "not_found"
	OutcomeRefused   = "refused"
	OutcomeThrottled = "throttled"
	OutcomeCorrupt   = "corrupt"
	OutcomeCanceled  = "canceled"
	OutcomeTimeout   = "timeout"
	OutcomeError     = "error"
)

// Outcome names what became of a call. "exists" and "not_found" are answers,
// not failures; "canceled" is the caller's own doing.
func Outcome(err error) string {
	switch {
	case err == nil:
		return OutcomeOK
	case errors.Is(err, ErrExists):
		return OutcomeExists
	case errors.Is(err, ErrNotFound):
		return OutcomeNotFound
	case errors.Is(err, ErrRefused):
		return OutcomeRefused
	case errors.Is(err, ErrThrottled):
		return OutcomeThrottled
	case errors.Is(err, ErrCorrupt):
		return OutcomeCorrupt
	case errors.Is(err, context.Canceled):
		return OutcomeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return OutcomeTimeout
	}
	return OutcomeError
}

// failed reports whether err is anything but an answer.
func failed(err error) bool {
	return err != nil && !errors.Is(err, ErrExists) && !errors.Is(err, ErrNotFound)
}
