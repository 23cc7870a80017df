package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tidemark-io/tidemark/broker/group/consumer"
)

var (
	// bucketName is what S3 and MinIO accept today: no capitals, no underscore.
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	// keyPrefix keeps keys free of what URLs, paths and signatures treat specially.
	keyPrefix = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)
	// plainName is what may stand in an etcd key and in a metric label.
	plainName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

	errStoreForm = errors.New("neither s3://BUCKET[/PREFIX] nor file:///DIR with an absolute path")
)

// memoryTailMin lets a few full uploads (16 MiB at most, each) stay readable.
const memoryTailMin = 64 << 20

// validate reports every setting that cannot be, and every pair that conflicts.
func (c *Config) validate() error {
	return errors.Join(
		c.validateAddresses(),
		c.validateNames(),
		c.validateStore(),
		c.validateTuning(),
		c.validateObservation(),
	)
}

func (c *Config) validateAddresses() error {
	bound := []struct{ name, addr string }{
		{"--listen", c.Listen}, {"--peer", c.Peer}, {"--http", c.HTTP},
	}
	var faults []error
	var good []struct{ name, addr string }
	for _, b := range bound {
		if b.name == "--http" && b.addr == "" {
			continue
		}
		if err := checkAddress(b.addr, true); err != nil {
			faults = append(faults, fmt.Errorf("%s: %q: %w", b.name, b.addr, err))
			continue
		}
		for _, other := range good {
			if overlap(other.addr, b.addr) {
				faults = append(faults, fmt.Errorf("%s and %s: both would bind %s; give each a port of its own", other.name, b.name, b.addr))
			}
		}
		good = append(good, b)
	}
	for _, a := range []struct{ name, addr, from, bind string }{
		{"--advertise", c.Advertise, "--listen", c.Listen},
		{"--peer-advertise", c.PeerAdvertise, "--peer", c.Peer},
	} {
		if a.addr == a.bind && checkAddress(a.bind, true) != nil {
			continue // reported above, where it was set
		}
		if err := checkAddress(a.addr, false); err != nil {
			faults = append(faults, fmt.Errorf("%s: %q: %w", a.name, a.addr, err))
		}
	}
	return errors.Join(faults...)
}

// checkAddress wants HOST:PORT; only an address to bind may have a wildcard host.
func checkAddress(addr string, bind bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return errors.New("not of the form HOST:PORT")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return errors.New("the port is not a number from 1 to 65535")
	}
	if !bind && wildcard(host) {
		return errors.New("others cannot connect to a wildcard host; name one")
	}
	if strings.ContainsAny(host, " /\\@") {
		return errors.New("the host is not a name or an IP address")
	}
	return nil
}

func overlap(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	return portA == portB && (hostA == hostB || wildcard(hostA) || wildcard(hostB))
}

func (c *Config) validateNames() error {
	var faults []error
	if !plainName.MatchString(c.Cluster) {
		faults = append(faults, fmt.Errorf("--cluster: %q: 1 to 64 letters, digits, dots, dashes and underscores", c.Cluster))
	}
	if c.Rack != "" && !plainName.MatchString(c.Rack) {
		faults = append(faults, fmt.Errorf("--rack: %q: at most 64 letters, digits, dots, dashes and underscores", c.Rack))
	}
	if c.DataDir == "" {
		faults = append(faults, errors.New("--data-dir: empty; the cache and, without --etcd and --store, the log are kept there"))
	}
	return errors.Join(faults...)
}

func (c *Config) validateStore() error {
	var faults []error
	switch {
	case len(c.Etcd) > 0 && c.Store == "":
		faults = append(faults, errors.New("--etcd without --store: a cluster in etcd needs a store its brokers share; give both, or neither to embed them"))
	case len(c.Etcd) == 0 && c.Store != "":
		faults = append(faults, errors.New("--store without --etcd: a log in a shared store needs the etcd of its cluster; give both, or neither to embed them"))
	}
	for _, e := range c.Etcd {
		u, err := url.Parse(e)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
			faults = append(faults, fmt.Errorf("--etcd: %q: not of the form http://HOST:PORT or https://HOST:PORT", e))
		}
	}
	s3 := false
	if c.Store != "" {
		loc, err := parseStore(c.Store)
		if err != nil {
			faults = append(faults, fmt.Errorf("--store: %q: %w", c.Store, err))
		}
		s3 = err != nil || loc.Bucket != ""
	}
	if c.S3Endpoint != "" {
		u, err := url.Parse(c.S3Endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
			faults = append(faults, fmt.Errorf("--s3-endpoint: %q: not of the form http://HOST[:PORT] or https://HOST[:PORT]", c.S3Endpoint))
		}
		if !s3 {
			faults = append(faults, errors.New("--s3-endpoint without --store s3://BUCKET: it would have no effect"))
		}
	}
	if c.S3Region == "" {
		faults = append(faults, errors.New("--s3-region: empty; requests are signed for a region"))
	}
	return errors.Join(faults...)
}

func (c *Config) validateTuning() error {
	var faults []error
	within := func(name string, d, low, high time.Duration) {
		if d < low || d > high {
			faults = append(faults, fmt.Errorf("--%s: %v: not from %v to %v", name, d, low, high))
		}
	}
	within("flush-spacing", c.FlushSpacing, 0, 5*time.Second)
	within("group-initial-rebalance-delay", c.GroupInitialRebalanceDelay, 0, 5*time.Minute)
	within("group-consumer-session-timeout", c.ConsumerSessionTimeout, 100*time.Millisecond, time.Hour)
	within("group-consumer-heartbeat-interval", c.ConsumerHeartbeatInterval, 10*time.Millisecond, c.ConsumerSessionTimeout-1)
	within("offsets-topic-interval", c.OffsetsTopicInterval, 0, time.Hour)
	within("offsets-retention", c.OffsetsRetention, time.Minute, 100*365*24*time.Hour)
	within("transaction-max-timeout", c.TransactionTimeoutMax, time.Second, 24*24*time.Hour)
	within("transactional-id-expiration", c.TransactionalIDExpiration, c.TransactionTimeoutMax, 100*365*24*time.Hour)
	if _, err := consumer.ParseMigration(c.ConsumerMigrationPolicy); err != nil {
		faults = append(faults, fmt.Errorf("--group-consumer-migration-policy: %w", err))
	}
	within("drain-timeout", c.DrainTimeout, 100*time.Millisecond, 10*time.Minute)
	if c.CacheBytes != 0 && c.CacheBytes < 64<<20 {
		faults = append(faults, fmt.Errorf("--cache-bytes: %s: below 64MiB it would hold too few of its 4MiB chunks; 0 turns the cache off", formatBytes(c.CacheBytes)))
	}
	if c.CatchUpBandwidth != 0 && c.CatchUpBandwidth < 8<<20 {
		faults = append(faults, fmt.Errorf("--catch-up-bandwidth: %s: below 8MiB a second, consumers that are behind would wait too long for one 4MiB chunk; 0 is no limit", formatBytes(c.CatchUpBandwidth)))
	}
	faults = append(faults, c.validateTiering()...)
	if c.MemoryTailBytes < memoryTailMin {
		faults = append(faults, fmt.Errorf("--memory-tail-bytes: %s: below %s", formatBytes(c.MemoryTailBytes), formatBytes(memoryTailMin)))
	}
	if c.NumPartitions < 1 || c.NumPartitions > 10000 {
		faults = append(faults, fmt.Errorf("--num-partitions: %d: not from 1 to 10000", c.NumPartitions))
	}
	return errors.Join(faults...)
}

func (c *Config) validateObservation() error {
	var faults []error
	if c.LogFormat != "text" && c.LogFormat != "json" {
		faults = append(faults, fmt.Errorf("--log-format: %q: neither text nor json", c.LogFormat))
	}
	if c.OTLPEndpoint != "" {
		u, err := url.Parse(c.OTLPEndpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			faults = append(faults, fmt.Errorf("--otlp-endpoint: %q: not of the form http://HOST:PORT or https://HOST:PORT", c.OTLPEndpoint))
		}
	}
	return errors.Join(faults...)
}

func trimSlashes(s string) string { return strings.Trim(s, "/") }

func (c *Config) validateTiering() (faults []error) {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"--tier-interval", c.TierInterval}, {"--tier-age", c.TierAge}, {"--collect-interval", c.CollectInterval},
		{"--sweep-interval", c.SweepInterval}, {"--sweep-age", c.SweepAge},
		{"--retention-interval", c.RetentionInterval}, {"--delete-grace", c.DeleteGrace},
	} {
		if d.value <= 0 {
			faults = append(faults, fmt.Errorf("%s: %v: not above 0", d.name, d.value))
		}
	}
	switch {
	case c.SegmentBytes < 1:
		faults = append(faults, errors.New("--tier-segment-bytes: not above 0"))
	case c.SegmentBytesMax < c.SegmentBytes || c.SegmentBytesMax > segmentBytesLimit:
		faults = append(faults, fmt.Errorf("--tier-segment-bytes-max: %s: not from --tier-segment-bytes (%s) to %s", formatBytes(c.SegmentBytesMax), formatBytes(c.SegmentBytes), formatBytes(segmentBytesLimit)))
	}
	if c.TierBytes < 1 {
		faults = append(faults, errors.New("--tier-bytes: not above 0"))
	}
	return faults
}

// segmentBytesLimit is what a segment may be in memory while it is written.
const segmentBytesLimit = 512 << 20
