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
	answer, err := c.shard(req.Group).join(client, req)
	if err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	r, ok := answer(ctx)
	if !ok {
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code // nobody reads it
		return resp
	}
	fillJoin(resp, &r)
	return resp
}

// deferred waits for an answer for as long as its connection lives.
type deferred[T any] func(ctx context.Context) (T, bool)

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

func (sh *shard) join(client ClientInfo, req *kmsg.JoinGroupRequest) (deferred[group.JoinReply], *kerr.Error) {
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
	if e.k != nil && !sh.servesClassic(e, &r, now) {
		return sh.joinConsumer(e, r, now), nil
	}
	ticket, reply := sh.park()
	r.Ticket = ticket
	sh.handle(e, e.g.Join(now, r))
	return func(ctx context.Context) (group.JoinReply, bool) {
		answer, ok := await(ctx, reply)
		if !ok {
			return group.JoinReply{}, false
		}
		return *answer.Join, true
	}, nil
}

// servesClassic makes a classic group of a consumer group where the join of a
// classic member allows it, and reports whether it did.
func (sh *shard) servesClassic(e *entry, r *group.JoinRequest, now time.Time) bool {
	switch {
	case e.dead():
		return false
	case e.k.Vacant():
		e.g, e.k, e.changed = group.New(e.id, &sh.c.cfg.Group, now), nil, false
		return true
	case e.k.DowngradesFor(r):
		sh.handleConsumer(e, e.k.Replace(now, *r.Instance))
		return e.k == nil
	}
	return false
}

// joinConsumer has a classic member join a consumer group.
func (sh *shard) joinConsumer(e *entry, r group.JoinRequest, now time.Time) deferred[group.JoinReply] {
	reply, eff := e.k.JoinClassic(now, sh.c.image(), r)
	durable := e.whenDurable(sh.handleConsumer(e, eff))
	return func(ctx context.Context) (group.JoinReply, bool) {
		err, ok := await(ctx, durable)
		if err != nil && reply.Err == nil {
			reply = group.JoinReply{Err: err, MemberID: reply.MemberID, Generation: group.NoGeneration}
		}
		return reply, ok
	}
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
	answer, err := c.shard(req.Group).sync(req)
	if err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	r, ok := answer(ctx)
	if !ok {
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code // nobody reads it
		return resp
	}
	resp.ErrorCode, resp.MemberAssignment = code(r.Err), r.Assignment
	resp.ProtocolType, resp.Protocol = r.ProtocolType, r.Protocol
	return resp
}

func (sh *shard) sync(req *kmsg.SyncGroupRequest) (deferred[group.SyncReply], *kerr.Error) {
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
	if e.k != nil {
		return sh.syncConsumer(e, r), nil
	}
	ticket, reply := sh.park()
	r.Ticket = ticket
	sh.handle(e, e.g.Sync(time.Now(), r))
	return func(ctx context.Context) (group.SyncReply, bool) {
		answer, ok := await(ctx, reply)
		if !ok {
			return group.SyncReply{}, false
		}
		return *answer.Sync, true
	}, nil
}

// syncConsumer gives a classic member of a consumer group its assignment.
func (sh *shard) syncConsumer(e *entry, r group.SyncRequest) deferred[group.SyncReply] {
	reply, eff := e.k.SyncClassic(time.Now(), r)
	durable := e.whenDurable(sh.handleConsumer(e, eff))
	return func(ctx context.Context) (group.SyncReply, bool) {
		err, ok := await(ctx, durable)
		if err != nil && reply.Err == nil {
			reply = group.SyncReply{Err: err}
		}
		return reply, ok
	}
}
