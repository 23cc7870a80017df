package configdef

import (
	"fmt"
	"strconv"
	"strings"
)

// groups and clientMetrics are the configs of the resources of those kinds.
var (
	groups = sorted([]Def{
		integer("consumer.assignment.interval.ms", 1000, 0, maxInt, "group.consumer.assignment.interval.ms", "The least time between two assignments of a group of the consumer protocol."),
		integer("consumer.heartbeat.interval.ms", 5000, 1, maxInt, "group.consumer.heartbeat.interval.ms", "The heartbeat interval given to members of a group of the consumer protocol."),
		integer("consumer.session.timeout.ms", 45000, 1, maxInt, "group.consumer.session.timeout.ms", "How long a member of the consumer protocol may be silent."),
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

// ValidateGroup checks a whole set of a group's configs against the bounds that
// the broker sets; broker returns a broker config in effect.
func ValidateGroup(configs map[string]string, broker func(name string) int64) error {
	value := func(name string) int64 {
		d, _ := Group(name)
		if n, err := strconv.ParseInt(strings.TrimSpace(configs[name]), 10, 64); err == nil {
			return n
		}
		return broker(d.Broker)
	}
	for _, name := range []string{"consumer.assignment.interval.ms", "consumer.heartbeat.interval.ms", "consumer.session.timeout.ms"} {
		if _, set := configs[name]; !set {
			continue
		}
		bound := "group.consumer.%s." + strings.TrimPrefix(name, "consumer.")
		least, most := fmt.Sprintf(bound, "min"), fmt.Sprintf(bound, "max")
		switch v := value(name); {
		case v < broker(least):
			return fmt.Errorf("%w: %s must be greater than or equal to %s", ErrInvalid, name, least)
		case v > broker(most):
			return fmt.Errorf("%w: %s must be less than or equal to %s", ErrInvalid, name, most)
		}
	}
	if value("consumer.session.timeout.ms") <= value("consumer.heartbeat.interval.ms") {
		return fmt.Errorf("%w: consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms", ErrInvalid)
	}
	return nil
}
