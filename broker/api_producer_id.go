package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// initProducerID gives an idempotent producer a new id. Without a transactional
// id nothing ties the caller to the id it had, so a request that names one, to
// recover from an error (KIP-360), gets a new one as well, as in Kafka. One with
// a transactional id is for its coordinator.
func (s *Server) initProducerID(ctx context.Context, r *Request, req *kmsg.InitProducerIDRequest) kmsg.Response {
	if id := req.TransactionalID; id != nil && *id != "" && s.cfg.Transactions != nil {
		resp := s.cfg.Transactions.InitProducerID(ctx, *r.Client, req)
		r.note(resp.ErrorCode)
		return resp
	}
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
	return s.pids.Get(ctx)
}
