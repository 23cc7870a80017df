package coordinator

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteGroups deletes groups without members, with their offsets.
func (c *Coordinator) DeleteGroups(ctx context.Context, _ ClientInfo, req *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse {
	resp := kmsg.NewPtrDeleteGroupsResponse()
	resp.Version = req.Version
	pending := make([]<-chan *kerr.Error, len(req.Groups))
	resp.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(req.Groups))
	for i, id := range req.Groups {
		resp.Groups[i].Default()
		resp.Groups[i].Group = id
		done, err := c.startDelete(id)
		pending[i] = done
		resp.Groups[i].ErrorCode = code(err)
	}
	for i, done := range pending {
		if done == nil {
			continue
		}
		err, ok := await(ctx, done)
		if !ok {
			err = kerr.CoordinatorNotAvailable // nobody reads it
		}
		resp.Groups[i].ErrorCode = code(err)
	}
	return resp
}

func (c *Coordinator) startDelete(id string) (<-chan *kerr.Error, *kerr.Error) {
	if err := checkGroupID(id, true); err != nil {
		return nil, err
	}
	sh := c.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if err := sh.serving(); err != nil {
		return nil, err
	}
	// A group that cannot be read may still be deleted.
	e := sh.groups[id]
	if e == nil {
		return nil, kerr.GroupIDNotFound
	}
	return sh.delete(e)
}

// OffsetDelete removes offsets of topics that the group does not consume.
func (c *Coordinator) OffsetDelete(ctx context.Context, _ ClientInfo, req *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	resp := kmsg.NewPtrOffsetDeleteResponse()
	resp.Version = req.Version
	err := checkGroupID(req.Group, true)
	var cm *commit
	if err == nil {
		cm, err = c.shard(req.Group).deleteOffsets(req, resp)
	}
	if err == nil {
		if _, ok := await(ctx, cm.done); !ok && !closed(cm.done) {
			err = kerr.CoordinatorNotAvailable // nobody reads it
		} else {
			for _, failed := range cm.failed {
				err = failed
			}
		}
	}
	if err != nil {
		resp.ErrorCode, resp.Topics = err.Code, nil
	}
	return resp
}

func (sh *shard) deleteOffsets(req *kmsg.OffsetDeleteRequest, resp *kmsg.OffsetDeleteResponse) (*commit, *kerr.Error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.find(req.Group)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, kerr.GroupIDNotFound
	}
	if err := e.machine().DeleteOffsets(); err != nil {
		return nil, err
	}
	at := map[chunkID]int{}
	var changes []change
	for _, t := range req.Topics {
		rt := kmsg.NewOffsetDeleteResponseTopic()
		rt.Topic = t.Topic
		topic, err := sh.c.topic(false, t.Topic, [16]byte{})
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
			rp.Partition = p.Partition
			switch {
			case err != nil || p.Partition < 0 || p.Partition >= topic.Partitions:
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case e.machine().Subscribed(t.Topic):
				rp.ErrorCode = kerr.GroupSubscribedToTopic.Code
			case e.outstanding == 0 && e.place(topic.ID, p.Partition).empty():
				// Nothing there, and nothing on its way.
			default:
				changes = remove(changes, at, chunkOf(topic.ID, p.Partition), p.Partition)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return sh.submit(e, changes)
}

// remove adds a partition to the removals.
func remove(changes []change, at map[chunkID]int, id chunkID, partition int32) []change {
	i, ok := at[id]
	if !ok {
		i = len(changes)
		at[id] = i
		changes = append(changes, change{id: id, parts: map[int32]edit{}})
	}
	changes[i].parts[partition] = edit{}
	return changes
}
