package configdef

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// MaxMessageBytes is the largest max.message.bytes: a batch is never split
// between objects of the log.
const MaxMessageBytes = 32 << 20

const (
	maxLong = math.MaxInt64
	maxInt  = math.MaxInt32
)

func number(name string, t kmsg.ConfigType, def int64, lo, hi float64, broker, doc string) Def {
	return Def{Name: name, Type: t, Default: strconv.FormatInt(def, 10), min: lo, max: hi, bounded: true, Broker: broker, Doc: doc}
}

func integer(name string, def int64, lo, hi float64, broker, doc string) Def {
	return number(name, kmsg.ConfigTypeInt, def, lo, hi, broker, doc)
}

func long(name string, def int64, lo float64, broker, doc string) Def {
	return number(name, kmsg.ConfigTypeLong, def, lo, maxLong, broker, doc)
}

func boolean(name string, def bool, broker, doc string) Def {
	return Def{Name: name, Type: kmsg.ConfigTypeBoolean, Default: strconv.FormatBool(def), Broker: broker, Doc: doc}
}

func choice(name, def, broker, doc string, choices ...string) Def {
	return Def{Name: name, Type: kmsg.ConfigTypeString, Default: def, Choices: choices, Broker: broker, Doc: doc}
}

func list(name, def, broker, doc string, choices ...string) Def {
	return Def{Name: name, Type: kmsg.ConfigTypeList, Default: def, Choices: choices, Broker: broker, Doc: doc}
}

func sorted(defs []Def) []Def {
	slices.SortFunc(defs, func(a, b Def) int { return strings.Compare(a.Name, b.Name) })
	return defs
}

const noEffect = " Accepted and shown; it has no effect on a log in object storage."

// topics are the topic configs of Kafka 4, by name.
var topics = sorted([]Def{
	list("cleanup.policy", "delete", "log.cleanup.policy", "delete removes old segments by time and size, compact keeps the last value of each key, both do both.", "compact", "delete"),
	integer("compression.gzip.level", -1, -1, 9, "compression.gzip.level", "The gzip level."+noEffect),
	integer("compression.lz4.level", 9, 1, 17, "compression.lz4.level", "The lz4 level."+noEffect),
	integer("compression.zstd.level", 3, -131072, 22, "compression.zstd.level", "The zstd level."+noEffect),
	choice("compression.type", "producer", "compression.type", "Batches are kept exactly as producers compress them, whatever is set here; uncompressed ones are compressed in storage and served as they came.",
		"uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
	long("delete.retention.ms", 86400000, 0, "log.cleaner.delete.retention.ms", "How long tombstones of a compacted topic are kept. Accepted and shown; nothing is compacted yet."),
	long("file.delete.delay.ms", 60000, 0, "log.segment.delete.delay.ms", "The wait before a file is deleted."+noEffect),
	long("flush.messages", maxLong, 1, "log.flush.interval.messages", "Every acknowledged record is durable."+noEffect),
	long("flush.ms", maxLong, 0, "log.flush.interval.ms", "Every acknowledged record is durable."+noEffect),
	list("follower.replication.throttled.replicas", "", "", "There is no replication traffic to throttle."+noEffect),
	list("leader.replication.throttled.replicas", "", "", "There is no replication traffic to throttle."+noEffect),
	integer("index.interval.bytes", 4096, 0, maxInt, "log.index.interval.bytes", "Every batch is indexed."+noEffect),
	long("local.retention.bytes", -2, -2, "log.local.retention.bytes", "What is local are write-ahead objects, which segments take the place of, and caches, which are sized for the broker as a whole."+noEffect),
	long("local.retention.ms", -2, -2, "log.local.retention.ms", "What is local are write-ahead objects, which segments take the place of, and caches, which are sized for the broker as a whole."+noEffect),
	long("max.compaction.lag.ms", maxLong, 1, "log.cleaner.max.compaction.lag.ms", "The longest a record stays out of compaction."),
	integer("max.message.bytes", 1048588, 0, MaxMessageBytes, "message.max.bytes", "The largest record batch accepted, at most 32 MiB: a batch is never split between objects."),
	long("message.timestamp.after.max.ms", 3600000, 0, "log.message.timestamp.after.max.ms", "How far a record's timestamp may lie in the future."),
	long("message.timestamp.before.max.ms", maxLong, 0, "log.message.timestamp.before.max.ms", "How far a record's timestamp may lie in the past."),
	choice("message.timestamp.type", "CreateTime", "log.message.timestamp.type", "Whether records keep the producer's time or get the broker's.", "CreateTime", "LogAppendTime"),
	{Name: "min.cleanable.dirty.ratio", Type: kmsg.ConfigTypeDouble, Default: "0.5", min: 0, max: 1, bounded: true, Broker: "log.cleaner.min.cleanable.ratio", Doc: "The share of uncompacted bytes from which a topic is compacted."},
	long("min.compaction.lag.ms", 0, 0, "log.cleaner.min.compaction.lag.ms", "The shortest a record stays out of compaction."),
	integer("min.insync.replicas", 1, 1, maxInt, "min.insync.replicas", "Every acknowledged record is in the object store, which replicates it."+noEffect),
	boolean("preallocate", false, "log.preallocate", "There are no files to preallocate."+noEffect),
	boolean("remote.log.copy.disable", false, "", "The log always lies in the object store."+noEffect),
	boolean("remote.log.delete.on.disable", false, "", "The log always lies in the object store."+noEffect),
	boolean("remote.storage.enable", false, "", "The log always lies in the object store."+noEffect),
	long("retention.bytes", -1, -1, "log.retention.bytes", "The size that is left of a partition when its oldest segments are removed; -1 for no limit. What is not in segments yet counts, and goes, by the upload that it came in."),
	long("retention.ms", 604800000, -1, "log.retention.ms", "The age of its newest record from which a segment is removed; -1 for no limit. What is not in segments yet goes by the upload that it came in."),
	integer("segment.bytes", 1<<30, 1<<20, maxInt, "log.segment.bytes", "The largest segment that a partition gets for itself, where it is less than the broker's own limit."),
	integer("segment.index.bytes", 10<<20, 4, maxInt, "log.index.size.max.bytes", "The index is part of the segment."+noEffect),
	long("segment.jitter.ms", 0, 0, "log.roll.jitter.ms", "Segments are rolled by the broker."+noEffect),
	long("segment.ms", 604800000, 1, "log.roll.ms", "How long records wait in write-ahead objects for a segment, where it is less than the broker's own limit."),
	boolean("unclean.leader.election.enable", false, "unclean.leader.election.enable", "Leaders never lose acknowledged records, so no election is unclean."+noEffect),
})
