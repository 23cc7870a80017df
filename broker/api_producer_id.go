package broker

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// producerIDBlock is how many producer ids are reserved at a time, as in Kafka.
// What is left of a block when the broker stops is never used.
const producerIDBlock = 1000

// producerIDs hands out producer ids from blocks reserved in the metadata store.
type producerIDs struct {
	admin Admin

	// mu guards next and end: ids in [next, end) are ours to give. refill is
	// held by whoever reserves the next block, so that one does.
	mu        sync.Mutex
	next, end int64
	refill    chan struct{}
}

func newProducerIDs(admin Admin) *producerIDs {
	return &producerIDs{admin: admin, refill: make(chan struct{}, 1)}
}

func (p *producerIDs) take() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == p.end {
		return 0, false
	}
	p.next++
	return p.next - 1, true
}

// get returns an id that nobody else gets.
func (p *producerIDs) get(ctx context.Context) (int64, error) {
	for {
		if id, ok := p.take(); ok {
			return id, nil
		}
		select {
		case p.refill <- struct{}{}:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		err := p.reserve(ctx)
		<-p.refill
		if err != nil {
			return 0, err
		}
	}
}

func (p *producerIDs) reserve(ctx context.Context) error {
	p.mu.Lock()
	stocked := p.next < p.end // by whoever held refill before us
	p.mu.Unlock()
	if stocked {
		return nil
	}
	first, err := p.admin.AllocateProducerIDs(ctx, producerIDBlock)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.next, p.end = first, first+producerIDBlock
	p.mu.Unlock()
	return nil
}

// initProducerID gives an idempotent producer a new id. Without a transactional
// id nothing ties the caller to the id it had, so a request that names one, to
// recover from an error (KIP-360), gets a new one as well, as in Kafka.
func (s *Server) initProducerID(ctx context.Context, r *Request, req *kmsg.InitProducerIDRequest) kmsg.Response {
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	id, err := s.newProducerID(ctx, req)
	if err != nil {
		resp.ErrorCode = r.code(err)
		return resp
	}
	resp.ProducerID, resp.ProducerEpoch = id, 0
	return resp
}

func (s *Server) newProducerID(ctx context.Context, req *kmsg.InitProducerIDRequest) (int64, error) {
	switch {
	case req.TransactionalID != nil && *req.TransactionalID == "":
		return 0, refuse(kerr.InvalidRequest, "the transactional id is empty")
	case req.TransactionalID != nil:
		return 0, errNoTransactions
	case req.Version >= 3 && (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		return 0, refuse(kerr.InvalidRequest, "a producer id needs an epoch, and an epoch a producer id")
	}
	return s.pids.get(ctx)
}
