package broker

import (
	"slices"

	"github.com/tidemark-io/tidemark/broker/internal/configdef"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// Policy is what a topic's configs say about retention and segments, by what this
// broker knows now. Of a topic that it does not know nothing is let go of.
func (s *Server) Policy(id metadata.TopicID) tiering.Policy {
	t, ok := s.cfg.View.TopicByID(id)
	if !ok {
		return tiering.Policy{}
	}
	c := topicConfig{s, t}
	return tiering.Policy{
		Delete:          c.deletes(),
		RetentionMillis: c.number("retention.ms"),
		RetentionBytes:  c.number("retention.bytes"),
		SegmentBytes:    c.number("segment.bytes"),
		SegmentMillis:   c.number("segment.ms"),
	}
}

func (c topicConfig) deletes() bool {
	return slices.Contains(configdef.SplitList(c.text("cleanup.policy")), "delete")
}
