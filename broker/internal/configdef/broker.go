package configdef

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

func fixedInt(name string, def int64, doc string) Def {
	d := integer(name, def, -1, maxInt, "", doc)
	d.ReadOnly = true
	return d
}

func fixedText(name, def, doc string) Def {
	return Def{Name: name, Type: kmsg.ConfigTypeString, Default: def, Doc: doc, ReadOnly: true, unset: def == ""}
}

func fixedBool(name string, def bool, doc string) Def {
	d := boolean(name, def, "", doc)
	d.ReadOnly = true
	return d
}

// brokers are the broker configs that are shown: those that topics take their
// defaults from, which may be changed at run time, and those that clients and
// tools look at, which are set when the broker starts.
var brokers = sorted(append(topicDefaults(), []Def{
	fixedText("advertised.listeners", "", "What clients are told to connect to."),
	fixedBool("auto.create.topics.enable", true, "Whether a client that asks for a topic's metadata creates it."),
	fixedInt("broker.id", -1, "This broker's id, taken from the cluster's metadata."),
	fixedText("broker.rack", "", "Where this broker runs."),
	fixedInt("connections.max.idle.ms", 600000, "How long a connection may ask nothing."),
	fixedInt("default.replication.factor", 1, "The replication factor recorded for topics that leave the choice."),
	fixedBool("delete.topic.enable", true, "Topics can be deleted."),
	fixedInt("fetch.max.bytes", 55<<20, "The largest fetch response."),
	fixedInt("group.initial.rebalance.delay.ms", 3000, "The wait for more members before a new group's first rebalance."),
	fixedInt("group.max.session.timeout.ms", 1800000, "The longest session timeout of a group member."),
	fixedInt("group.max.size", maxInt, "The most members of a group."),
	fixedInt("group.min.session.timeout.ms", 6000, "The shortest session timeout of a group member."),
	fixedInt("group.consumer.assignment.interval.ms", 1000, "The least time between two assignments of a group of the consumer protocol."),
	fixedText("group.consumer.assignors", "uniform,range", "The server-side assignors, the default first."),
	fixedInt("group.consumer.heartbeat.interval.ms", 5000, "The heartbeat interval of groups of the consumer protocol."),
	fixedInt("group.consumer.max.assignment.interval.ms", 15000, "The longest assignment interval a group may set."),
	fixedInt("group.consumer.max.heartbeat.interval.ms", 15000, "The longest heartbeat interval a group may set."),
	fixedInt("group.consumer.max.session.timeout.ms", 60000, "The longest session timeout a group of the consumer protocol may set."),
	fixedInt("group.consumer.max.size", maxInt, "The most members of a group of the consumer protocol."),
	fixedText("group.consumer.migration.policy", "bidirectional", "Which groups may change their protocol while they have members."),
	fixedInt("group.consumer.min.assignment.interval.ms", 0, "The shortest assignment interval a group may set."),
	fixedInt("group.consumer.min.heartbeat.interval.ms", 5000, "The shortest heartbeat interval a group may set."),
	fixedInt("group.consumer.min.session.timeout.ms", 45000, "The shortest session timeout a group of the consumer protocol may set."),
	fixedInt("group.consumer.session.timeout.ms", 45000, "How long a member of the consumer protocol may be silent."),
	fixedText("group.coordinator.rebalance.protocols", "classic,consumer", "The group protocols that are served."),
	fixedText("inter.broker.protocol.version", "4.0", "Brokers of one cluster run one version; shown for tools that ask."),
	fixedText("listeners", "", "Where the broker listens."),
	fixedInt("max.connections", 20000, "The most connections at once."),
	fixedInt("max.incremental.fetch.session.cache.slots", 1000, "The most fetch sessions kept."),
	fixedInt("node.id", -1, "The same as broker.id."),
	fixedInt("num.partitions", 1, "The partitions of topics that leave the choice."),
	fixedInt("offset.metadata.max.bytes", 4096, "The longest text stored with a committed offset."),
	fixedInt("offsets.retention.check.interval.ms", 600000, "How often expired offsets are looked for."),
	fixedInt("offsets.retention.minutes", 10080, "How long offsets are kept after their group lost its last member, or after the last commit of a consumer that assigns itself."),
	fixedInt("offsets.topic.num.partitions", 50, "The shards of the group coordinator."),
	fixedInt("offsets.topic.replication.factor", 1, "Offsets are kept in the cluster's metadata store."),
	fixedText("process.roles", "broker,controller", "Every broker can become the controller."),
	fixedInt("socket.request.max.bytes", 100<<20, "The largest request."),
	fixedInt("transaction.state.log.num.partitions", 50, "The shards of the transaction coordinator."),
}...))

// topicDefaults derives the broker configs that hold topics' defaults.
func topicDefaults() []Def {
	var out []Def
	for _, t := range topics {
		if t.Broker == "" {
			continue
		}
		t.Doc = "The default of the topic config " + t.Name + ". " + t.Doc
		t.Name, t.Broker = t.Broker, ""
		out = append(out, t)
	}
	return out
}
