// Package etcdproxy stands before one member of an etcd and keeps answers to
// itself.
//
// It is a gRPC proxy that knows methods. A rule picks calls of one method; what
// it picks is carried out by etcd, and the caller is told that the connection
// broke, or nothing until its own deadline: it cannot know. Calls can be refused
// undelivered as well, and watches cut. Of the calls whose answers were lost the
// proxy counts those that did change something, for only they put the caller to
// the test.
package etcdproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The methods that matter.
const (
	Txn        = "/etcdserverpb.KV/Txn"
	Put        = "/etcdserverpb.KV/Put"
	Delete     = "/etcdserverpb.KV/DeleteRange"
	Range      = "/etcdserverpb.KV/Range"
	LeaseGrant = "/etcdserverpb.Lease/LeaseGrant"
	KeepAlive  = "/etcdserverpb.Lease/LeaseKeepAlive"
	Watch      = "/etcdserverpb.Watch/Watch"
)

// Action is what happens to a call.
type Action int

const (
	// LoseAnswer lets etcd do it and breaks the call instead of answering.
	LoseAnswer Action = iota
	// HangAnswer lets etcd do it and answers nothing; the caller's deadline ends it.
	HangAnswer
	// Refuse breaks the call before etcd sees it.
	Refuse
)

// Rule picks calls.
type Rule struct {
	Method string
	Action Action
	// Probability that a call of the method is hit; 0 means always.
	Probability float64
	// Writes narrows the rule to calls that ask for a write.
	Writes bool
	// Count is the most hits; 0: any number.
	Count int
}

// Counts tells what a rule did. Written is how many of the calls whose answer
// was lost had changed something.
type Counts struct{ Seen, Hit, Written int }

// Active is a rule at work.
type Active struct {
	rule   Rule
	proxy  *Proxy
	counts Counts // guarded by proxy.mu
}

// Proxy is one listener before one member. Use New and Close.
type Proxy struct {
	listener net.Listener
	server   *grpc.Server
	member   *grpc.ClientConn
	running  sync.WaitGroup

	mu      sync.Mutex // guards what follows
	rules   []*Active
	random  *rand.Rand
	watches map[*call]struct{}
}

// call is a stream of the proxy's that can be ended.
type call struct{ cancel context.CancelCauseFunc }

var errCut = errors.New("cut")

// messageMax admits what etcd and its clients send to each other.
const messageMax = 1 << 30

// applyTimeout bounds a call whose answer is going to be lost.
const applyTimeout = 30 * time.Second

// New listens at addr before the member at target, a host and port.
func New(addr, target string, seed uint64) (*Proxy, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("proxy before etcd: %w", err)
	}
	member, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(messageMax), grpc.MaxCallSendMsgSize(messageMax)),
		// A member that hangs must look to its clients as if they were
		// connected themselves, and a member that is back be found at once. As
		// their connections, it pings only while something is asked: etcd closes
		// those that ping when idle.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 6 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: 300 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		}))
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("proxy before etcd: %w", err)
	}
	p := &Proxy{listener: l, member: member, random: rand.New(rand.NewPCG(seed, 3)), watches: make(map[*call]struct{})}
	p.server = grpc.NewServer(
		grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(p.handle), grpc.WaitForHandlers(true),
		grpc.MaxRecvMsgSize(messageMax), grpc.MaxSendMsgSize(messageMax),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))
	p.running.Go(func() { _ = p.server.Serve(l) }) // ends with Close
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close ends every call and waits for all goroutines.
func (p *Proxy) Close() {
	p.server.Stop()
	_ = p.member.Close()
	p.running.Wait()
}

// Add puts a rule to work. The first rule that picks a call has it.
func (p *Proxy) Add(r Rule) *Active {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := &Active{rule: r, proxy: p}
	p.rules = append(p.rules, a)
	return a
}

// Remove ends the rule.
func (a *Active) Remove() {
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	a.proxy.rules = slices.DeleteFunc(a.proxy.rules, func(b *Active) bool { return a == b })
}

// Counts returns the counts so far.
func (a *Active) Counts() Counts {
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	return a.counts
}

// CutWatches breaks every watch, and returns how many.
func (p *Proxy) CutWatches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.watches {
		c.cancel(errCut)
	}
	return len(p.watches)
}

// pick returns the rule that has the call, or nil.
func (p *Proxy) pick(method string, request []byte) *Active {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.rules {
		if a.rule.Method != method || a.rule.Writes && !asksToWrite(method, request) {
			continue
		}
		a.counts.Seen++
		if a.rule.Count > 0 && a.counts.Hit >= a.rule.Count || a.rule.Probability > 0 && p.random.Float64() >= a.rule.Probability {
			continue
		}
		a.counts.Hit++
		return a
	}
	return nil
}

func (a *Active) lost(wrote bool) {
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	if wrote {
		a.counts.Written++
	}
}

// broken is what a client sees when its connection breaks under a call.
var broken = status.Error(codes.Unavailable, "error reading from server: EOF")

// handle carries one call, of whatever kind, both ways.
func (p *Proxy) handle(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	ctx, cancel := context.WithCancelCause(in.Context())
	defer cancel(nil)
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md.Copy())
	}
	if method == Watch {
		c := &call{cancel}
		p.mu.Lock()
		p.watches[c] = struct{}{}
		p.mu.Unlock()
		defer func() { p.mu.Lock(); delete(p.watches, c); p.mu.Unlock() }()
	}
	first := &message{}
	if err := in.RecvMsg(first); err != nil {
		return ended(err)
	}
	rule := p.pick(method, first.data)
	if rule != nil && rule.rule.Action == Refuse {
		return broken
	}
	if rule != nil { // what is to be applied must not depend on the caller's patience
		var end context.CancelFunc
		ctx, end = context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
		defer end()
	}
	out, err := p.member.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	if err := out.SendMsg(first); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	p.running.Go(func() { // ends with the call, which ends with this function
		for {
			m := &message{}
			if in.RecvMsg(m) != nil {
				_ = out.CloseSend()
				return
			}
			if out.SendMsg(m) != nil {
				return
			}
		}
	})
	if rule != nil {
		return rule.lose(in.Context(), method, first.data, out)
	}
	return back(ctx, in, out)
}

// lose takes the answer and does not pass it on.
func (a *Active) lose(caller context.Context, method string, request []byte, out grpc.ClientStream) error {
	m := &message{}
	if err := out.RecvMsg(m); err != nil {
		return ended(err)
	}
	a.lost(wrote(method, request, m.data))
	if a.rule.Action == HangAnswer {
		<-caller.Done()
	}
	return broken
}

// back carries what the member answers.
func back(ctx context.Context, in grpc.ServerStream, out grpc.ClientStream) error {
	header, err := out.Header()
	if err == nil {
		err = in.SetHeader(header)
	}
	for err == nil {
		m := &message{}
		if err = out.RecvMsg(m); err == nil {
			err = in.SendMsg(m)
		}
	}
	in.SetTrailer(out.Trailer())
	if errors.Is(context.Cause(ctx), errCut) {
		return broken
	}
	return ended(err)
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
