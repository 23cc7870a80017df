package coordinator

import (
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/group"
)

const (
	typeClassic  = "classic"
	consumerType = "consumer" // a type of group, and a protocol type
	// noOperations is the answer when authorized operations were not asked for.
	noOperations = -1 << 31
	// groupOperations are READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and
	// ALTER_CONFIGS, all that can be done to a group; a broker without
	// authorization allows them.
	groupOperations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11
)

// DescribeGroups describes groups of this broker.
func (c *Coordinator) DescribeGroups(_ context.Context, _ ClientInfo, req *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
	resp := kmsg.NewPtrDescribeGroupsResponse()
	resp.Version = req.Version
	for _, id := range req.Groups {
		g := c.describe(id, req.Version)
		g.AuthorizedOperations = noOperations
		if req.IncludeAuthorizedOperations && g.ErrorCode == 0 {
			g.AuthorizedOperations = groupOperations
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}

func (c *Coordinator) describe(id string, version int16) kmsg.DescribeGroupsResponseGroup {
	resp := kmsg.NewDescribeGroupsResponseGroup()
	resp.Group = id
	if err := checkGroupID(id, true); err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	sh := c.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.find(id)
	if err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	if e == nil || e.k != nil || e.dead() {
		resp.State = group.Dead.String()
		// Until v6 a group that does not exist was described as dead.
		if version >= 6 {
			message := "Group " + id + " not found."
			if e != nil && e.k != nil {
				message = "Group " + id + " is not a classic group."
			}
			resp.ErrorCode, resp.ErrorMessage = kerr.GroupIDNotFound.Code, &message
		}
		return resp
	}
	fillDescription(&resp, e.g.Describe())
	return resp
}

func fillDescription(resp *kmsg.DescribeGroupsResponseGroup, d group.Description) {
	resp.State, resp.ProtocolType, resp.Protocol = d.State.String(), d.ProtocolType, d.Protocol
	for _, m := range d.Members {
		rm := kmsg.NewDescribeGroupsResponseGroupMember()
		rm.MemberID, rm.InstanceID = m.ID, m.Instance
		rm.ClientID, rm.ClientHost = m.ClientID, m.ClientHost
		rm.ProtocolMetadata, rm.MemberAssignment = m.Metadata, m.Assignment
		resp.Members = append(resp.Members, rm)
	}
}

// ListGroups lists the groups of this broker's shards.
func (c *Coordinator) ListGroups(_ context.Context, _ ClientInfo, req *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse {
	resp := kmsg.NewPtrListGroupsResponse()
	resp.Version = req.Version
	if c.draining.Load() {
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
		return resp
	}
	for i := range c.shards {
		if err := c.shards[i].list(req, resp); err != nil {
			resp.ErrorCode, resp.Groups = err.Code, nil
			return resp
		}
	}
	sort.Slice(resp.Groups, func(i, j int) bool { return resp.Groups[i].Group < resp.Groups[j].Group })
	return resp
}

func (sh *shard) list(req *kmsg.ListGroupsRequest, resp *kmsg.ListGroupsResponse) *kerr.Error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch sh.serving() {
	case nil:
	case kerr.CoordinatorLoadInProgress:
		return kerr.CoordinatorLoadInProgress
	default:
		return nil // listed by its own coordinator
	}
	for id, e := range sh.groups {
		state, kind := e.state()
		if !passes(req.StatesFilter, state) || !passes(req.TypesFilter, kind) || e.dead() {
			continue
		}
		g := kmsg.NewListGroupsResponseGroup()
		g.Group, g.ProtocolType, g.GroupState, g.GroupType = id, e.protocolType(), state, kind
		resp.Groups = append(resp.Groups, g)
	}
	return nil
}

// passes tells whether a filter, if there is one, names the value.
func passes(filter []string, value string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, value) })
}
