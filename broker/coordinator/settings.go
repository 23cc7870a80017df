package coordinator

import (
	"strconv"
	"strings"
	"time"
)

// Settings are the values of Kafka's broker configs that groups are run under.
func (c *Coordinator) Settings() map[string]string {
	millis := func(d time.Duration) string { return strconv.FormatInt(max(d, 0).Milliseconds(), 10) }
	g, k := &c.cfg.Group, &c.cfg.Consumer
	return map[string]string{
		"group.initial.rebalance.delay.ms":          millis(g.InitialRebalanceDelay),
		"group.max.session.timeout.ms":              millis(g.SessionTimeoutMax),
		"group.min.session.timeout.ms":              millis(g.SessionTimeoutMin),
		"group.max.size":                            strconv.Itoa(g.MembersMax),
		"group.consumer.assignment.interval.ms":     millis(k.AssignmentInterval),
		"group.consumer.assignors":                  strings.Join(k.Assignors, ","),
		"group.consumer.heartbeat.interval.ms":      millis(k.HeartbeatInterval),
		"group.consumer.max.assignment.interval.ms": millis(k.AssignmentIntervalMax),
		"group.consumer.max.heartbeat.interval.ms":  millis(k.HeartbeatIntervalMax),
		"group.consumer.max.session.timeout.ms":     millis(k.SessionTimeoutMax),
		"group.consumer.max.size":                   strconv.Itoa(k.MembersMax),
		"group.consumer.migration.policy":           k.Migration.String(),
		"group.consumer.min.heartbeat.interval.ms":  millis(k.HeartbeatIntervalMin),
		"group.consumer.min.session.timeout.ms":     millis(k.SessionTimeoutMin),
		"group.consumer.session.timeout.ms":         millis(k.SessionTimeout),
		"transaction.max.timeout.ms":                millis(c.cfg.TransactionTimeoutMax),
		"transactional.id.expiration.ms":            millis(c.cfg.TransactionalIDExpiration),
		"offset.metadata.max.bytes":                 strconv.Itoa(c.cfg.OffsetMetadataMax),
		"offsets.retention.check.interval.ms":       millis(c.cfg.OffsetsRetentionCheck),
		"offsets.retention.minutes":                 strconv.FormatInt(int64(c.cfg.OffsetsRetention/time.Minute), 10),
	}
}
