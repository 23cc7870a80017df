package group

import (
	"encoding/binary"
	"testing"
)

// FuzzSubscription reads the topics out of what members send as their metadata.
func FuzzSubscription(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 1, 't', 0, 0, 0, 0})
	f.Add([]byte{0, 3, 0, 0, 0, 2, 0, 1, 't', 0, 2, 'u', 'v', 255, 255, 255, 255})
	f.Add([]byte{0, 0, 127, 255, 255, 255})
	f.Add([]byte{255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		topics := make(map[string]struct{})
		if err := parseSubscription(b, topics); err != nil {
			return
		}
		if n := int(binary.BigEndian.Uint32(b[2:])); len(topics) > n || n > len(b) {
			t.Errorf("%d topics of %d in %d bytes", len(topics), n, len(b))
		}
		for topic := range topics {
			if len(topic) > len(b) {
				t.Errorf("a topic of %d bytes in %d", len(topic), len(b))
			}
		}
	})
}
