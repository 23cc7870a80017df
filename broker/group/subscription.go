package group

import (
	"encoding/binary"
	"errors"
)

var errSubscription = errors.New("malformed consumer subscription")

// computeSubscribed collects the topics of a consumer group's members, or nil
// when they are not known: another protocol type, no generation yet, or
// metadata that is not a subscription.
func (g *Group) computeSubscribed() map[string]struct{} {
	if g.protocolType != consumerProtocolType {
		return nil
	}
	topics := map[string]struct{}{}
	if len(g.members) == 0 {
		return topics
	}
	if g.protocol == nil {
		return nil
	}
	for _, m := range g.order {
		if err := parseSubscription(m.metadata(*g.protocol), topics); err != nil {
			return nil
		}
	}
	return topics
}

// parseSubscription adds the topics of a consumer's metadata to topics. Every
// version of it begins with version 0: version, topics, user data.
func parseSubscription(b []byte, topics map[string]struct{}) error {
	if len(b) < 6 || int16(binary.BigEndian.Uint16(b)) < 0 {
		return errSubscription
	}
	n := int32(binary.BigEndian.Uint32(b[2:]))
	b = b[6:]
	if n < 0 || int(n) > len(b)/2 {
		return errSubscription
	}
	for range n {
		if len(b) < 2 {
			return errSubscription
		}
		size := int(int16(binary.BigEndian.Uint16(b)))
		b = b[2:]
		if size < 0 || size > len(b) {
			return errSubscription
		}
		topics[string(b[:size])] = struct{}{}
		b = b[size:]
	}
	return nil
}

// Subscribed tells whether the group consumes the topic. A consumer group whose
// subscriptions are not known is taken to consume every topic.
func (g *Group) Subscribed(topic string) bool {
	if g.subscribed == nil {
		return g.protocolType == consumerProtocolType
	}
	_, ok := g.subscribed[topic]
	return ok
}
