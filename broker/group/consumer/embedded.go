package consumer

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/metadata"
)

// protocolType is the classic protocol type of consumers.
const protocolType = "consumer"

// embeddedVersionMax is the newest version of the embedded protocol we write.
const embeddedVersionMax = 3

// subscription is what a classic consumer says of itself.
type subscription struct {
	version int16
	topics  []string
	rack    *string
	owned   []metadata.TopicPartition
}

// parseSubscription reads the metadata of a classic member's first protocol; all
// of them carry the same subscription.
func parseSubscription(protocols []group.Protocol, img *Image) (subscription, *kerr.Error) {
	var m kmsg.ConsumerMemberMetadata
	if len(protocols) == 0 {
		return subscription{}, refuse(kerr.InconsistentGroupProtocol, "The member names no protocol.")
	}
	if err := m.ReadFrom(protocols[0].Metadata); err != nil {
		return subscription{}, refuse(kerr.InconsistentGroupProtocol, "The embedded consumer protocol is malformed: %v.", err)
	}
	s := subscription{version: m.Version, topics: sortedNames(m.Topics), rack: m.Rack}
	for _, t := range m.OwnedPartitions {
		s.owned = appendTopic(s.owned, img, t.Topic, t.Partitions)
	}
	s.owned = SortPartitions(s.owned)
	return s, nil
}

// appendTopic adds the partitions of a topic that exist.
func appendTopic(list []metadata.TopicPartition, img *Image, name string, partitions []int32) []metadata.TopicPartition {
	t, ok := img.Topic(name)
	if !ok {
		return list
	}
	for _, p := range partitions {
		if p >= 0 && p < t.Partitions {
			list = append(list, metadata.TopicPartition{Topic: t.ID, Partition: p})
		}
	}
	return list
}

// parseAssignment reads what a classic leader assigned.
func parseAssignment(b []byte, img *Image) ([]metadata.TopicPartition, *kerr.Error) {
	if len(b) == 0 {
		return nil, nil
	}
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(b); err != nil {
		return nil, refuse(kerr.InconsistentGroupProtocol, "The embedded consumer protocol is malformed: %v.", err)
	}
	var list []metadata.TopicPartition
	for _, t := range a.Topics {
		list = appendTopic(list, img, t.Topic, t.Partitions)
	}
	return SortPartitions(list), nil
}

// encodeAssignment is an assignment as a classic consumer reads it.
func encodeAssignment(set []metadata.TopicPartition, img *Image, version int16) []byte {
	a := kmsg.NewConsumerMemberAssignment()
	a.Version = min(max(version, 0), embeddedVersionMax)
	for _, tp := range set {
		t, ok := img.TopicByID(tp.Topic)
		if !ok {
			continue
		}
		if n := len(a.Topics); n == 0 || a.Topics[n-1].Topic != t.Name {
			topic := kmsg.NewConsumerMemberAssignmentTopic()
			topic.Topic = t.Name
			a.Topics = append(a.Topics, topic)
		}
		last := &a.Topics[len(a.Topics)-1]
		last.Partitions = append(last.Partitions, tp.Partition)
	}
	slices.SortFunc(a.Topics, func(x, y kmsg.ConsumerMemberAssignmentTopic) int { return strings.Compare(x.Topic, y.Topic) })
	return a.AppendTo(nil)
}

// version is the version of the embedded protocol that a classic member speaks.
func (c *Classic) version() int16 {
	var m kmsg.ConsumerMemberMetadata
	if len(c.Protocols) == 0 || m.ReadFrom(c.Protocols[0].Metadata) != nil {
		return 0
	}
	return m.Version
}

// supports tells whether all classic members of the group, but for the one that
// joins, share a protocol with it.
func (g *Group) supports(r *group.JoinRequest) bool {
	if r.ProtocolType != protocolType || len(r.Protocols) == 0 {
		return false
	}
	return slices.ContainsFunc(r.Protocols, func(p group.Protocol) bool {
		for id, m := range g.members {
			if m.Classic != nil && id != r.MemberID && !slices.ContainsFunc(m.Classic.Protocols, func(o group.Protocol) bool { return o.Name == p.Name }) {
				return false
			}
		}
		return true
	})
}
