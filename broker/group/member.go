package group

import (
	"bytes"
	"time"
)

// Protocol is one way of assigning that a member supports, with the member's
// metadata for it. Members list them in order of preference.
type Protocol struct {
	Name     string
	Metadata []byte
}

// member is one member of a group. Protocols and assignment are replaced, never
// modified: snapshots share them.
type member struct {
	id               string
	instance         *string
	clientID         string
	clientHost       string
	sessionTimeout   time.Duration
	rebalanceTimeout time.Duration
	protocols        []Protocol
	assignment       []byte
	// join and sync are the member's parked requests.
	join Ticket
	sync Ticket
	// isNew until the member has been part of a generation.
	isNew bool
	// deadline ends the session; zero while nothing is expected of the member.
	deadline time.Time
}

func (m *member) isStatic() bool { return m.instance != nil }

func (m *member) bytes() int { return protocolBytes(m.protocols) + len(m.assignment) }

// protocolBytes is what protocols cost, with a little for each entry, so that
// many empty ones are not free.
func protocolBytes(protocols []Protocol) int {
	n := 0
	for _, p := range protocols {
		n += len(p.Name) + len(p.Metadata) + 16
	}
	return n
}

// matches tells whether the member would join with the same metadata again.
func (m *member) matches(protocols []Protocol) bool {
	if len(m.protocols) != len(protocols) {
		return false
	}
	for i, p := range m.protocols {
		if p.Name != protocols[i].Name || !bytes.Equal(p.Metadata, protocols[i].Metadata) {
			return false
		}
	}
	return true
}

// metadata is the member's metadata for the protocol.
func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

// uniqueNames lists the names of protocols, each once.
func uniqueNames(protocols []Protocol) []string {
	names := make([]string, 0, len(protocols))
	seen := make(map[string]struct{}, len(protocols))
	for _, p := range protocols {
		if _, dup := seen[p.Name]; !dup {
			seen[p.Name] = struct{}{}
			names = append(names, p.Name)
		}
	}
	return names
}

// expectsHeartbeat is false while the member waits for the group rather than the
// group for the member. A new member is held to its deadline all the same.
func (m *member) expectsHeartbeat() bool { return m.isNew || (m.join == 0 && m.sync == 0) }
