package etcdproxy

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// message is one message, undecoded.
type message struct{ data []byte }

// raw carries messages as they are. It goes by the name of what they are in.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*message).data)}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	v.(*message).data = data.Materialize()
	return nil
}

// asksToWrite tells whether a request may change a key.
func asksToWrite(method string, request []byte) bool {
	switch method {
	case Put, Delete, LeaseGrant:
		return true
	case Txn:
		var req pb.TxnRequest
		return proto.Unmarshal(request, &req) == nil && (writes(req.Success) || writes(req.Failure))
	}
	return false
}

// wrote tells whether a request did, by its answer.
func wrote(method string, request, answer []byte) bool {
	if method != Txn {
		return asksToWrite(method, request)
	}
	var req pb.TxnRequest
	var resp pb.TxnResponse
	if proto.Unmarshal(request, &req) != nil || proto.Unmarshal(answer, &resp) != nil {
		return false
	}
	if resp.Succeeded {
		return writes(req.Success)
	}
	return writes(req.Failure)
}

func writes(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		if op.GetRequestPut() != nil || op.GetRequestDeleteRange() != nil {
			return true
		}
		if t := op.GetRequestTxn(); t != nil && (writes(t.Success) || writes(t.Failure)) {
			return true
		}
	}
	return false
}
