package broker

import (
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/internal/configdef"
	"github.com/tidemark-io/tidemark/metadata"
)

// setting is one value of a config and where it comes from.
type setting struct {
	name   string
	value  string
	source kmsg.ConfigSource
}

// topicSettings lists the values of a topic config, the one in effect first:
// the topic's own, the dynamic broker configs, the static one, the default.
func (s *Server) topicSettings(configs map[string]string, d *configdef.Def) []setting {
	var out []setting
	if v, ok := configs[d.Name]; ok {
		out = append(out, setting{d.Name, v, kmsg.ConfigSourceDynamicTopicConfig})
	}
	if d.Broker == "" {
		return append(out, setting{d.Name, d.Default, kmsg.ConfigSourceDefaultConfig})
	}
	b, ok := configdef.Broker(d.Broker)
	if !ok {
		return append(out, setting{d.Name, d.Default, kmsg.ConfigSourceDefaultConfig})
	}
	return append(out, s.brokerSettings(b)...)
}

// brokerSettings lists the values of a broker config, the one in effect first.
func (s *Server) brokerSettings(d *configdef.Def) []setting {
	var out []setting
	if !d.ReadOnly {
		if v, ok := s.cfg.View.Config(metadata.ConfigBroker, s.idText())[d.Name]; ok {
			out = append(out, setting{d.Name, v, kmsg.ConfigSourceDynamicBrokerConfig})
		}
		if v, ok := s.cfg.View.Config(metadata.ConfigBroker, "")[d.Name]; ok {
			out = append(out, setting{d.Name, v, kmsg.ConfigSourceDynamicDefaultBrokerConfig})
		}
	}
	if v, ok := s.static(d.Name); ok {
		out = append(out, setting{d.Name, v, kmsg.ConfigSourceStaticBrokerConfig})
	}
	if !d.Null() {
		out = append(out, setting{d.Name, d.Default, kmsg.ConfigSourceDefaultConfig})
	}
	return out
}

// id is the id that clients see. It is another one after a session that lapsed
// was registered again while somebody else had taken the old one.
func (s *Server) id() int32 {
	if b, ok := s.cfg.View.Broker(s.cfg.Self); ok {
		return b.ID
	}
	return s.cfg.ID
}

func (s *Server) idText() string { return strconv.Itoa(int(s.id())) }

// static is a broker config's value as this process was started with.
func (s *Server) static(name string) (string, bool) {
	if v, ok := s.cfg.Settings[name]; ok {
		return v, true
	}
	number := func(n int64) (string, bool) { return strconv.FormatInt(n, 10), true }
	switch name {
	case "broker.id", "node.id":
		return number(int64(s.id()))
	case "auto.create.topics.enable":
		return strconv.FormatBool(s.cfg.AutoCreateTopics), true
	case "num.partitions":
		return number(int64(s.cfg.DefaultPartitions))
	case "default.replication.factor":
		return number(int64(s.cfg.DefaultReplicationFactor))
	case "connections.max.idle.ms":
		return number(s.cfg.IdleMax.Milliseconds())
	case "max.connections":
		return number(int64(s.cfg.ConnectionsMax))
	case "fetch.max.bytes":
		return number(int64(s.cfg.FetchBytesMax))
	case "socket.request.max.bytes":
		return number(int64(s.cfg.FrameBytesMax))
	case "max.incremental.fetch.session.cache.slots":
		return number(int64(s.cfg.FetchSessionsMax))
	case "listeners":
		return "PLAINTEXT://" + s.cfg.Listener.Addr().String(), true
	}
	b, ok := s.cfg.View.Broker(s.cfg.Self)
	switch {
	case ok && name == "advertised.listeners":
		return "PLAINTEXT://" + b.Host + ":" + strconv.Itoa(int(b.Port)), true
	case ok && name == "broker.rack" && b.Rack != "":
		return b.Rack, true
	}
	return "", false
}

// topicConfig reads the effective configs of one topic.
type topicConfig struct {
	s *Server
	t *metadata.Topic
}

func (c topicConfig) text(name string) string {
	d, ok := configdef.Topic(name)
	if !ok {
		return ""
	}
	return strings.TrimSpace(c.s.topicSettings(c.t.Configs, d)[0].value)
}

// number parses a value that was validated when it was set; should it not
// parse, the default counts.
func (c topicConfig) number(name string) int64 {
	if n, err := strconv.ParseInt(c.text(name), 10, 64); err == nil {
		return n
	}
	d, _ := configdef.Topic(name)
	n, _ := strconv.ParseInt(d.Default, 10, 64)
	return n
}

func (c topicConfig) compacted() bool {
	return slices.Contains(configdef.SplitList(c.text("cleanup.policy")), "compact")
}
