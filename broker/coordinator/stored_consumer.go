package coordinator

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/broker/group/assignor"
	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/metadata"
)

// storedConsumer is the value of a consumer group member's keys, put together.
type storedConsumer struct {
	ID              text              `json:"id"`
	Instance        *text             `json:"instance,omitempty"`
	Rack            *text             `json:"rack,omitempty"`
	ClientID        text              `json:"client_id"`
	ClientHost      text              `json:"client_host"`
	RebalanceMillis int64             `json:"rebalance_ms"`
	Topics          []text            `json:"topics,omitempty"`
	Regex           text              `json:"regex,omitempty"`
	Assignor        text              `json:"assignor,omitempty"`
	Epoch           int32             `json:"epoch"`
	Previous        int32             `json:"previous"`
	State           int8              `json:"state"`
	Assigned        []storedHeld      `json:"assigned,omitempty"`
	Revoking        []storedHeld      `json:"revoking,omitempty"`
	Target          []storedHeld      `json:"target,omitempty"`
	Classic         *storedClassicFor `json:"classic,omitempty"`
}

// storedHeld are partitions of one topic that are held since the same epoch; a
// target has none.
type storedHeld struct {
	Topic      metadata.TopicID `json:"t"`
	Since      int32            `json:"e,omitempty"`
	Partitions []int32          `json:"p"`
}

type storedClassicFor struct {
	SessionMillis int64            `json:"session_ms"`
	Protocols     []storedProtocol `json:"protocols"`
}

func encodeConsumer(m *consumer.Member) ([]byte, error) {
	s := storedConsumer{
		ID: text(m.ID), Instance: textPtr(m.Instance), Rack: textPtr(m.Rack),
		ClientID: text(m.ClientID), ClientHost: text(m.ClientHost), RebalanceMillis: m.RebalanceTimeout.Milliseconds(),
		Regex: text(m.Regex), Assignor: text(m.Assignor), Epoch: m.Epoch, Previous: m.Previous, State: int8(m.State),
		Assigned: storeHeld(m.Assigned), Revoking: storeHeld(m.Revoking),
	}
	for _, t := range m.Topics {
		s.Topics = append(s.Topics, text(t))
	}
	target := make([]consumer.Held, len(m.Target))
	for i, tp := range m.Target {
		target[i].TopicPartition = tp
	}
	s.Target = storeHeld(target)
	if m.Classic != nil {
		s.Classic = &storedClassicFor{SessionMillis: m.Classic.SessionTimeout.Milliseconds()}
		for _, p := range m.Classic.Protocols {
			s.Classic.Protocols = append(s.Classic.Protocols, storedProtocol{Name: text(p.Name), Metadata: p.Metadata})
		}
	}
	return json.Marshal(&s)
}

func storeHeld(held []consumer.Held) []storedHeld {
	var out []storedHeld
	for _, h := range held {
		n := len(out) - 1
		if n < 0 || out[n].Topic != h.Topic || out[n].Since != h.Since {
			out = append(out, storedHeld{Topic: h.Topic, Since: h.Since})
			n++
		}
		out[n].Partitions = append(out[n].Partitions, h.Partition)
	}
	return out
}

func loadHeld(stored []storedHeld) []consumer.Held {
	var out []consumer.Held
	for _, s := range stored {
		for _, p := range s.Partitions {
			out = append(out, consumer.Held{TopicPartition: metadata.TopicPartition{Topic: s.Topic, Partition: p}, Since: s.Since})
		}
	}
	slices.SortFunc(out, func(a, b consumer.Held) int { return assignor.Compare(a.TopicPartition, b.TopicPartition) })
	return out
}

func decodeConsumer(value []byte) (*consumer.Member, error) {
	var s storedConsumer
	if err := json.Unmarshal(value, &s); err != nil {
		return nil, err
	}
	if s.State < int8(consumer.Stable) || s.State > int8(consumer.Unreleased) {
		return nil, fmt.Errorf("member state %d", s.State)
	}
	m := &consumer.Member{
		ID: string(s.ID), Instance: s.Instance.stringPtr(), Rack: s.Rack.stringPtr(),
		ClientID: string(s.ClientID), ClientHost: string(s.ClientHost),
		RebalanceTimeout: time.Duration(s.RebalanceMillis) * time.Millisecond,
		Regex:            string(s.Regex), Assignor: string(s.Assignor),
		Epoch: s.Epoch, Previous: s.Previous, State: consumer.MemberState(s.State),
		Assigned: loadHeld(s.Assigned), Revoking: loadHeld(s.Revoking),
	}
	for _, t := range s.Topics {
		m.Topics = append(m.Topics, string(t))
	}
	for _, h := range loadHeld(s.Target) {
		m.Target = append(m.Target, h.TopicPartition)
	}
	if s.Classic != nil {
		m.Classic = &consumer.Classic{SessionTimeout: time.Duration(s.Classic.SessionMillis) * time.Millisecond}
		for _, p := range s.Classic.Protocols {
			m.Classic.Protocols = append(m.Classic.Protocols, group.Protocol{Name: string(p.Name), Metadata: p.Metadata})
		}
	}
	return m, nil
}
