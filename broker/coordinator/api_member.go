package coordinator

import (
	"context"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group"
)

// Heartbeat keeps a member's session.
func (c *Coordinator) Heartbeat(_ context.Context, _ ClientInfo, req *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse {
	resp := kmsg.NewPtrHeartbeatResponse()
	resp.Version = req.Version
	err := checkGroupID(req.Group, false)
	if err == nil {
		err = c.shard(req.Group).heartbeat(req)
	}
	// While the group is being loaded there is nothing to tell its members,
	// and their sessions begin anew when it is.
	if err != kerr.CoordinatorLoadInProgress {
		resp.ErrorCode = code(err)
	}
	return resp
}

func (sh *shard) heartbeat(req *kmsg.HeartbeatRequest) *kerr.Error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.find(req.Group)
	if err != nil {
		return err
	}
	if e == nil {
		return kerr.UnknownMemberID
	}
	if e.k != nil {
		err, eff := e.k.HeartbeatClassic(time.Now(), sh.c.image(), req.MemberID, req.InstanceID, req.Generation)
		sh.handleConsumer(e, eff)
		return err
	}
	err = e.g.Heartbeat(time.Now(), req.MemberID, req.InstanceID, req.Generation)
	sh.arm(e)
	return err
}

// LeaveGroup removes members. If nobody is left it answers when that is stored.
func (c *Coordinator) LeaveGroup(ctx context.Context, _ ClientInfo, req *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse {
	resp := kmsg.NewPtrLeaveGroupResponse()
	resp.Version = req.Version
	leaving := []group.Leaving{{MemberID: req.MemberID}}
	if req.Version >= 3 {
		leaving = leaving[:0]
		for _, m := range req.Members {
			leaving = append(leaving, group.Leaving{MemberID: m.MemberID, Instance: m.InstanceID})
		}
	}
	err := checkGroupID(req.Group, false)
	var errs []*kerr.Error
	if err == nil {
		errs, err = c.shard(req.Group).leave(ctx, req, leaving)
	}
	if err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	if req.Version < 3 {
		resp.ErrorCode = code(errs[0])
		return resp
	}
	for i, m := range req.Members {
		rm := kmsg.NewLeaveGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ErrorCode = m.MemberID, m.InstanceID, code(errs[i])
		resp.Members = append(resp.Members, rm)
	}
	return resp
}

func (sh *shard) leave(ctx context.Context, req *kmsg.LeaveGroupRequest, leaving []group.Leaving) ([]*kerr.Error, *kerr.Error) {
	sh.mu.Lock()
	e, err := sh.find(req.Group)
	if err != nil {
		sh.mu.Unlock()
		return nil, err
	}
	if e == nil {
		sh.mu.Unlock()
		errs := make([]*kerr.Error, len(leaving))
		for i := range errs {
			errs[i] = kerr.UnknownMemberID
		}
		return errs, nil
	}
	if e.dead() {
		sh.mu.Unlock()
		return nil, kerr.CoordinatorNotAvailable
	}
	errs, durable := sh.remove(e, leaving)
	sh.mu.Unlock()
	for i, m := range req.Members {
		if errs[i] == nil && m.Reason != nil {
			sh.c.log.Debug("member left", slog.String(logGroup, req.Group), slog.String(logMember, m.MemberID), slog.String(logReason, *m.Reason))
		}
	}
	if err, _ = await(ctx, durable); err != nil {
		return nil, err
	}
	return errs, nil
}

// remove removes members of a group of either protocol.
func (sh *shard) remove(e *entry, leaving []group.Leaving) ([]*kerr.Error, <-chan *kerr.Error) {
	if e.k != nil {
		errs, eff := e.k.LeaveClassic(time.Now(), leaving)
		return errs, e.whenDurable(sh.handleConsumer(e, eff))
	}
	errs, eff := e.g.Leave(time.Now(), leaving)
	return errs, e.whenDurable(sh.handle(e, eff))
}
