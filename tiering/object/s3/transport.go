package s3

import (
	"context"
	"net"
	"net/http"
	"time"
)

const (
	dialTimeout     = 5 * time.Second
	idleConnTimeout = 90 * time.Second
	// headerTimeout is the last resort against a server that took a request
	// and never answers; callers set closer deadlines.
	headerTimeout = time.Minute
	bufferBytes   = 64 << 10
)

// newTransport returns a transport for one endpoint. A dial address that is not
// empty replaces what the endpoint's name resolves to.
//
// It speaks HTTP/1.1 only: requests that carry megabytes gain nothing from
// sharing a connection, and one lost packet would hold up all of them.
func newTransport(conns int, address string) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	proxy, dial := http.ProxyFromEnvironment, dialer.DialContext
	if address != "" {
		proxy = nil
		dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		}
	}
	return &http.Transport{
		Proxy:                 proxy,
		DialContext:           dial,
		Protocols:             &protocols,
		MaxIdleConns:          conns,
		MaxIdleConnsPerHost:   conns,
		IdleConnTimeout:       idleConnTimeout,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		DisableCompression:    true, // what is stored is what is read
		WriteBufferSize:       bufferBytes,
		ReadBufferSize:        bufferBytes,
	}
}

// newClient returns a client that follows no redirects: a signature is valid
// for one host.
func newClient(t http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
