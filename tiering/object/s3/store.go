package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/tidemark-io/tidemark/tiering/object"
)

var (
	_ object.Store       = (*Store)(nil)
	_ object.Checker     = (*Store)(nil)
	_ object.PerEndpoint = (*Store)(nil)
)

// Store is a bucket, or the part of one below a prefix. Use Open.
type Store struct {
	cfg       Config
	endpoint  *url.URL
	base      *url.URL // the bucket
	prefix    string   // empty, or ends in a slash
	keys      *keyring
	client    *http.Client
	transport *http.Transport

	mu       sync.Mutex // guards children
	children []*Store   // what PerEndpoint made
}

// Open prepares a client. It sends no request; Check does.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	endpoint, err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("s3 store: %w", err)
	}
	return newStore(cfg, endpoint, newKeyring(cfg), ""), nil
}

func newStore(cfg Config, endpoint *url.URL, keys *keyring, address string) *Store {
	s := &Store{cfg: cfg, endpoint: endpoint, base: cfg.base(endpoint), keys: keys}
	if cfg.Prefix != "" {
		s.prefix = cfg.Prefix + "/"
	}
	s.transport = newTransport(cfg.Conns, address)
	s.client = newClient(s.transport)
	return s
}

// Close drops idle connections. The store must not be in use.
func (s *Store) Close() error {
	s.keys.running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.children {
		c.transport.CloseIdleConnections()
	}
	s.transport.CloseIdleConnections()
	return nil
}

// String names the bucket and how it is reached.
func (s *Store) String() string {
	return fmt.Sprintf("bucket %s at %s", s.cfg.Bucket, s.endpoint.Redacted())
}

// Create implements object.Store with one PUT that is never repeated.
func (s *Store) Create(ctx context.Context, key string, data ...[]byte) error {
	if err := object.CheckKey(key); err != nil {
		return err
	}
	size, err := object.CheckSize(data)
	if err != nil {
		return err
	}
	if err := s.put(ctx, key, data, size); err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, data [][]byte, size int64) error {
	sum := checksum(data...)
	b := &body{parts: append([][]byte(nil), data...)}
	defer b.detach()
	resp, err := s.send(ctx, request{
		method: http.MethodPut,
		key:    s.prefix + key,
		header: http.Header{
			"If-None-Match": {"*"},
			headerCRC32C:    {sum},
			"Content-Type":  {"application/octet-stream"},
		},
		body: b,
		size: size,
	})
	if err != nil {
		return err
	}
	defer resp.discard()
	// Anything but the store's own 200 (a proxy's page, say) proves nothing.
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Etag") == "" {
		return fmt.Errorf("server answered %s without an ETag: outcome unknown", resp.Status)
	}
	if got := resp.Header.Get(headerCRC32C); got != "" && got != sum {
		return fmt.Errorf("server stored checksum %q, sent %q: outcome unknown", got, sum)
	}
	return nil
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := object.CheckKey(key); err != nil {
		return err
	}
	resp, err := s.send(ctx, request{method: http.MethodDelete, key: s.prefix + key})
	if errors.Is(err, object.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	resp.discard()
	return nil
}
