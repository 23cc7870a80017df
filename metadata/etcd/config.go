package etcd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Defaults and fixed bounds.
const (
	defaultCallTimeout = 5 * time.Second
	defaultOpenTimeout = 10 * time.Second
	// readAttempt bounds one attempt of a read, so that a member that hangs
	// leaves time to ask another.
	readAttempt = 2 * time.Second
	// renewAttempt bounds one attempt to renew a lease at one member.
	renewAttempt = time.Second
	// renewStagger is how long one member has before the next is asked too.
	renewStagger = 250 * time.Millisecond
	pageEntries  = 1000
	// watchBacklogMax is the number of changes kept for a receiver that does
	// not keep up.
	watchBacklogMax = 100_000
	progressEvery   = time.Minute
)

// Config says which etcd to use, and how.
type Config struct {
	// Endpoints are the members' client URLs: http://HOST:PORT, or https.
	Endpoints []string
	// Cluster names the keys: everything lies below /tidemark/<Cluster>/.
	Cluster string
	// TLS is for https endpoints; nil trusts the system's roots.
	TLS *tls.Config
	// Username and Password log in, when etcd's authentication is on.
	Username, Password string
	// CallTimeout bounds every call besides its context. Longer rides out
	// slower disks, shorter finds a hung member sooner. Default 5 s.
	CallTimeout time.Duration
	// OpenTimeout bounds Open. Default 10 s.
	OpenTimeout time.Duration
	Registerer  prometheus.Registerer
	Log         *slog.Logger
}

var clusterName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,64}$`)

// prepare fills defaults, normalises endpoints and reports every conflict.
func (c *Config) prepare() error {
	if c.CallTimeout == 0 {
		c.CallTimeout = defaultCallTimeout
	}
	if c.OpenTimeout == 0 {
		c.OpenTimeout = defaultOpenTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if !clusterName.MatchString(c.Cluster) {
		errs = append(errs, fmt.Errorf("cluster name %q: want 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'", c.Cluster))
	}
	if len(c.Endpoints) == 0 {
		errs = append(errs, errors.New("no etcd endpoint given"))
	}
	endpoints := make([]string, 0, len(c.Endpoints))
	for _, raw := range c.Endpoints {
		ep, err := parseEndpoint(raw)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		endpoints = append(endpoints, ep)
	}
	c.Endpoints = endpoints
	return errors.Join(errs...)
}

func parseEndpoint(raw string) (string, error) {
	s := strings.TrimSpace(raw)
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("etcd endpoint %q: %w", raw, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("etcd endpoint %q: want http://HOST:PORT or https://HOST:PORT", raw)
	}
	if u.Port() == "" && u.Hostname() != "" {
		u.Host = net.JoinHostPort(u.Hostname(), "2379")
	}
	if u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return "", fmt.Errorf("etcd endpoint %q: want http://HOST:PORT or https://HOST:PORT and nothing else", raw)
	}
	return u.Scheme + "://" + u.Host, nil
}
