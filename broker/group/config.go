package group

import (
	"errors"
	"fmt"
	"time"
)

// Config holds the limits that groups are run under. Zero fields take Kafka's
// defaults, except where noted.
type Config struct {
	// SessionTimeoutMin and SessionTimeoutMax bound what members may ask for:
	// short sessions cost heartbeats, long ones delay the detection of death
	// (group.min.session.timeout.ms, group.max.session.timeout.ms).
	SessionTimeoutMin time.Duration
	SessionTimeoutMax time.Duration
	// InitialRebalanceDelay is how long the first rebalance of an empty group
	// waits for more members (group.initial.rebalance.delay.ms). Negative is
	// none at all.
	InitialRebalanceDelay time.Duration
	// NewMemberJoinTimeout is how long a member that was never in a
	// generation is kept: it knows no id to send heartbeats with, and its
	// disconnection is not seen while its request waits.
	NewMemberJoinTimeout time.Duration
	// MembersMax is the most members a group may have (group.max.size). Kafka
	// sets no limit; here the header of a stored group names every member and
	// has to stay one small value.
	MembersMax int
	// MemberBytesMax bounds what one member may bring in a join, and what one
	// member may be assigned.
	MemberBytesMax int
	// GroupBytesMax bounds the metadata and assignments of all members.
	GroupBytesMax int
}

// EnsureDefaults fills the fields that are zero.
func (c *Config) EnsureDefaults() {
	setDefault(&c.SessionTimeoutMin, 6*time.Second)
	setDefault(&c.SessionTimeoutMax, 30*time.Minute)
	setDefault(&c.InitialRebalanceDelay, 3*time.Second)
	setDefault(&c.NewMemberJoinTimeout, 5*time.Minute)
	setDefault(&c.MembersMax, 10_000)
	setDefault(&c.MemberBytesMax, 1<<20)
	setDefault(&c.GroupBytesMax, 64<<20)
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
	if c.SessionTimeoutMin < 0 || c.SessionTimeoutMax < c.SessionTimeoutMin {
		errs = append(errs, fmt.Errorf("group session timeouts: the minimum %s must not be negative or above the maximum %s", c.SessionTimeoutMin, c.SessionTimeoutMax))
	}
	if c.MembersMax < 1 || c.MembersMax > 10_000 {
		errs = append(errs, fmt.Errorf("group size limit %d is not within 1 and 10000", c.MembersMax))
	}
	if c.MemberBytesMax < 1 || c.GroupBytesMax < c.MemberBytesMax {
		errs = append(errs, fmt.Errorf("group byte limits: one member's %d must be positive and within the group's %d", c.MemberBytesMax, c.GroupBytesMax))
	}
	return errors.Join(errs...)
}

func (c *Config) initialDelay() time.Duration { return max(c.InitialRebalanceDelay, 0) }
