package coordinator

import (
	"context"
	"sort"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
)

// noOffset is what is told of a partition without a committed offset.
const noOffset = -1

// OffsetFetch answers with committed offsets, after making sure that this broker
// still coordinates the groups.
func (c *Coordinator) OffsetFetch(ctx context.Context, _ ClientInfo, req *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	resp := kmsg.NewPtrOffsetFetchResponse()
	resp.Version = req.Version
	groups := req.Groups
	if req.Version < 8 {
		groups = []kmsg.OffsetFetchRequestGroup{oldFetch(req)}
	}
	var shards []int
	for i := range groups {
		shards = append(shards, ShardOf(groups[i].Group))
	}
	verified := c.verify(ctx, shards)
	for i := range groups {
		g := c.fetch(&groups[i], req, verified)
		if req.Version < 8 {
			fillOldFetch(resp, g)
			return resp
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}

// oldFetch is a request of versions up to 7, which are for one group.
func oldFetch(req *kmsg.OffsetFetchRequest) kmsg.OffsetFetchRequestGroup {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = req.Group
	if req.Topics == nil {
		return g
	}
	g.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(req.Topics))
	for i, t := range req.Topics {
		g.Topics[i].Topic, g.Topics[i].Partitions = t.Topic, t.Partitions
	}
	return g
}

func fillOldFetch(resp *kmsg.OffsetFetchResponse, g kmsg.OffsetFetchResponseGroup) {
	// Errors of the whole began with v2; before, each partition has it.
	if resp.Version >= 2 {
		resp.ErrorCode = g.ErrorCode
	}
	for _, t := range g.Topics {
		st := kmsg.NewOffsetFetchResponseTopic()
		st.Topic = t.Topic
		for _, p := range t.Partitions {
			sp := kmsg.NewOffsetFetchResponseTopicPartition()
			sp.Partition, sp.Offset, sp.LeaderEpoch = p.Partition, p.Offset, p.LeaderEpoch
			sp.Metadata, sp.ErrorCode = p.Metadata, p.ErrorCode
			st.Partitions = append(st.Partitions, sp)
		}
		resp.Topics = append(resp.Topics, st)
	}
}

// fetch answers for one group.
func (c *Coordinator) fetch(req *kmsg.OffsetFetchRequestGroup, of *kmsg.OffsetFetchRequest, verified map[int]*kerr.Error) kmsg.OffsetFetchResponseGroup {
	resp := kmsg.NewOffsetFetchResponseGroup()
	resp.Group = req.Group
	err := checkGroupID(req.Group, true)
	if err == nil {
		err = c.fetchOffsets(req, of, verified, &resp)
	}
	if err == nil {
		return resp
	}
	resp.ErrorCode = err.Code
	if of.Version < 2 {
		resp.Topics = failedTopics(req, err)
	}
	return resp
}

func (c *Coordinator) fetchOffsets(req *kmsg.OffsetFetchRequestGroup, of *kmsg.OffsetFetchRequest, verified map[int]*kerr.Error, resp *kmsg.OffsetFetchResponseGroup) *kerr.Error {
	version, stable := of.Version, of.RequireStable && of.Version >= 7
	sh := c.shard(req.Group)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.find(req.Group)
	if err != nil {
		return err
	}
	if err, ok := verified[sh.id]; err != nil {
		return err
	} else if !ok {
		return kerr.CoordinatorLoadInProgress // it became active after the check
	}
	if e != nil && e.dead() {
		e = nil
	}
	if e != nil && e.k != nil && version >= 9 {
		if err := e.k.FetchOffsets(req.MemberID, req.MemberEpoch); err != nil {
			return err
		}
	}
	if req.Topics == nil {
		resp.Topics = c.allOffsets(e, stable)
		return nil
	}
	for i := range req.Topics {
		if version < 10 && c.unresolved(e, req.Topics[i].Topic) {
			return kerr.CoordinatorLoadInProgress
		}
		resp.Topics = append(resp.Topics, c.topicOffsets(e, &req.Topics[i], version, stable))
	}
	return nil
}

// unresolved tells whether the view knows neither the name nor the topic of some
// of the group's offsets, which may then be the same: the view is behind, or the
// topic was deleted and its offsets not swept yet. To say that nothing was
// committed would have the consumer reset its position.
func (c *Coordinator) unresolved(e *entry, name string) bool {
	if _, known := c.cfg.View.Topic(name); known || e == nil {
		return false
	}
	for id, ch := range e.chunks {
		if _, known := c.cfg.View.TopicByID(id.topic); !known && len(ch.parts) > 0 {
			return true
		}
	}
	return false
}

func (c *Coordinator) topicOffsets(e *entry, req *kmsg.OffsetFetchRequestGroupTopic, version int16, stable bool) kmsg.OffsetFetchResponseGroupTopic {
	resp := kmsg.NewOffsetFetchResponseGroupTopic()
	resp.Topic, resp.TopicID = req.Topic, req.TopicID
	topic, err := c.topic(version >= 10, req.Topic, req.TopicID)
	for _, p := range req.Partitions {
		var at place
		if err == nil {
			at = e.place(topic.ID, p)
		}
		rp := fetched(p, at, stable)
		// A name that is not known has no offsets; an id that is not known is
		// told, so that the client asks for the topic again.
		if err != nil && version >= 10 {
			rp.ErrorCode = err.Code
		}
		resp.Partitions = append(resp.Partitions, rp)
	}
	return resp
}

// place returns what the group has of a partition.
func (e *entry) place(topic metadata.TopicID, partition int32) place {
	if e == nil || partition < 0 {
		return place{}
	}
	if ch := e.chunks[chunkOf(topic, partition)]; ch != nil {
		return ch.parts[partition]
	}
	return place{}
}

// fetched tells what is committed of a partition; with stable only if no
// transaction is about to change it (KIP-447).
func fetched(partition int32, at place, stable bool) kmsg.OffsetFetchResponseGroupTopicPartition {
	rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	rp.Partition, rp.Offset, rp.LeaderEpoch = partition, noOffset, -1
	text := ""
	if o := at.offset; stable && len(at.pending) > 0 {
		rp.ErrorCode = kerr.UnstableOffsetCommit.Code
	} else if o != nil {
		rp.Offset, rp.LeaderEpoch, text = o.offset, o.epoch, o.metadata
	}
	rp.Metadata = &text
	return rp
}

// allOffsets lists every offset of topics that still exist.
func (c *Coordinator) allOffsets(e *entry, stable bool) []kmsg.OffsetFetchResponseGroupTopic {
	if e == nil {
		return nil
	}
	byTopic := map[metadata.TopicID]*kmsg.OffsetFetchResponseGroupTopic{}
	for id, ch := range e.chunks {
		topic, ok := c.cfg.View.TopicByID(id.topic)
		if !ok || len(ch.parts) == 0 {
			continue
		}
		rt := byTopic[id.topic]
		if rt == nil {
			t := kmsg.NewOffsetFetchResponseGroupTopic()
			t.Topic, t.TopicID = topic.Name, topic.ID
			rt = &t
			byTopic[id.topic] = rt
		}
		for p, at := range ch.parts {
			if at.offset != nil || stable {
				rt.Partitions = append(rt.Partitions, fetched(p, at, stable))
			}
		}
	}
	topics := make([]kmsg.OffsetFetchResponseGroupTopic, 0, len(byTopic))
	for _, rt := range byTopic {
		if len(rt.Partitions) == 0 {
			continue // nothing but what is pending
		}
		sort.Slice(rt.Partitions, func(i, j int) bool { return rt.Partitions[i].Partition < rt.Partitions[j].Partition })
		topics = append(topics, *rt)
	}
	sort.Slice(topics, func(i, j int) bool { return topics[i].Topic < topics[j].Topic })
	return topics
}

func failedTopics(req *kmsg.OffsetFetchRequestGroup, err *kerr.Error) []kmsg.OffsetFetchResponseGroupTopic {
	var topics []kmsg.OffsetFetchResponseGroupTopic
	for _, t := range req.Topics {
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := fetched(p, place{}, false)
			rp.ErrorCode = err.Code
			rt.Partitions = append(rt.Partitions, rp)
		}
		topics = append(topics, rt)
	}
	return topics
}
