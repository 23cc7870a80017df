package coordinator

import (
	"bytes"
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group"
)

// JoinGroup answers when the generation is formed.
func (c *Coordinator) JoinGroup(ctx context.Context, client ClientInfo, req *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Version, resp.MemberID, resp.Generation = req.Version, req.MemberID, group.NoGeneration
	if err := c.checkJoin(req); err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	sh := c.shard(req.Group)
	reply, err := sh.join(client, req)
	if err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	r, ok := await(ctx, reply)
	if !ok {
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code // nobody reads it
		return resp
	}
	fillJoin(resp, r.Join)
	return resp
}

func (c *Coordinator) checkJoin(req *kmsg.JoinGroupRequest) *kerr.Error {
	if err := checkGroupID(req.Group, false); err != nil {
		return err
	}
	session := millis(req.SessionTimeoutMillis)
	if session < c.cfg.Group.SessionTimeoutMin || session > c.cfg.Group.SessionTimeoutMax {
		return kerr.InvalidSessionTimeout
	}
	if req.InstanceID != nil && len(*req.InstanceID) > idBytesMax || len(req.ProtocolType) > idBytesMax {
		return kerr.InvalidRequest
	}
	for _, p := range req.Protocols {
		if len(p.Name) > idBytesMax {
			return kerr.InvalidRequest
		}
	}
	return nil
}

func millis(n int32) time.Duration { return time.Duration(n) * time.Millisecond }

func (sh *shard) join(client ClientInfo, req *kmsg.JoinGroupRequest) (<-chan group.Reply, *kerr.Error) {
	r := joinRequest(client, req)
	now := time.Now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.find(req.Group)
	if err == nil && e == nil {
		if req.MemberID != "" {
			return nil, kerr.UnknownMemberID
		}
		e, err = sh.findOrCreate(req.Group, now)
	}
	if err != nil {
		return nil, err
	}
	ticket, reply := sh.park()
	r.Ticket = ticket
	sh.handle(e, e.g.Join(now, r))
	return reply, nil
}

// joinRequest translates a request and what its version implies. What the group
// keeps is copied, so that it does not keep the whole request alive.
func joinRequest(client ClientInfo, req *kmsg.JoinGroupRequest) group.JoinRequest {
	r := group.JoinRequest{
		MemberID: req.MemberID, Instance: req.InstanceID,
		ClientID: client.ID, ClientHost: client.host(),
		SessionTimeout: millis(req.SessionTimeoutMillis), RebalanceTimeout: millis(req.RebalanceTimeoutMillis),
		ProtocolType: req.ProtocolType, Protocols: make([]group.Protocol, 0, len(req.Protocols)),
		RequireKnownID: req.Version >= 4, SkipAssignment: req.Version >= 9,
	}
	if req.Version < 1 || req.RebalanceTimeoutMillis < 0 {
		r.RebalanceTimeout = r.SessionTimeout
	}
	if req.MemberID == "" {
		r.NewMemberID = newMemberID(client, req.InstanceID)
	}
	for _, p := range req.Protocols {
		r.Protocols = append(r.Protocols, group.Protocol{Name: p.Name, Metadata: bytes.Clone(p.Metadata)})
	}
	return r
}

func fillJoin(resp *kmsg.JoinGroupResponse, r *group.JoinReply) {
	resp.ErrorCode, resp.MemberID, resp.Generation = code(r.Err), r.MemberID, r.Generation
	resp.ProtocolType, resp.Protocol = r.ProtocolType, r.Protocol
	resp.LeaderID, resp.SkipAssignment = r.Leader, r.SkipAssignment
	for _, m := range r.Members {
		rm := kmsg.NewJoinGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ProtocolMetadata = m.ID, m.Instance, m.Metadata
		resp.Members = append(resp.Members, rm)
	}
}

// SyncGroup answers when the generation's assignment is stored.
func (c *Coordinator) SyncGroup(ctx context.Context, _ ClientInfo, req *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.Version = req.Version
	if err := checkGroupID(req.Group, false); err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	reply, err := c.shard(req.Group).sync(req)
	if err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	r, ok := await(ctx, reply)
	if !ok {
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code // nobody reads it
		return resp
	}
	resp.ErrorCode, resp.MemberAssignment = code(r.Sync.Err), r.Sync.Assignment
	resp.ProtocolType, resp.Protocol = r.Sync.ProtocolType, r.Sync.Protocol
	return resp
}

func (sh *shard) sync(req *kmsg.SyncGroupRequest) (<-chan group.Reply, *kerr.Error) {
	r := group.SyncRequest{
		MemberID: req.MemberID, Instance: req.InstanceID, Generation: req.Generation,
		ProtocolType: req.ProtocolType, Protocol: req.Protocol,
	}
	for _, a := range req.GroupAssignment {
		r.Assignments = append(r.Assignments, group.Assignment{MemberID: a.MemberID, Data: bytes.Clone(a.MemberAssignment)})
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.find(req.Group)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, kerr.UnknownMemberID
	}
	ticket, reply := sh.park()
	r.Ticket = ticket
	sh.handle(e, e.g.Sync(time.Now(), r))
	return reply, nil
}
