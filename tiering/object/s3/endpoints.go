package s3

import (
	"context"
	"net"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// addressesMax bounds how many addresses of an endpoint are told apart.
const addressesMax = 8

// PerEndpoint implements object.PerEndpoint: a store for each address that the
// endpoint's name resolves to and that accepts connections. It returns none
// where there is only one.
func (s *Store) PerEndpoint(ctx context.Context) ([]object.Store, error) {
	port := s.base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[s.base.Scheme]
	}
	hosts, err := net.DefaultResolver.LookupHost(ctx, s.base.Hostname())
	if err != nil {
		return nil, nil //nolint:nilerr // a proxy may know the name; the store's own requests will tell
	}
	var reachable []string
	for _, host := range hosts[:min(len(hosts), addressesMax)] {
		if address := net.JoinHostPort(host, port); len(hosts) > 1 && accepts(ctx, address) {
			reachable = append(reachable, address)
		}
	}
	if len(reachable) < 2 {
		return nil, nil
	}
	return s.via(reachable), nil
}

// accepts tells whether anything listens: "localhost" resolves to the address
// of a protocol the server may not speak.
func accepts(ctx context.Context, address string) bool {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// via returns a store for each address.
func (s *Store) via(addresses []string) []object.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	var stores []object.Store
	for _, address := range addresses {
		c := newStore(s.cfg, s.endpoint, s.keys, address)
		s.children = append(s.children, c)
		stores = append(stores, c)
	}
	return stores
}
