package configdef

import (
	"errors"
	"testing"
)

func TestDefaultsAreValid(t *testing.T) {
	seen := map[string]bool{}
	for _, defs := range [][]Def{Topics(), Brokers()} {
		clear(seen)
		for _, d := range defs {
			if seen[d.Name] {
				t.Errorf("%s is listed twice", d.Name)
			}
			seen[d.Name] = true
			if d.Null() {
				continue
			}
			if err := d.Validate(d.Default); err != nil {
				t.Error(err)
			}
			if d.Doc == "" {
				t.Errorf("%s is not documented", d.Name)
			}
			if d.Broker != "" {
				if _, ok := Broker(d.Broker); !ok {
					t.Errorf("%s: no broker config %s", d.Name, d.Broker)
				}
			}
		}
	}
}

func TestValidateTopic(t *testing.T) {
	for _, c := range []struct {
		name, value string
		ok          bool
	}{
		{"cleanup.policy", "compact,delete", true},
		{"cleanup.policy", "compact, delete", true},
		{"cleanup.policy", "shred", false},
		{"max.message.bytes", "33554432", true},
		{"max.message.bytes", "33554433", false},
		{"max.message.bytes", "-1", false},
		{"max.message.bytes", "9999999999", false},
		{"retention.ms", "-1", true},
		{"retention.ms", "-2", false},
		{"retention.ms", "soon", false},
		{"min.insync.replicas", "0", false},
		{"min.insync.replicas", "3", true},
		{"min.cleanable.dirty.ratio", "1.1", false},
		{"min.cleanable.dirty.ratio", "NaN", false},
		{"preallocate", "TRUE", true},
		{"preallocate", "yes", false},
		{"compression.type", "producer", true},
		{"compression.type", "brotli", false},
		{"sasl.jaas.config", "x", false},
		{"message.format.version", "2.8", false},
	} {
		err := ValidateTopic(map[string]string{c.name: c.value})
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s=%s: %v", c.name, c.value, err)
		}
	}
	if ValidateTopic(map[string]string{"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"}) == nil {
		t.Error("contradicting compaction lags are accepted")
	}
}

func TestListOperations(t *testing.T) {
	if got := Append("delete", "compact, delete"); got != "delete,compact" {
		t.Error(got)
	}
	if got := Subtract("delete,compact", "delete"); got != "compact" {
		t.Error(got)
	}
	if got := Append("", "a"); got != "a" {
		t.Error(got)
	}
}
