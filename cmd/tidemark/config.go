package main

import (
	"errors"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"time"
)

// Config is everything a broker can be told, defaults filled in and validated.
// The settings table in settings.go binds every field to its name and
// documentation; LoadConfig is the only way to make one.
type Config struct {
	// Where the broker is reached.
	Listen        string // HOST:PORT bound for Kafka clients
	Advertise     string // HOST:PORT told to Kafka clients
	Peer          string // HOST:PORT bound for other brokers
	PeerAdvertise string // HOST:PORT told to other brokers
	HTTP          string // HOST:PORT of health and metrics; empty: none
	Rack          string
	Cluster       string

	// What it rests on. Neither Etcd nor Store: both are embedded under DataDir.
	DataDir    string
	Etcd       []string // endpoint URLs
	Store      string   // as given; see StoreLocation
	S3Endpoint string   // base URL; empty: AWS
	S3Region   string

	// How it trades latency, cost and memory.
	FlushSpacing     time.Duration // least time between two time-triggered flushes
	FlushBudget      int           // time-triggered flushes a second; 0: unlimited
	CacheDir         string
	CacheBytes       int64
	CatchUpBandwidth int64 // bytes a second; 0: no limit
	MemoryTailBytes  int64

	// How write-ahead objects become segments and go.
	TierInterval    time.Duration
	TierAge         time.Duration
	TierBytes       int64
	SegmentBytes    int64
	SegmentBytesMax int64
	CollectInterval time.Duration
	SweepInterval   time.Duration
	SweepAge        time.Duration

	// How records are let go of.
	RetentionInterval time.Duration
	DeleteGrace       time.Duration

	// Kafka's own settings.
	AutoCreateTopics           bool
	NumPartitions              int32
	GroupInitialRebalanceDelay time.Duration
	ConsumerSessionTimeout     time.Duration
	ConsumerHeartbeatInterval  time.Duration
	ConsumerMigrationPolicy    string
	OffsetsRetention           time.Duration
	TransactionTimeoutMax      time.Duration
	TransactionalIDExpiration  time.Duration
	OffsetsTopicInterval       time.Duration

	// How it is observed and stopped.
	LogLevel     slog.Level
	LogFormat    string // text or json
	OTLPEndpoint string // URL of an OTLP/gRPC collector; empty: no traces
	DrainTimeout time.Duration
}

// Defaults where the operator set none: S3 charges per request and answers in
// tens of milliseconds; a MinIO next door or a disk does neither. A bucket that
// is files gets no disk cache: it would be a copy of files beside the files.
const (
	flushSpacingS3    = 25 * time.Millisecond
	flushSpacingLocal = 2 * time.Millisecond
	flushBudgetS3     = 10
	cacheBytesS3      = 1 << 30
)

// Settings that are still to be derived from the store.
const (
	flushSpacingAuto time.Duration = -1
	flushBudgetAuto  int           = -1
	cacheBytesAuto   int64         = -1
)

func defaultConfig() *Config {
	return &Config{
		Listen:                     "127.0.0.1:9092",
		Peer:                       "127.0.0.1:9093",
		HTTP:                       "127.0.0.1:9094",
		Cluster:                    "tidemark",
		DataDir:                    "./data",
		S3Region:                   "us-east-1",
		FlushSpacing:               flushSpacingAuto,
		FlushBudget:                flushBudgetAuto,
		CacheBytes:                 cacheBytesAuto,
		MemoryTailBytes:            256 << 20,
		TierInterval:               10 * time.Second,
		TierAge:                    10 * time.Minute,
		TierBytes:                  4 << 30,
		SegmentBytes:               32 << 20,
		SegmentBytesMax:            128 << 20,
		CollectInterval:            time.Minute,
		SweepInterval:              6 * time.Hour,
		SweepAge:                   24 * time.Hour,
		RetentionInterval:          time.Minute,
		DeleteGrace:                time.Hour,
		AutoCreateTopics:           true,
		NumPartitions:              1,
		GroupInitialRebalanceDelay: 3 * time.Second,  // group.initial.rebalance.delay.ms
		ConsumerSessionTimeout:     45 * time.Second, // group.consumer.session.timeout.ms
		ConsumerHeartbeatInterval:  5 * time.Second,  // group.consumer.heartbeat.interval.ms
		ConsumerMigrationPolicy:    "bidirectional",  // group.consumer.migration.policy
		OffsetsTopicInterval:       time.Second,
		OffsetsRetention:           7 * 24 * time.Hour, // offsets.retention.minutes
		TransactionTimeoutMax:      15 * time.Minute,   // transaction.max.timeout.ms
		TransactionalIDExpiration:  7 * 24 * time.Hour, // transactional.id.expiration.ms
		LogLevel:                   slog.LevelInfo,
		LogFormat:                  "text",
		DrainTimeout:               4 * time.Second, // leaves a second of the five a Ctrl-C may take
	}
}

// Embedded tells whether etcd and the bucket live inside this process.
func (c *Config) Embedded() bool { return len(c.Etcd) == 0 && c.Store == "" }

// StoreLocation is a parsed Store. Exactly one of Bucket and Dir is set.
type StoreLocation struct {
	Bucket string
	Prefix string // without slashes at its ends; may be empty
	Dir    string // absolute
}

// StoreLocation tells where the log is kept. In embedded mode it is a directory
// under DataDir.
func (c *Config) StoreLocation() (StoreLocation, error) {
	if c.Store == "" {
		dir, err := filepath.Abs(filepath.Join(c.DataDir, "bucket"))
		return StoreLocation{Dir: dir}, err
	}
	return parseStore(c.Store)
}

// derive fills what follows from other settings. It runs before validation, so
// it leaves alone whatever it cannot make sense of.
func (c *Config) derive(ownHost func() (string, error)) {
	if c.Advertise == "" {
		c.Advertise = reachable(c.Listen, ownHost)
	}
	if c.PeerAdvertise == "" {
		c.PeerAdvertise = reachable(c.Peer, ownHost)
	}
	if c.CacheDir == "" {
		c.CacheDir = filepath.Join(c.DataDir, "cache")
	}
	loc, err := c.StoreLocation()
	aws := err == nil && loc.Bucket != "" && c.S3Endpoint == ""
	if c.FlushSpacing == flushSpacingAuto {
		c.FlushSpacing = flushSpacingLocal
		if aws {
			c.FlushSpacing = flushSpacingS3
		}
	}
	if c.CacheBytes == cacheBytesAuto {
		c.CacheBytes = cacheBytesS3
		if err == nil && loc.Dir != "" {
			c.CacheBytes = 0
		}
	}
	if c.FlushBudget == flushBudgetAuto {
		c.FlushBudget = 0
		if aws {
			c.FlushBudget = flushBudgetS3
		}
	}
}

// reachable turns an address to bind into one to tell others: a wildcard host
// becomes what ownHost says.
func reachable(bind string, ownHost func() (string, error)) string {
	host, port, err := net.SplitHostPort(bind)
	if err != nil || !wildcard(host) {
		return bind
	}
	own, err := ownHost()
	if err != nil {
		return bind
	}
	return net.JoinHostPort(own, port)
}

// ownAddress is an IP address of this machine that others may reach: the first
// IPv4 one that is neither loopback nor link-local, else such an IPv6 one. An
// address, not the host name, because in a container or pod nobody else can
// resolve that.
func ownAddress() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	var six string
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		switch {
		case !ok || !n.IP.IsGlobalUnicast():
		case n.IP.To4() != nil:
			return n.IP.String(), nil
		case six == "":
			six = n.IP.String()
		}
	}
	if six == "" {
		return "", errors.New("no address but loopback")
	}
	return six, nil
}

func wildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func parseStore(s string) (StoreLocation, error) {
	u, err := url.Parse(s)
	if err != nil {
		return StoreLocation{}, err
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return StoreLocation{}, errStoreForm
	}
	switch u.Scheme {
	case "s3":
		prefix := trimSlashes(u.Path)
		if !bucketName.MatchString(u.Host) || prefix != "" && !keyPrefix.MatchString(prefix) {
			return StoreLocation{}, errStoreForm
		}
		return StoreLocation{Bucket: u.Host, Prefix: prefix}, nil
	case "file":
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return StoreLocation{}, errStoreForm
		}
		return StoreLocation{Dir: filepath.Clean(u.Path)}, nil
	}
	return StoreLocation{}, errStoreForm
}
