package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
)

const (
	pageKeysMax  = 1000    // what S3 returns at most
	pageBytesMax = 8 << 20 // 1,000 keys of 1 KiB, three times escaped
)

// page is an answer to ListObjectsV2.
type page struct {
	Contents []struct {
		Key          string
		Size         int64
		LastModified time.Time
	}
	EncodingType          string
	IsTruncated           bool
	NextContinuationToken string
}

// List implements object.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	if err := object.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	if limit <= 0 {
		return nil, ctx.Err()
	}
	query := url.Values{
		"list-type": {"2"}, "encoding-type": {"url"}, "prefix": {s.prefix + prefix},
	}
	if after != "" {
		query.Set("start-after", s.prefix+after)
	}
	var infos []object.Info
	for {
		query.Set("max-keys", strconv.Itoa(min(limit-len(infos), pageKeysMax)))
		p, err := s.listPage(ctx, query)
		if err == nil {
			infos, err = s.appendPage(infos, p, prefix, after)
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		if len(infos) >= limit || !p.IsTruncated {
			return infos[:min(limit, len(infos))], nil
		}
		query.Set("continuation-token", p.NextContinuationToken)
	}
}

func (s *Store) listPage(ctx context.Context, query url.Values) (*page, error) {
	resp, err := s.send(ctx, request{method: http.MethodGet, query: query})
	if err != nil {
		return nil, err
	}
	defer resp.discard()
	b, err := io.ReadAll(io.LimitReader(resp.Body, pageBytesMax))
	if err != nil {
		return nil, err
	}
	var p page
	if err := xml.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("malformed listing: %w", err)
	}
	if p.IsTruncated && (p.NextContinuationToken == "" || p.NextContinuationToken == query.Get("continuation-token")) {
		return nil, errors.New("malformed listing: it has more pages and does not say where")
	}
	return &p, nil
}

func (s *Store) appendPage(infos []object.Info, p *page, prefix, after string) ([]object.Info, error) {
	for _, c := range p.Contents {
		key := c.Key
		if p.EncodingType == "url" {
			var err error
			if key, err = url.QueryUnescape(key); err != nil {
				return nil, fmt.Errorf("malformed listing: %w", err)
			}
		}
		key, ok := strings.CutPrefix(key, s.prefix)
		if !ok || !strings.HasPrefix(key, prefix) || key <= after {
			return nil, fmt.Errorf("malformed listing: unexpected key %q", c.Key)
		}
		infos = append(infos, object.Info{Key: key, Size: c.Size, Modified: c.LastModified})
	}
	return infos, nil
}
