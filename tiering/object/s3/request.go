package s3

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
	"github.com/minio/minio-go/v7/pkg/signer"
)

const (
	headerCRC32C    = "X-Amz-Checksum-Crc32c"
	headerSHA256    = "X-Amz-Content-Sha256"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	// emptySHA256 is the SHA-256 of no bytes, which every request without a
	// body carries.
	emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	// drainMax is how much of an unread answer is read to keep its connection.
	drainMax  = 64 << 10
	userAgent = "tidemark"
)

// request is one request to the bucket; key is empty for the bucket itself.
type request struct {
	method string
	key    string
	query  url.Values
	header http.Header
	body   io.ReadCloser // nil for none
	size   int64
}

// response is an answer with a 2xx status. Its deadline ends with discard.
type response struct {
	*http.Response
	cancel context.CancelFunc
}

// discard ends the response and keeps its connection, if little is unread.
func (r *response) discard() {
	_, _ = io.CopyN(io.Discard, r.Body, drainMax)
	_ = r.Body.Close()
	r.cancel()
}

// send sends r once. An answer that is not a success is returned as an *Error.
func (s *Store) send(ctx context.Context, r request) (*response, error) {
	ctx, cancel := s.withDeadline(ctx)
	keys, err := s.keys.get(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := s.sendSigned(ctx, r, keys)
	if err != nil {
		cancel()
		return nil, err
	}
	out := &response{Response: resp, cancel: cancel}
	if resp.StatusCode/100 == 2 {
		return out, nil
	}
	defer out.discard()
	e := errorOf(r.method, resp)
	if e.blamesCredentials() {
		s.keys.reject(keys) // they may have been rotated: the next request looks again
	}
	return nil, e
}

func (s *Store) withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, s.cfg.Timeout)
}

func (s *Store) sendSigned(ctx context.Context, r request, keys credentials.Value) (*http.Response, error) {
	req, err := s.build(ctx, r)
	if err != nil {
		return nil, err
	}
	req = signer.SignV4(*req, keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken, s.cfg.Region)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	return resp, nil
}

func (s *Store) build(ctx context.Context, r request) (*http.Request, error) {
	u := *s.base
	u.Path += "/" + r.key
	u.RawPath = s3utils.EncodePath(u.Path)
	u.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set(headerSHA256, emptySHA256)
	if r.body != nil {
		req.Header.Set(headerSHA256, unsignedPayload)
		req.Body, req.ContentLength = r.body, r.size
		if r.size == 0 {
			req.Body = http.NoBody // else net/http would have to probe for a first byte
		}
	}
	return req, nil
}
