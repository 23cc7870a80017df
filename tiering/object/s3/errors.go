package s3

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// The codes of S3 that decide something here.
const (
	codeNoSuchKey     = "NoSuchKey"
	codeNoSuchBucket  = "NoSuchBucket"
	codeNoLifecycle   = "NoSuchLifecycleConfiguration"
	codeExpiredToken  = "ExpiredToken"
	codeClockSkew     = "RequestTimeTooSkewed"
	codeTimeout       = "RequestTimeout"
	codeIncompleteBdy = "IncompleteBody"
	codeBadDigest     = "BadDigest"
	codeBadChecksum   = "XAmzContentChecksumMismatch"
	codeSlowDown      = "SlowDown"
	codeBadToken      = "InvalidToken"
	codeBadAccessKey  = "InvalidAccessKeyId"
	codeBadSignature  = "SignatureDoesNotMatch"
)

// errorBodyMax bounds what is read of an error answer.
const errorBodyMax = 64 << 10

// Error is an answer of the server that is not success. It wraps the object
// error it means, or none where the outcome is unknown or may be another the
// next time.
type Error struct {
	Status    int
	Code      string // S3's, empty when the answer had none
	Message   string
	Region    string // where the bucket is, if the server told
	RequestID string
	meaning   error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("server answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Region != "" {
		s += " [bucket region " + e.Region + "]"
	}
	if e.RequestID != "" {
		s += " [request id " + e.RequestID + "]"
	}
	return s
}

// Unwrap returns what the answer means in the words of package object.
func (e *Error) Unwrap() error { return e.meaning }

// blamesCredentials tells that other credentials may be accepted.
func (e *Error) blamesCredentials() bool {
	switch e.Code {
	case codeExpiredToken, codeBadToken, codeBadAccessKey, codeBadSignature:
		return true
	}
	return false
}

// errorOf reads the error in an answer.
func errorOf(method string, resp *http.Response) *Error {
	var parsed struct {
		Code, Message, Region, RequestId string //nolint:revive,staticcheck // the element's name
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, errorBodyMax))
	if err == nil {
		_ = xml.Unmarshal(b, &parsed) // no XML, no code: a proxy spoke, not the store
	}
	e := &Error{
		Status: resp.StatusCode, Code: parsed.Code, Message: clip(parsed.Message),
		Region: parsed.Region, RequestID: parsed.RequestId,
	}
	if e.Region == "" && resp.StatusCode/100 == 3 {
		e.Region = resp.Header.Get("X-Amz-Bucket-Region")
	}
	if e.RequestID == "" {
		e.RequestID = resp.Header.Get("X-Amz-Request-Id")
	}
	e.meaning = meaning(method, e.Status, e.Code)
	return e
}

func clip(s string) string {
	return s[:min(len(s), 512)]
}

// meaning maps an answer to an object error. nil stands for everything whose
// outcome is unknown (5xx, a conflict of racing writes) or that passes by itself
// (a skewed clock, expired credentials, a body damaged on the way).
func meaning(method string, status int, code string) error {
	switch code {
	case codeExpiredToken, codeClockSkew, codeTimeout, codeIncompleteBdy, codeBadDigest, codeBadChecksum:
		return nil
	case codeSlowDown:
		return object.ErrThrottled
	}
	switch status {
	case http.StatusPreconditionFailed:
		return object.ErrExists
	case http.StatusNotFound:
		return absent(method, code)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return object.ErrThrottled
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTemporaryRedirect:
		return nil
	case http.StatusNotImplemented: // such as: no conditional writes
		return object.ErrRefused
	}
	if status/100 == 3 || status/100 == 4 {
		return object.ErrRefused
	}
	return nil
}

// absent tells a missing key from a missing bucket and from a 404 that some
// proxy made up: only the store's own word counts as "the object is not there".
func absent(method, code string) error {
	switch {
	case code == codeNoSuchBucket:
		return object.ErrRefused
	case code == codeNoSuchKey && method != http.MethodPut:
		return object.ErrNotFound
	}
	return nil
}
