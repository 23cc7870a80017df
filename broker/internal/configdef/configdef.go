// Package configdef is the registry of topic and broker configs: name, type,
// default, which values are accepted, and what each means here. Where Kafka's
// meaning has no object in a broker whose log lies in a bucket, the value is
// accepted, kept and shown, and the documentation says so.
package configdef

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrInvalid: the value is not one the config takes.
var ErrInvalid = errors.New("invalid config value")

// Def is one config.
type Def struct {
	Name    string
	Type    kmsg.ConfigType
	Default string
	Doc     string
	// Broker is the broker config that holds a topic config's default.
	Broker string
	// Choices, when set, are all values (of a list: all elements) accepted.
	Choices  []string
	min, max float64
	bounded  bool
	// unset: the default is Kafka's null.
	unset bool
	// ReadOnly: a broker config that only a restart changes.
	ReadOnly bool
}

// Validate reports, wrapping ErrInvalid, why v is not a value of d.
func (d *Def) Validate(v string) error {
	if err := d.check(strings.TrimSpace(v)); err != nil {
		return fmt.Errorf("%w: Invalid value %s for configuration %s: %w", ErrInvalid, v, d.Name, err)
	}
	return nil
}

func (d *Def) check(v string) error {
	switch d.Type {
	case kmsg.ConfigTypeBoolean:
		if !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false") {
			return errors.New("Expected value to be either true or false")
		}
	case kmsg.ConfigTypeInt, kmsg.ConfigTypeShort, kmsg.ConfigTypeLong:
		bits := map[kmsg.ConfigType]int{kmsg.ConfigTypeInt: 32, kmsg.ConfigTypeShort: 16, kmsg.ConfigTypeLong: 64}[d.Type]
		n, err := strconv.ParseInt(v, 10, bits)
		if err != nil {
			return fmt.Errorf("Not a number of %d bits", bits)
		}
		return d.inBounds(float64(n))
	case kmsg.ConfigTypeDouble:
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || f != f {
			return errors.New("Not a number")
		}
		return d.inBounds(f)
	case kmsg.ConfigTypeList:
		for _, e := range SplitList(v) {
			if err := d.inChoices(e); err != nil {
				return err
			}
		}
	case kmsg.ConfigTypeString:
		return d.inChoices(v)
	}
	return nil
}

func (d *Def) inBounds(v float64) error {
	switch {
	case !d.bounded:
	case v < d.min:
		return fmt.Errorf("Value must be at least %v", d.min)
	case v > d.max:
		return fmt.Errorf("Value must be no more than %v", d.max)
	}
	return nil
}

func (d *Def) inChoices(v string) error {
	if d.Choices != nil && !slices.Contains(d.Choices, v) {
		return fmt.Errorf("String must be one of: %s", strings.Join(d.Choices, ", "))
	}
	return nil
}

// Null reports whether the config has no value unless one is set.
func (d *Def) Null() bool { return d.unset }

// SplitList splits a list's value; an empty one has no elements.
func SplitList(v string) []string {
	if strings.TrimSpace(v) == "" {
		return nil
	}
	parts := strings.Split(v, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// Append and Subtract are the incremental operations on a list's value.
func Append(current, add string) string {
	out := SplitList(current)
	for _, e := range SplitList(add) {
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return strings.Join(out, ",")
}

// Subtract removes the elements of remove from a list's value.
func Subtract(current, remove string) string {
	gone := SplitList(remove)
	return strings.Join(slices.DeleteFunc(SplitList(current), func(e string) bool { return slices.Contains(gone, e) }), ",")
}

// find looks a name up in a registry.
func find(defs []Def, name string) (*Def, bool) {
	i, ok := slices.BinarySearchFunc(defs, name, func(d Def, n string) int { return strings.Compare(d.Name, n) })
	if !ok {
		return nil, false
	}
	return &defs[i], true
}

// Topic finds a topic config.
func Topic(name string) (*Def, bool) { return find(topics, name) }

// Topics are all topic configs by name. The caller does not change them.
func Topics() []Def { return topics }

// Broker finds a broker config.
func Broker(name string) (*Def, bool) { return find(brokers, name) }

// Brokers are all broker configs by name. The caller does not change them.
func Brokers() []Def { return brokers }

// ValidateTopic checks a whole set of a topic's explicit configs, values that
// contradict one another included.
func ValidateTopic(configs map[string]string) error {
	for _, name := range slices.Sorted(keys(configs)) {
		d, ok := Topic(name)
		if !ok {
			return fmt.Errorf("%w: Unknown topic config name: %s", ErrInvalid, name)
		}
		if err := d.Validate(configs[name]); err != nil {
			return err
		}
	}
	value := func(name string) int64 {
		v, ok := configs[name]
		if !ok {
			d, _ := Topic(name)
			v = d.Default
		}
		n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n
	}
	if value("min.compaction.lag.ms") > value("max.compaction.lag.ms") {
		return fmt.Errorf("%w: conflict between topic config setting min.compaction.lag.ms (%d) and max.compaction.lag.ms (%d)",
			ErrInvalid, value("min.compaction.lag.ms"), value("max.compaction.lag.ms"))
	}
	return nil
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
