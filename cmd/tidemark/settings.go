package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// setting binds one field of Config to its name and documentation. The name is
// the flag, the key in the YAML file and, in capitals with underscores after
// TIDEMARK_, the environment variable.
type setting struct {
	name string
	unit string // what a value looks like, shown in the help
	def  string // default in words, where the value itself would not tell
	doc  string
	set  func(string) error
	get  func() string
}

func (s setting) env() string {
	return "TIDEMARK_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// settings is the one list of everything that can be set. Values are written
// into c; the defaults shown are those c holds now.
func settings(c *Config) []setting {
	return []setting{
		text(&c.Listen, "listen", "HOST:PORT", "",
			"Address on which Kafka clients are accepted."),
		text(&c.Advertise, "advertise", "HOST:PORT", "the --listen address, with an address of this machine for a wildcard host",
			"Address that Kafka clients are told to connect to."),
		text(&c.Peer, "peer", "HOST:PORT", "",
			"Address on which other brokers are accepted."),
		text(&c.PeerAdvertise, "peer-advertise", "HOST:PORT", "the --peer address, with an address of this machine for a wildcard host",
			"Address that other brokers are told to connect to."),
		text(&c.HTTP, "http", "HOST:PORT", "",
			"Address of liveness (/livez), readiness (/readyz) and Prometheus metrics (/metrics). Empty turns it off."),
		text(&c.Rack, "rack", "NAME", "none",
			"Rack or availability zone of this broker, told to clients."),
		text(&c.Cluster, "cluster", "NAME", "",
			"Name of the cluster; brokers that share etcd, store and this name are one cluster."),
		text(&c.DataDir, "data-dir", "DIR", "",
			"Directory of the embedded etcd and bucket, and of the cache. One process at a time."),
		list(&c.Etcd, "etcd", "URL[,URL]", "none: etcd is embedded",
			"etcd endpoints. Needs --store."),
		text(&c.Store, "store", "URL", "none: a bucket is kept as files under --data-dir",
			"Where the log is kept: s3://BUCKET[/PREFIX] or file:///DIR. Needs --etcd. S3 credentials come from the standard AWS environment variables, files and instance roles."),
		text(&c.S3Endpoint, "s3-endpoint", "URL", "AWS",
			"Base URL of an S3-compatible store."),
		text(&c.S3Region, "s3-region", "NAME", "AWS_REGION, AWS_DEFAULT_REGION, else us-east-1",
			"Region of the bucket."),
		spacing(&c.FlushSpacing, "flush-spacing", "DURATION", "25ms on AWS, 2ms with --s3-endpoint and for files",
			"Least time between two uploads that a full buffer does not force. Longer costs latency and saves requests."),
		budget(&c.FlushBudget, "flush-budget", "UPLOADS/S", "10 on AWS, unlimited with --s3-endpoint and for files",
			"Most uploads a second that a full buffer does not force; 0 is unlimited."),
		text(&c.CacheDir, "cache-dir", "DIR", "cache under --data-dir",
			"Directory of the disk cache. May be lost or wiped at any time."),
		byteSize(&c.CacheBytes, "cache-bytes", "BYTES", "1GiB, 0 for files",
			"Size of the disk cache; 0 turns it off. Suffixes KiB, MiB, GiB and TiB are understood."),
		byteSize(&c.CatchUpBandwidth, "catch-up-bandwidth", "BYTES/S", "0, no limit",
			"Most bytes a second that this broker downloads from the store for consumers that are behind, for when they share a link with uploads."),
		byteSize(&c.MemoryTailBytes, "memory-tail-bytes", "BYTES", "",
			"Memory for recently written records, from which consumers that keep up are served."),
		duration(&c.TierInterval, "tier-interval", "DURATION", "",
			"How often partitions with write-ahead objects are looked at for tiering."),
		byteSize(&c.SegmentBytes, "tier-segment-bytes", "BYTES", "",
			"A partition with as much in write-ahead objects gets a segment of its own."),
		byteSize(&c.SegmentBytesMax, "tier-segment-bytes-max", "BYTES", "",
			"Largest segment. Also the memory that tiering may take."),
		duration(&c.TierAge, "tier-age", "DURATION", "",
			"When something has waited so long in write-ahead objects, all that is left goes into segments that partitions share. Shorter makes more and smaller segments."),
		byteSize(&c.TierBytes, "tier-bytes", "BYTES", "",
			"The same, when so much of it has gathered on this broker. Beyond twice as much, producers are slowed down."),
		duration(&c.CollectInterval, "collect-interval", "DURATION", "",
			"How often a broker looks whether objects that it waits to delete are free of others by now."),
		duration(&c.SweepInterval, "sweep-interval", "DURATION", "",
			"How often the bucket is listed to find objects that failures left behind."),
		duration(&c.SweepAge, "sweep-age", "DURATION", "",
			"Age from which such an object is deleted. A courtesy to whoever looks into a failure, not a safety."),
		duration(&c.RetentionInterval, "retention-interval", "DURATION", "",
			"How often a partition that has something to let go of is looked at, at most (log.retention.check.interval.ms)."),
		duration(&c.DeleteGrace, "delete-grace", "DURATION", "",
			"How long objects stay after retention, DeleteRecords or the deletion of a topic freed them. Below 10m0s is for tests."),
		boolean(&c.AutoCreateTopics, "auto-create-topics-enable", "",
			"Create a topic when a client first names it (auto.create.topics.enable)."),
		count(&c.NumPartitions, "num-partitions", "COUNT", "",
			"Partitions of a topic that is created without a number (num.partitions)."),
		duration(&c.GroupInitialRebalanceDelay, "group-initial-rebalance-delay", "DURATION", "",
			"How long an empty consumer group waits for more members before its first rebalance (group.initial.rebalance.delay.ms)."),
		duration(&c.ConsumerSessionTimeout, "group-consumer-session-timeout", "DURATION", "",
			"How long a member of a group of the consumer protocol (KIP-848) may be silent (group.consumer.session.timeout.ms)."),
		duration(&c.ConsumerHeartbeatInterval, "group-consumer-heartbeat-interval", "DURATION", "",
			"How often members of groups of the consumer protocol are told to send heartbeats (group.consumer.heartbeat.interval.ms)."),
		text(&c.ConsumerMigrationPolicy, "group-consumer-migration-policy", "POLICY", "",
			"Which groups may change their protocol while they have members: bidirectional, upgrade, downgrade or disabled (group.consumer.migration.policy)."),
		duration(&c.OffsetsRetention, "offsets-retention", "DURATION", "",
			"How long committed offsets are kept after their group lost its last member, or after the last commit of a consumer that assigns itself (offsets.retention.minutes)."),
		duration(&c.TransactionTimeoutMax, "transaction-max-timeout", "DURATION", "",
			"Longest time a producer may ask a transaction to be left open for before it is aborted (transaction.max.timeout.ms)."),
		duration(&c.TransactionalIDExpiration, "transactional-id-expiration", "DURATION", "",
			"How long a transactional id is remembered that nobody uses (transactional.id.expiration.ms)."),
		duration(&c.OffsetsTopicInterval, "offsets-topic-interval", "DURATION", "",
			"How long a committed offset may wait to be copied into __consumer_offsets, which lag monitors read; 0 turns the copies off. Longer costs fewer uploads where little else is written."),
		level(&c.LogLevel, "log-level", "debug|info|warn|error", "",
			"Least severe messages that are logged, to standard error."),
		text(&c.LogFormat, "log-format", "text|json", "",
			"Form of log lines."),
		text(&c.OTLPEndpoint, "otlp-endpoint", "URL", "none: no traces",
			"OTLP/gRPC collector that OpenTelemetry traces are sent to."),
		duration(&c.DrainTimeout, "drain-timeout", "DURATION", "",
			"How long a stopping broker may take to hand over its work before it just stops."),
	}
}

func text(p *string, name, unit, def, doc string) setting {
	return setting{name, unit, def, doc,
		func(s string) error { *p = s; return nil },
		func() string { return *p }}
}

func list(p *[]string, name, unit, def, doc string) setting {
	return setting{name, unit, def, doc,
		func(s string) error {
			*p = nil
			for _, part := range strings.Split(s, ",") {
				if part = strings.TrimSpace(part); part != "" {
					*p = append(*p, part)
				}
			}
			return nil
		},
		func() string { return strings.Join(*p, ",") }}
}

func boolean(p *bool, name, def, doc string) setting {
	return setting{name, "true|false", def, doc,
		func(s string) (err error) {
			switch s {
			case "true":
				*p = true
			case "false":
				*p = false
			default:
				err = errors.New("neither true nor false")
			}
			return err
		},
		func() string { return strconv.FormatBool(*p) }}
}

func count(p *int32, name, unit, def, doc string) setting {
	return setting{name, unit, def, doc,
		func(s string) error {
			n, err := strconv.ParseInt(s, 10, 32)
			if err != nil {
				return errors.New("not a whole number")
			}
			*p = int32(n)
			return nil
		},
		func() string { return strconv.Itoa(int(*p)) }}
}

func duration(p *time.Duration, name, unit, def, doc string) setting {
	return setting{name, unit, def, doc,
		func(s string) error {
			d, err := time.ParseDuration(s)
			if err != nil {
				return errors.New("not a duration such as 500ms, 3s or 1m30s")
			}
			*p = d
			return nil
		},
		func() string { return p.String() }}
}

// spacing and budget hold a negative value until derive fills it, so a negative
// one from outside is refused here.
func spacing(p *time.Duration, name, unit, def, doc string) setting {
	s := duration(p, name, unit, def, doc)
	set := s.set
	s.set = func(v string) error {
		if err := set(v); err != nil {
			return err
		}
		if *p < 0 {
			*p = flushSpacingAuto
			return errors.New("below 0")
		}
		return nil
	}
	return s
}

func budget(p *int, name, unit, def, doc string) setting {
	return setting{name, unit, def, doc,
		func(s string) error {
			n, err := strconv.ParseInt(s, 10, 32)
			if err != nil || n < 0 {
				return errors.New("not a whole number from 0")
			}
			*p = int(n)
			return nil
		},
		func() string { return strconv.Itoa(*p) }}
}

var byteUnits = []struct {
	suffix string
	shift  uint
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"", 0}}

func byteSize(p *int64, name, unit, def, doc string) setting {
	return setting{name, unit, def, doc,
		func(s string) (err error) { *p, err = parseBytes(s); return err },
		func() string { return formatBytes(*p) }}
}

func parseBytes(s string) (int64, error) {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64>>u.shift {
			break
		}
		return n << u.shift, nil
	}
	return 0, errors.New("not a number of bytes such as 1048576, 512MiB or 4GiB")
}

func formatBytes(n int64) string {
	for _, u := range byteUnits {
		if n != 0 && n%(1<<u.shift) == 0 {
			return fmt.Sprintf("%d%s", n>>u.shift, u.suffix)
		}
	}
	return "0"
}

func level(p *slog.Level, name, unit, def, doc string) setting {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	return setting{name, unit, def, doc,
		func(s string) error {
			l, ok := levels[s]
			if !ok {
				return errors.New("not one of debug, info, warn, error")
			}
			*p = l
			return nil
		},
		func() string { return strings.ToLower(p.String()) }}
}
