package consumer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-io/tidemark/broker/group/assignor"
)

// Config holds the limits that groups are run under. Zero fields take Kafka's
// defaults, except where noted.
type Config struct {
	// SessionTimeout is how long a member may be silent, HeartbeatInterval how
	// often it is told to speak (group.consumer.session.timeout.ms,
	// group.consumer.heartbeat.interval.ms). Min and Max bound what a group's
	// own configs may ask for; they make room for these two.
	SessionTimeout       time.Duration
	SessionTimeoutMin    time.Duration
	SessionTimeoutMax    time.Duration
	HeartbeatInterval    time.Duration
	HeartbeatIntervalMin time.Duration
	HeartbeatIntervalMax time.Duration
	// AssignmentInterval is the least time between two targets of a group, so
	// that members which arrive together are assigned together
	// (group.consumer.assignment.interval.ms). Negative is none.
	AssignmentInterval    time.Duration
	AssignmentIntervalMax time.Duration
	// RegexRefreshMin is the least time between two looks at what a group's
	// regular expressions match.
	RegexRefreshMin time.Duration
	// MembersMax is the most members a group may have (group.consumer.max.size).
	// Kafka sets no limit; here the header of a stored group names every member
	// and has to stay one small value.
	MembersMax int
	// MemberBytesMax bounds what one member's subscription may take.
	MemberBytesMax int
	// Assignors are the assignors that members may choose, the first being the
	// default (group.consumer.assignors).
	Assignors []string
	// Migration says which groups may change their protocol while they have
	// members (group.consumer.migration.policy).
	Migration Migration
	// ClassicMembersMax is the most members that a group may have after it
	// became a classic one (group.max.size).
	ClassicMembersMax int
}

// Migration is a policy of online migration.
type Migration int8

// The policies; Kafka's default is the first.
const (
	Bidirectional Migration = iota
	Upgrade
	Downgrade
	Disabled
)

// String is Kafka's name of the policy.
func (m Migration) String() string {
	return []string{"bidirectional", "upgrade", "downgrade", "disabled"}[m]
}

// ParseMigration is the inverse of String.
func ParseMigration(s string) (Migration, error) {
	for _, m := range []Migration{Bidirectional, Upgrade, Downgrade, Disabled} {
		if s == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("migration policy %q is none of bidirectional, upgrade, downgrade and disabled", s)
}

// Upgrades tells whether classic groups may become consumer groups.
func (m Migration) Upgrades() bool { return m == Bidirectional || m == Upgrade }

// Downgrades tells whether consumer groups may become classic groups.
func (m Migration) Downgrades() bool { return m == Bidirectional || m == Downgrade }

// Timing is what a group's own configs may change.
type Timing struct {
	SessionTimeout     time.Duration
	HeartbeatInterval  time.Duration
	AssignmentInterval time.Duration
}

// Timing is the timing of a group without configs of its own.
func (c *Config) Timing() Timing {
	return Timing{c.SessionTimeout, c.HeartbeatInterval, max(c.AssignmentInterval, 0)}
}

// Bound keeps a group's timing within the limits, as they may have changed
// since it was set.
func (c *Config) Bound(t Timing) Timing {
	return Timing{
		SessionTimeout:     min(max(t.SessionTimeout, c.SessionTimeoutMin), c.SessionTimeoutMax),
		HeartbeatInterval:  min(max(t.HeartbeatInterval, c.HeartbeatIntervalMin), c.HeartbeatIntervalMax),
		AssignmentInterval: min(max(t.AssignmentInterval, 0), c.AssignmentIntervalMax),
	}
}

// EnsureDefaults fills the fields that are zero.
func (c *Config) EnsureDefaults() {
	setDefault(&c.SessionTimeout, 45*time.Second)
	setDefault(&c.SessionTimeoutMin, min(45*time.Second, c.SessionTimeout))
	setDefault(&c.SessionTimeoutMax, max(60*time.Second, c.SessionTimeout))
	setDefault(&c.HeartbeatInterval, 5*time.Second)
	setDefault(&c.HeartbeatIntervalMin, min(5*time.Second, c.HeartbeatInterval))
	setDefault(&c.HeartbeatIntervalMax, max(15*time.Second, c.HeartbeatInterval))
	setDefault(&c.AssignmentInterval, time.Second)
	setDefault(&c.AssignmentIntervalMax, 15*time.Second)
	setDefault(&c.RegexRefreshMin, 10*time.Second)
	setDefault(&c.MembersMax, 10_000)
	setDefault(&c.MemberBytesMax, 1<<20)
	setDefault(&c.ClassicMembersMax, 10_000)
	if c.Assignors == nil {
		c.Assignors = []string{assignor.UniformName, assignor.RangeName}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports every setting that cannot work.
func (c *Config) Validate() error {
	var errs []error
	within := func(what string, least, value, most time.Duration) {
		if least <= 0 || value < least || value > most {
			errs = append(errs, fmt.Errorf("consumer group %s %s is not within %s and %s", what, value, least, most))
		}
	}
	within("session timeout", c.SessionTimeoutMin, c.SessionTimeout, c.SessionTimeoutMax)
	within("heartbeat interval", c.HeartbeatIntervalMin, c.HeartbeatInterval, c.HeartbeatIntervalMax)
	if c.HeartbeatInterval >= c.SessionTimeout {
		errs = append(errs, fmt.Errorf("consumer group heartbeat interval %s must be below the session timeout %s", c.HeartbeatInterval, c.SessionTimeout))
	}
	if c.MembersMax < 1 || c.MembersMax > 10_000 {
		errs = append(errs, fmt.Errorf("consumer group size limit %d is not within 1 and 10000", c.MembersMax))
	}
	if len(c.Assignors) == 0 {
		errs = append(errs, errors.New("consumer groups need an assignor"))
	}
	for _, name := range c.Assignors {
		if _, ok := assignor.Named(name); !ok {
			errs = append(errs, fmt.Errorf("no assignor is called %q", name))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) supportsAssignor(name string) bool { return slices.Contains(c.Assignors, name) }
