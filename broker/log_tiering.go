package broker

import (
	"context"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/batch"
)

// TieringLog makes the log of package tiering the Log of a Server.
func TieringLog(l *tiering.Log) Log { return tieringLog{l} }

type tieringLog struct{ log *tiering.Log }

func (t tieringLog) Admit(ctx context.Context, bytes int) (func(), error) {
	return t.log.Admit(ctx, bytes)
}

func (t tieringLog) Check(ctx context.Context, maxAge time.Duration) error {
	return t.log.Check(ctx, maxAge)
}

func (t tieringLog) Partition(tp metadata.TopicPartition) (Partition, error) {
	p, err := t.log.Partition(tp)
	if err != nil {
		return nil, err
	}
	return tieringPartition{p}, nil
}

func (t tieringLog) Await(ctx context.Context, tp metadata.TopicPartition) (Partition, error) {
	p, err := t.log.Await(ctx, tp)
	if err != nil {
		return nil, err
	}
	return tieringPartition{p}, nil
}

type tieringPartition struct{ *tiering.Partition }

func (p tieringPartition) Append(records []byte, h batch.Header, now int64, stamp bool) (Appended, error) {
	return appended(p.Partition.Append(records, h, now, stamp))
}

func (p tieringPartition) AppendTxn(records []byte, h batch.Header, now int64, stamp bool, guard *tiering.TxnGuard) (Appended, error) {
	return appended(p.Partition.AppendTxn(records, h, now, stamp, guard))
}

func (p tieringPartition) AppendMarker(m tiering.TxnMarker, now int64, stamp bool) (Appended, error) {
	return appended(p.Partition.AppendMarker(m, now, stamp))
}

func appended(a *tiering.Appended, err error) (Appended, error) {
	if err != nil {
		return Appended{}, err
	}
	return Appended{BaseOffset: a.BaseOffset, LogAppendTime: a.LogAppendTime, LogStart: a.LogStart, Duplicate: a.Duplicate, Commit: a}, nil
}
