package configdef

// groups and clientMetrics are the configs of the resources of those kinds.
var (
	groups = sorted([]Def{
		integer("consumer.heartbeat.interval.ms", 5000, 1, maxInt, "", "The heartbeat interval given to members of a group of the consumer protocol."),
		integer("consumer.session.timeout.ms", 45000, 1, maxInt, "", "How long a member of the consumer protocol may be silent."),
	})
	clientMetrics = sorted([]Def{
		integer("interval.ms", 300000, 100, 3600000, "", "How often clients push their metrics."),
		list("match", "", "", "Which clients are asked for metrics."),
		list("metrics", "", "", "Which metrics clients are asked for."),
	})
)

// Group finds a group config, Groups lists them all; ClientMetrics likewise.
func Group(name string) (*Def, bool) { return find(groups, name) }

// Groups are all group configs by name.
func Groups() []Def { return groups }

// ClientMetric finds a config of a client metrics subscription.
func ClientMetric(name string) (*Def, bool) { return find(clientMetrics, name) }

// ClientMetrics are all configs of a client metrics subscription by name.
func ClientMetrics() []Def { return clientMetrics }
