package sim

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// client speaks Kafka's protocol, over at most one connection to each address.
type client struct {
	w      *World
	name   string
	seeds  []string // addresses to begin with
	turn   int
	format *kmsg.RequestFormatter
	// abrupt: whatever it sent on a connection that it gives up, and that has
	// not arrived yet, never will. Requests that nothing numbers overtake each
	// other otherwise, and nobody could tell.
	abrupt bool

	mu    sync.Mutex
	wires map[string]*wire
	topic string
	parts map[int32]leader
}

// leader is where a partition is led, as far as a client knows.
type leader struct {
	epoch int32
	addr  string // empty: unknown
}

func (w *World) client(name, topic string, seeds ...string) *client {
	return &client{w: w, name: name, seeds: seeds, topic: topic, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID(name)),
		wires: make(map[string]*wire), parts: make(map[int32]leader)}
}

// call is a request under way.
type call struct {
	c    *client
	to   string
	resp kmsg.Response
	ch   chan []byte
}

// send puts a request on its way; those to one address keep their order.
func (c *client) send(ctx context.Context, to string, req kmsg.Request) (*call, error) {
	wr, err := c.wire(ctx, to)
	if err != nil {
		return nil, err
	}
	ch := make(chan []byte, 1)
	wr.mu.Lock()
	if wr.broken {
		wr.mu.Unlock()
		return nil, errReset
	}
	wr.next++
	id := wr.next
	wr.waiting[id] = ch
	wr.mu.Unlock()
	if _, err := wr.nc.Write(c.format.AppendRequest(nil, req, id)); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	return &call{c: c, to: to, resp: resp, ch: ch}, nil
}

// wait returns the response, or closes the connection when it does not come.
func (k *call) wait(ctx context.Context, timeout time.Duration) (kmsg.Response, error) {
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case body, ok := <-k.ch:
		if !ok {
			return nil, errReset
		}
		b := kbin.Reader{Src: body}
		if k.resp.IsFlexible() && k.resp.Key() != int16(kmsg.ApiVersions) {
			kmsg.SkipTags(&b)
		}
		if err := k.resp.ReadFrom(b.Src); err != nil {
			k.c.w.judge.broken("protocol", "%s: response to %s: %v", k.c.name, kmsg.NameForKey(k.resp.Key()), err)
			return nil, err
		}
		return k.resp, nil
	case <-t.C:
		k.c.drop(k.to)
		return nil, context.DeadlineExceeded
	case <-ctx.Done():
		k.c.drop(k.to)
		return nil, ctx.Err()
	}
}

// ask sends a request and waits for the response.
func request[T kmsg.Response](ctx context.Context, c *client, to string, req kmsg.Request, timeout time.Duration) (T, error) {
	var none T
	k, err := c.send(ctx, to, req)
	if err != nil {
		return none, err
	}
	resp, err := k.wait(ctx, timeout)
	if err != nil {
		return none, err
	}
	return resp.(T), nil
}

// seed is the next address to begin with.
func (c *client) seed() string {
	c.turn++
	return c.seeds[c.turn%len(c.seeds)]
}

// leader looks up who leads a partition. Epochs below one that was seen are of
// brokers that have not heard yet, and are ignored, as clients do (KIP-320).
func (c *client) leader(ctx context.Context, partition int32) leader {
	c.mu.Lock()
	l := c.parts[partition]
	c.mu.Unlock()
	if l.addr == "" {
		c.refresh(ctx)
		c.mu.Lock()
		l = c.parts[partition]
		c.mu.Unlock()
	}
	return l
}

// mislaid has the leader of a partition looked up anew.
func (c *client) mislaid(partition int32) {
	c.mu.Lock()
	c.parts[partition] = leader{epoch: c.parts[partition].epoch}
	c.mu.Unlock()
}

func (c *client) refresh(ctx context.Context) {
	m, err := c.metadata(ctx, c.seed())
	if err != nil {
		return
	}
	brokers := make(map[int32]string)
	for _, b := range m.Brokers {
		brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if old, ok := c.parts[p.Partition]; p.Leader >= 0 && (!ok || p.LeaderEpoch >= old.epoch) {
				c.parts[p.Partition] = leader{epoch: p.LeaderEpoch, addr: brokers[p.Leader]}
			}
		}
	}
}

func (c *client) metadata(ctx context.Context, from string) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &c.topic
	req.Topics = append(req.Topics, t)
	return request[*kmsg.MetadataResponse](ctx, c, from, req, 2*time.Second)
}

// breathe is rest, but longer once the faults are over: what is to be seen then
// needs no haste.
func (w *World) breathe(ctx context.Context, d time.Duration) {
	if w.calm() {
		d *= 4
	}
	rest(ctx, d)
}

// rest waits for d or until ctx is done.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
