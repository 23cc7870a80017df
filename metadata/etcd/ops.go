package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tidemark-io/tidemark/metadata"
)

// compactionRetries is how often a read of several requests begins again when
// the revision it is pinned to is compacted under it.
const compactionRetries = 3

// Get implements metadata.KV.
func (k *KV) Get(ctx context.Context, keys ...string) ([]metadata.Entry, int64, error) {
	return k.pinned(func() ([]metadata.Entry, int64, error) {
		if len(keys) == 0 {
			_, rev, err := k.getChunk(ctx, []string{""}, 0)
			return nil, rev, err
		}
		var out []metadata.Entry
		var rev int64
		for chunk := range slices.Chunk(keys, metadata.MaxTxnOps) {
			entries, at, err := k.getChunk(ctx, chunk, rev)
			if err != nil {
				return nil, 0, err
			}
			if rev == 0 {
				rev = at
			}
			out = append(out, entries...)
		}
		return out, rev, nil
	})
}

// pinned calls f again when the revision it read at has been compacted.
func (k *KV) pinned(f func() ([]metadata.Entry, int64, error)) ([]metadata.Entry, int64, error) {
	for n := 0; ; n++ {
		entries, rev, err := f()
		if !errors.Is(err, metadata.ErrCompacted) {
			return entries, rev, err
		}
		if n == compactionRetries {
			// Compaction is no answer that readers know.
			return nil, 0, fmt.Errorf("%w: %w", metadata.ErrUnavailable, err)
		}
	}
}

// getChunk reads keys in one transaction, at revision rev unless that is 0.
func (k *KV) getChunk(ctx context.Context, keys []string, rev int64) (out []metadata.Entry, at int64, err error) {
	req := &pb.TxnRequest{Success: k.gets(keys, rev)}
	err = k.read(ctx, "get", func(ctx context.Context, m *member) error {
		resp, err := m.kv.Txn(ctx, req, callOptions...)
		if err != nil {
			return err
		}
		out, err = k.entries(keys, resp.Responses)
		at = resp.Header.Revision
		return err
	})
	return out, at, err
}

func (k *KV) gets(keys []string, rev int64) []*pb.RequestOp {
	ops := make([]*pb.RequestOp, len(keys))
	for i, key := range keys {
		ops[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
			RequestRange: &pb.RangeRequest{Key: k.key(key), Revision: rev},
		}}
	}
	return ops
}

func (k *KV) entries(keys []string, responses []*pb.ResponseOp) ([]metadata.Entry, error) {
	if len(responses) != len(keys) {
		return nil, fmt.Errorf("etcd answered %d reads with %d", len(keys), len(responses))
	}
	out := make([]metadata.Entry, len(keys))
	for i, r := range responses {
		out[i].Key = keys[i]
		if kvs := r.GetResponseRange().GetKvs(); len(kvs) > 0 {
			out[i] = k.entry(kvs[0])
		}
	}
	return out, nil
}

func (k *KV) entry(kv *mvccpb.KeyValue) metadata.Entry {
	return metadata.Entry{
		Key: strings.TrimPrefix(string(kv.Key), k.root), Value: kv.Value,
		CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Lease: metadata.LeaseID(kv.Lease),
	}
}

// Range implements metadata.KV. Its deadline is per page.
func (k *KV) Range(ctx context.Context, prefix string) ([]metadata.Entry, int64, error) {
	return k.pinned(func() ([]metadata.Entry, int64, error) { return k.rangePages(ctx, prefix) })
}

func (k *KV) rangePages(ctx context.Context, prefix string) (out []metadata.Entry, rev int64, err error) {
	full := k.key(prefix)
	req := &pb.RangeRequest{Key: full, RangeEnd: []byte(clientv3.GetPrefixRangeEnd(string(full))), Limit: pageEntries}
	for {
		var resp *pb.RangeResponse
		err := k.read(ctx, "range", func(ctx context.Context, m *member) (err error) {
			resp, err = m.kv.Range(ctx, req, callOptions...)
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			out = append(out, k.entry(kv))
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return out, rev, nil
		}
		last := resp.Kvs[len(resp.Kvs)-1].Key
		req = &pb.RangeRequest{Key: append(slices.Clone(last), 0), RangeEnd: req.RangeEnd, Limit: pageEntries, Revision: rev}
	}
}

// Txn implements metadata.KV.
func (k *KV) Txn(ctx context.Context, t metadata.Txn) (metadata.TxnResult, error) {
	if err := t.Validate(); err != nil {
		return metadata.TxnResult{}, err
	}
	req := k.txnRequest(t)
	var res metadata.TxnResult
	err := k.once(ctx, "txn", k.cfg.CallTimeout, func(ctx context.Context, m *member) error {
		resp, err := m.kv.Txn(ctx, req, callOptions...)
		if err != nil {
			return err
		}
		res = metadata.TxnResult{Succeeded: resp.Succeeded, Revision: resp.Header.Revision}
		if resp.Succeeded {
			return nil
		}
		if res.Else, err = k.entries(t.Else, resp.Responses); err != nil {
			return err
		}
		return errConflict
	})
	if err != nil {
		return metadata.TxnResult{}, err
	}
	return res, nil
}

func (k *KV) txnRequest(t metadata.Txn) *pb.TxnRequest {
	req := &pb.TxnRequest{Failure: k.gets(t.Else, 0)}
	for _, c := range t.If {
		req.Compare = append(req.Compare, &pb.Compare{
			Result: pb.Compare_EQUAL, Target: pb.Compare_MOD, Key: k.key(c.Key),
			TargetUnion: &pb.Compare_ModRevision{ModRevision: c.ModRevision},
		})
	}
	for _, op := range t.Then {
		req.Success = append(req.Success, k.requestOp(op))
	}
	return req
}

func (k *KV) requestOp(op metadata.Op) *pb.RequestOp {
	key := k.key(op.Key)
	if !op.Delete {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: key, Value: op.Value, Lease: int64(op.Lease)},
		}}
	}
	del := &pb.DeleteRangeRequest{Key: key}
	if op.Prefix {
		del.RangeEnd = []byte(clientv3.GetPrefixRangeEnd(string(key)))
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: del}}
}

// Compact implements metadata.Compactor. Revisions are etcd's, so this forgets
// the history of everything else in it too.
func (k *KV) Compact(ctx context.Context, rev int64) error {
	err := k.once(ctx, "compact", k.cfg.CallTimeout, func(ctx context.Context, m *member) error {
		_, err := m.kv.Compact(ctx, &pb.CompactionRequest{Revision: rev}, callOptions...)
		return err
	})
	if errors.Is(err, metadata.ErrCompacted) {
		return nil
	}
	return err
}

// Grant implements metadata.KV. etcd counts in seconds; ttl is rounded up.
func (k *KV) Grant(ctx context.Context, ttl time.Duration) (id metadata.LeaseID, err error) {
	seconds := int64((ttl + time.Second - 1) / time.Second)
	err = k.once(ctx, "grant", k.cfg.CallTimeout, func(ctx context.Context, m *member) error {
		resp, err := m.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: seconds}, callOptions...)
		if err != nil {
			return err
		}
		id = metadata.LeaseID(resp.ID)
		return nil
	})
	return id, err
}

// Revoke implements metadata.KV.
func (k *KV) Revoke(ctx context.Context, id metadata.LeaseID) error {
	err := k.once(ctx, "revoke", k.cfg.CallTimeout, func(ctx context.Context, m *member) error {
		_, err := m.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: int64(id)}, callOptions...)
		return err
	})
	if errors.Is(err, metadata.ErrLeaseNotFound) {
		return nil
	}
	return err
}
