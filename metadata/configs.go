package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strings"
)

// Kinds of dynamic configs kept under configs/<kind>/<name>, by Kafka's names.
// A topic's configs are part of the topic.
const (
	ConfigBroker        = "broker" // name: the broker id, or "" for all brokers
	ConfigGroup         = "group"
	ConfigClientMetrics = "client-metrics"
)

// maxConfigName bounds names that clients choose.
const maxConfigName = 1024

// ConfigKey is the key of a resource's configs. The name is escaped: group
// names may hold any character.
func ConfigKey(kind, name string) string {
	return PrefixConfigs + kind + "/" + url.PathEscape(name)
}

// ParseConfigKey is the inverse of ConfigKey.
func ParseConfigKey(key string) (kind, name string, err error) {
	kind, escaped, ok := strings.Cut(strings.TrimPrefix(key, PrefixConfigs), "/")
	if !ok || !strings.HasPrefix(key, PrefixConfigs) {
		return "", "", fmt.Errorf("config key %q", key)
	}
	name, err = url.PathUnescape(escaped)
	return kind, name, err
}

// AlterConfigs changes the dynamic configs of a resource and returns them as
// they stand, with a revision. change gets a copy it may modify, may run several
// times, and ends the call by returning an error. Configs that become empty are
// removed.
func AlterConfigs(ctx context.Context, kv KV, kind, name string, change func(configs map[string]string) error) (map[string]string, int64, error) {
	switch kind {
	case ConfigBroker, ConfigGroup, ConfigClientMetrics:
	default:
		return nil, 0, fmt.Errorf("%w: config kind %q", ErrInvalidName, kind)
	}
	if len(name) > maxConfigName {
		return nil, 0, fmt.Errorf("%w: %d bytes long, at most %d", ErrInvalidName, len(name), maxConfigName)
	}
	e, rev, err := update(ctx, kv, ConfigKey(kind, name), func(cur Entry) (*Op, error) {
		configs, err := parseConfigs(cur)
		if err != nil {
			return nil, err
		}
		next, err := changed(configs, change)
		if err != nil || maps.Equal(next, configs) {
			return nil, err
		}
		op := Put(cur.Key, encode(next))
		if len(next) == 0 {
			op = Delete(cur.Key)
		}
		return &op, nil
	})
	if err != nil {
		return nil, 0, err
	}
	configs, err := parseConfigs(e)
	return configs, rev, err
}

func parseConfigs(e Entry) (map[string]string, error) {
	if len(e.Value) == 0 {
		return nil, nil
	}
	var configs map[string]string
	if err := json.Unmarshal(e.Value, &configs); err != nil {
		return nil, fmt.Errorf("value of key %q: %w", e.Key, err)
	}
	return configs, nil
}
