package metadata

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalidName: a name outside Kafka's rules.
var ErrInvalidName = errors.New("invalid name")

// MaxTopicName is Kafka's limit: a name plus partition suffix fits a file name.
const MaxTopicName = 249

// CheckTopicName applies Kafka's rules: 1 to 249 of [a-zA-Z0-9._-], and neither
// "." nor "..".
func CheckTopicName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: topic name is empty", ErrInvalidName)
	case name == "." || name == "..":
		return fmt.Errorf("%w: topic name cannot be %q", ErrInvalidName, name)
	case len(name) > MaxTopicName:
		return fmt.Errorf("%w: topic name is %d characters long, at most %d", ErrInvalidName, len(name), MaxTopicName)
	}
	for i := range len(name) {
		if !legalTopicByte(name[i]) {
			return fmt.Errorf("%w: topic name %q has characters other than a-z, A-Z, 0-9, '.', '_' and '-'", ErrInvalidName, name)
		}
	}
	return nil
}

func legalTopicByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}

// CollidesWith reports whether two different topic names are the same to metric
// systems, which turn '.' into '_'. Kafka refuses to create such a topic.
func CollidesWith(name, existing string) bool {
	return name != existing && strings.ReplaceAll(name, ".", "_") == strings.ReplaceAll(existing, ".", "_")
}
