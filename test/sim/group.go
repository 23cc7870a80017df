package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/checker"
)

var errRefused = errors.New("refused")

// committer commits offsets of a group without members, ever larger ones, and
// reads them back: a commit that was acknowledged must not be undone.
type committer struct {
	w     *World
	c     *client
	d     *dice
	name  string
	group string
	at    string // the coordinator
	next  int64
	acked int64 // -1: none
	tried int64
}

func (c *committer) run(ctx context.Context) {
	defer c.c.close()
	c.acked, c.tried = -1, -1
	for ctx.Err() == nil {
		if c.at == "" {
			c.find(ctx)
		}
		ok := c.at != ""
		if ok && c.d.chance(0.6) {
			ok = c.commit(ctx, c.at)
		} else if ok {
			ok = c.fetch(ctx, c.at)
		}
		if ok && c.d.chance(0.1) { // whoever is asked must not tell of the past
			c.fetch(ctx, c.c.seeds[c.d.n(len(c.c.seeds))])
		}
		if !ok {
			c.at = ""
		}
		c.w.breathe(ctx, c.d.between(50*time.Millisecond, 400*time.Millisecond))
	}
}

const groupTimeout = 4 * time.Second

// find asks who coordinates the group.
func (c *committer) find(ctx context.Context) { c.at = findCoordinator(ctx, c.c, c.group) }

func findCoordinator(ctx context.Context, c *client, group string) string {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.Version, req.CoordinatorKey = 3, group
	resp, err := request[*kmsg.FindCoordinatorResponse](ctx, c, c.seed(), req, groupTimeout)
	if err != nil || resp.ErrorCode != 0 {
		return ""
	}
	return net.JoinHostPort(resp.Host, strconv.Itoa(int(resp.Port)))
}

// commit commits the next offset. Every one is tried once: one that is not
// answered may be applied until a later one is acknowledged, and not after it.
func (c *committer) commit(ctx context.Context, to string) bool {
	offset := c.next
	c.next++
	c.tried = offset
	code, err := commitOffset(ctx, c.w, c.c, commitArgs{c.name, to, c.group, "", -1, 0, offset})
	if err != nil || code != 0 {
		return false
	}
	c.acked = offset
	c.w.judge.count("commits")
	return true
}

// fetch reads the offset back.
func (c *committer) fetch(ctx context.Context, to string) bool {
	acked := c.acked
	offsets, err := fetchOffsets(ctx, c.w, c.c, c.name, to, c.group, []int32{0})
	if err != nil {
		return false
	}
	got := offsets[0]
	c.w.judge.count("offset fetches")
	if got < acked {
		c.w.judge.broken("group offset", "%s: OffsetFetch at %s says %d after %d was acknowledged", c.name, to, got, acked)
	}
	if got > c.tried {
		c.w.judge.broken("group offset", "%s: OffsetFetch at %s says %d, which was never committed", c.name, to, got)
	}
	return true
}

// commitArgs say who commits what, and where; generation -1 is nobody's.
type commitArgs struct {
	who, to, group, member string
	generation, partition  int32
	offset                 int64
}

// commitOffset commits one offset.
func commitOffset(ctx context.Context, w *World, c *client, a commitArgs) (int16, error) {
	key := checker.Key{Topic: topicName, Partition: a.partition}
	told := w.judge.history.OffsetCommit(a.who, a.group, a.member, a.generation, map[checker.Key]int64{key: a.offset})
	begun := w.now()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 7, a.group, a.member, a.generation
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = topicName
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = a.partition, a.offset
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := request[*kmsg.OffsetCommitResponse](ctx, c, a.to, req, groupTimeout)
	var code int16
	if err == nil {
		code = resp.Topics[0].Partitions[0].ErrorCode
	}
	told.Done(a.to, cmp.Or(err, kerr.ErrorForCode(code)))
	w.note(a.who, "commit", fmt.Sprintf("%d of %v at %s: %v %v", a.offset, key, a.to, kerr.ErrorForCode(code), err))
	if err == nil && code == 0 {
		w.judge.committed(a, begun)
	}
	return code, err
}

// fetchOffsets reads committed offsets.
func fetchOffsets(ctx context.Context, w *World, c *client, who, from, group string, partitions []int32) (map[int32]int64, error) {
	told := w.judge.history.OffsetFetch(who, group)
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.Group = 5, group
	t := kmsg.NewOffsetFetchRequestTopic()
	t.Topic, t.Partitions = topicName, partitions
	req.Topics = append(req.Topics, t)
	resp, err := request[*kmsg.OffsetFetchResponse](ctx, c, from, req, groupTimeout)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		told.Done(from, nil, err)
		return nil, err
	}
	offsets, keys := make(map[int32]int64), make(map[checker.Key]int64)
	for _, p := range resp.Topics[0].Partitions {
		if p.ErrorCode == 0 {
			offsets[p.Partition], keys[checker.Key{Topic: topicName, Partition: p.Partition}] = p.Offset, p.Offset
		}
	}
	told.Done(from, keys, nil)
	w.note(who, "committed", fmt.Sprintf("%v at %s", offsets, from))
	if len(offsets) < len(partitions) {
		return nil, errRefused
	}
	return offsets, nil
}
