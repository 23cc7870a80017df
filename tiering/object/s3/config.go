// Package s3 keeps a bucket in S3 or in a server that speaks its protocol.
//
// The requests are built here, on minio-go's signer and credential providers,
// rather than sent through minio-go's client. A commit waits for one PUT, and
// that client is in its way: on plain http it hashes the payload with SHA-256
// in signed chunks unless told otherwise, it wraps a checksum into a chunked
// body with a trailer, after a failure it sleeps up to 200 ms even when it will
// not try again, and it keeps reading the caller's bytes after a cancelled call
// returned. A PUT here is exactly:
//
//	PUT /bucket/key
//	If-None-Match: *
//	X-Amz-Content-Sha256: UNSIGNED-PAYLOAD
//	X-Amz-Checksum-Crc32c: <base64 of the whole body's CRC32C>
//	Content-Length: <n>
//
// on http and https alike, sent once: neither this package nor net/http repeats
// it. The store verifies the checksum, and keeps it: a whole object is verified
// against it when it is read.
package s3

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/tidemark-io/tidemark/tiering/object"
)

const (
	defaultRegion  = "us-east-1"
	defaultTimeout = time.Minute
	defaultConns   = 64
)

// Config says which bucket, and how to reach it. Credentials come from the
// standard places: AWS_* environment variables, the shared files
// (~/.aws/credentials and config, AWS_PROFILE), and the role of the instance,
// container or service account.
type Config struct {
	// Endpoint is the URL of the server, http or https, without a path. Empty
	// means AWS in Region.
	Endpoint string
	// Region is part of every signature. Default us-east-1, which servers
	// without regions expect.
	Region string
	// Bucket must exist.
	Bucket string
	// Prefix is put before every key with a slash between, so that one bucket
	// can hold several clusters. It may be empty.
	Prefix string
	// AccessKey and SecretKey, if set, are used instead of the standard places.
	AccessKey, SecretKey string
	// Timeout limits a request whose context has no deadline. Default 1 min.
	Timeout time.Duration
	// Conns is how many idle connections are kept. It should be no less than
	// the requests in flight, or connections are opened and closed all the
	// time. Default 64.
	Conns int
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Region == "" {
		c.Region = defaultRegion
	}
	if c.Endpoint == "" {
		c.Endpoint = "https://s3." + c.Region + "." + awsDomain(c.Region)
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Conns <= 0 {
		c.Conns = defaultConns
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Prefix = strings.Trim(c.Prefix, "/")
	return c
}

func awsDomain(region string) string {
	if strings.HasPrefix(region, "cn-") {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}

// validate reports every conflict, and the parsed endpoint.
func (c Config) validate() (*url.URL, error) {
	var errs []error
	if err := s3utils.CheckValidBucketNameStrict(c.Bucket); err != nil {
		errs = append(errs, fmt.Errorf("bucket %q: %w", c.Bucket, err))
	}
	if c.Prefix != "" {
		if err := object.CheckKey(c.Prefix); err != nil {
			errs = append(errs, fmt.Errorf("prefix: %w", err))
		}
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		errs = append(errs, errors.New("an access key needs a secret key, and the reverse"))
	}
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("endpoint: %w", err))
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		errs = append(errs, fmt.Errorf("endpoint %q: want http://HOST[:PORT] or https://HOST[:PORT]", c.Endpoint))
	case strings.Trim(u.Path, "/") != "", u.RawQuery != "", u.User != nil:
		errs = append(errs, fmt.Errorf("endpoint %q: must have no path, query or user", u.Redacted()))
	}
	return u, errors.Join(errs...)
}

// base returns the URL of the bucket. AWS wants the bucket in the host name;
// elsewhere, and for names with dots, which no wildcard certificate covers, it
// is the first part of the path.
func (c Config) base(endpoint *url.URL) *url.URL {
	u := &url.URL{Scheme: endpoint.Scheme, Host: endpoint.Host, Path: "/" + c.Bucket}
	if s3utils.IsAmazonEndpoint(*endpoint) && !strings.Contains(c.Bucket, ".") {
		u.Host = c.Bucket + "." + endpoint.Host
		u.Path = ""
	}
	return u
}
