package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/internal/configdef"
	"github.com/tidemark-io/tidemark/metadata"
)

// resource is something that has configs: a topic, a broker (or all of them), a
// group, a client metrics subscription.
type resource struct {
	s     *Server
	kind  kmsg.ConfigResourceType
	name  string
	topic *metadata.Topic // of a topic
	store string          // kind in the metadata store, of the others
	defs  []configdef.Def
	find  func(string) (*configdef.Def, bool)
}

// resource finds what a request names. A broker other than this one is refused,
// as in Kafka: its static configs are not known here.
func (s *Server) resource(kind kmsg.ConfigResourceType, name string) (*resource, error) {
	res := &resource{s: s, kind: kind, name: name}
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		if err := metadata.CheckTopicName(name); err != nil {
			return nil, err
		}
		t, ok := s.topic(name)
		if !ok {
			return nil, errUnknownTopic
		}
		res.topic, res.defs, res.find = t, configdef.Topics(), configdef.Topic
	case kmsg.ConfigResourceTypeBroker:
		if name != "" && name != s.idText() {
			return nil, refuse(kerr.InvalidRequest, "Unexpected broker id, expected %s or empty string, but received %s", s.idText(), name)
		}
		res.store, res.defs, res.find = metadata.ConfigBroker, configdef.Brokers(), configdef.Broker
	case kmsg.ConfigResourceTypeGroupConfig:
		if name == "" {
			return nil, refuse(kerr.InvalidGroupID, "Group name must not be empty")
		}
		res.store, res.defs, res.find = metadata.ConfigGroup, configdef.Groups(), configdef.Group
	case kmsg.ConfigResourceTypeClientMetrics:
		if name == "" {
			return nil, refuse(kerr.InvalidRequest, "Client metrics subscription name must not be empty")
		}
		res.store, res.defs, res.find = metadata.ConfigClientMetrics, configdef.ClientMetrics(), configdef.ClientMetric
	default:
		return nil, refuse(kerr.InvalidRequest, "Resource type %d is not supported.", kind)
	}
	return res, nil
}

// settings lists a config's values, the one in effect first; none when it has
// no value.
func (res *resource) settings(d *configdef.Def) []setting {
	switch {
	case res.topic != nil:
		return res.s.topicSettings(res.topic.Configs, d)
	case res.store == metadata.ConfigBroker && res.name == "":
		// The defaults of all brokers: only what was set for them.
		if v, ok := res.s.cfg.View.Config(res.store, "")[d.Name]; ok {
			return []setting{{d.Name, v, kmsg.ConfigSourceDynamicDefaultBrokerConfig}}
		}
		return nil
	case res.store == metadata.ConfigBroker:
		return res.s.brokerSettings(d)
	}
	var out []setting
	if v, ok := res.s.cfg.View.Config(res.store, res.name)[d.Name]; ok {
		source := kmsg.ConfigSourceGroupConfig
		if res.kind == kmsg.ConfigResourceTypeClientMetrics {
			source = kmsg.ConfigSourceClientMetricsConfig
		}
		out = append(out, setting{d.Name, v, source})
	}
	if b, ok := configdef.Broker(d.Broker); ok {
		return append(out, res.s.brokerSettings(b)...)
	}
	return append(out, setting{d.Name, d.Default, kmsg.ConfigSourceDefaultConfig})
}

// change is one edit of a config: op as in IncrementalAlterConfigs.
type change struct {
	name  string
	op    kmsg.IncrementalAlterConfigOp
	value *string
}

// alter applies changes to a resource's explicit configs; replace drops those
// not named.
func (res *resource) alter(ctx context.Context, changes []change, replace, validateOnly bool) error {
	if err := res.check(changes); err != nil {
		return err
	}
	apply := func(configs map[string]string) error {
		if replace {
			clear(configs)
		}
		for _, c := range changes {
			res.apply(configs, c)
		}
		return res.validate(configs)
	}
	if validateOnly {
		return apply(res.current())
	}
	var rev int64
	var err error
	if res.topic != nil {
		rev, err = res.s.cfg.Admin.AlterTopicConfigs(ctx, res.topic.ID, apply)
	} else {
		rev, err = res.s.cfg.Admin.AlterConfigs(ctx, res.store, res.name, apply)
	}
	if err != nil {
		return err
	}
	return res.s.cfg.View.WaitRevision(ctx, rev)
}

// current copies the explicit configs.
func (res *resource) current() map[string]string {
	from := res.s.cfg.View.Config(res.store, res.name)
	if res.topic != nil {
		from = res.topic.Configs
	}
	out := make(map[string]string, len(from))
	maps.Copy(out, from)
	return out
}

// check refuses changes that are wrong whatever the current values.
func (res *resource) check(changes []change) error {
	if res.topic != nil && isInternal(res.topic.Name) {
		return refuse(kerr.InvalidTopicException, "The topic %s is internal.", res.topic.Name)
	}
	seen := map[string]bool{}
	for _, c := range changes {
		d, known := res.find(c.name)
		list := known && d.Type == kmsg.ConfigTypeList
		switch {
		case seen[c.name]:
			return refuse(kerr.InvalidRequest, "Error due to duplicate config keys")
		case c.value == nil && c.op != kmsg.IncrementalAlterConfigOpDelete:
			return refuse(kerr.InvalidRequest, "Null value not supported for : %s", c.name)
		case !known:
			return fmt.Errorf("%w: Unknown config name: %s", configdef.ErrInvalid, c.name)
		case d.ReadOnly:
			return refuse(kerr.InvalidRequest, "Cannot update these configs dynamically: Set(%s)", c.name)
		case c.op < kmsg.IncrementalAlterConfigOpSet || c.op > kmsg.IncrementalAlterConfigOpSubtract:
			return refuse(kerr.InvalidRequest, "Unknown operation type %d for config %s", c.op, c.name)
		case c.op >= kmsg.IncrementalAlterConfigOpAppend && !list:
			return fmt.Errorf("%w: Can't append to or subtract from %s because its type is not LIST.", configdef.ErrInvalid, c.name)
		}
		seen[c.name] = true
	}
	return nil
}

// apply makes one change. An unset list is appended to from its value in
// effect, as in Kafka.
func (res *resource) apply(configs map[string]string, c change) {
	if c.op == kmsg.IncrementalAlterConfigOpDelete {
		delete(configs, c.name)
		return
	}
	value := strings.TrimSpace(*c.value)
	if c.op == kmsg.IncrementalAlterConfigOpSet {
		configs[c.name] = value
		return
	}
	current, ok := configs[c.name]
	if d, _ := res.find(c.name); !ok {
		if settings := res.settings(d); len(settings) > 0 {
			current = settings[0].value
		}
	}
	if c.op == kmsg.IncrementalAlterConfigOpAppend {
		configs[c.name] = configdef.Append(current, value)
	} else {
		configs[c.name] = configdef.Subtract(current, value)
	}
}

// validate checks the resulting set.
func (res *resource) validate(configs map[string]string) error {
	if res.topic != nil {
		return configdef.ValidateTopic(configs)
	}
	names := make([]string, 0, len(configs))
	for name := range configs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		d, ok := res.find(name)
		if !ok {
			continue // of a version before or after ours
		}
		if err := d.Validate(configs[name]); err != nil {
			return err
		}
	}
	if res.store == metadata.ConfigGroup {
		return configdef.ValidateGroup(configs, res.s.brokerNumber)
	}
	return nil
}

// brokerNumber is a broker config in effect.
func (s *Server) brokerNumber(name string) int64 {
	d, ok := configdef.Broker(name)
	if !ok {
		return 0
	}
	n, _ := strconv.ParseInt(s.brokerSettings(d)[0].value, 10, 64)
	return n
}
