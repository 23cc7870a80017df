package coordinator

import (
	"context"
	"log/slog"
	"time"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
)

// markerPauseMax bounds the pause before markers are sent again: readers of
// committed records wait for them.
const markerPauseMax = 500 * time.Millisecond

var offsetsTopicID = metadata.InternalTopicID(metadata.OffsetsTopic)

// complete brings a prepared transaction to its end: markers in every partition,
// then the state that says so. It goes on until that is done or the shard is
// somebody else's, who does the same from the start.
func (sh *shard) complete(term uint64, e *txnEntry, t *txn.Txn) {
	if sh.c.cfg.Peers == nil {
		return
	}
	ctx := sh.c.life.ctx
	began := time.Now()
	left := make([]metadata.TopicPartition, 0, len(t.Partitions))
	for tp := range t.Partitions {
		left = append(left, tp)
	}
	for attempt := 0; len(left) > 0; attempt++ {
		if attempt > 0 && !pauseUpTo(ctx, attempt, markerPauseMax) {
			return
		}
		epoch, ok := sh.coordinates(term)
		if !ok {
			return
		}
		if attempt == markerAttemptsQuiet {
			sh.c.log.Warn("a transaction is still not ended everywhere", slog.String(logTxn, e.id),
				slog.Int64(logProducer, t.Producer.ID), slog.Int("partitions", len(left)))
		}
		if failpoint.Hit(failpoint.TxnPrepared) != nil {
			continue
		}
		left = sh.c.markers.send(ctx, marker{producer: t.Producer, epoch: epoch, commit: t.State.Commits(), version: t.Version}, left)
	}
	sh.storeComplete(ctx, term, e, t)
	sh.c.metrics.txnComplete.Observe(time.Since(began).Seconds())
}

// markerAttemptsQuiet is how often markers are sent again before somebody is told.
const markerAttemptsQuiet = 20

func (sh *shard) storeComplete(ctx context.Context, term uint64, e *txnEntry, t *txn.Txn) {
	for attempt := 0; ; attempt++ {
		if failpoint.Hit(failpoint.TxnMarked) != nil && pause(ctx, attempt) {
			continue
		}
		sh.mu.Lock()
		if sh.term != term || sh.txns[e.id] != e || e.t != t || e.busy != nil {
			sh.mu.Unlock() // of a prepared transaction only this is ever written
			return
		}
		done := sh.putTxn(e, t.Complete(time.Now()))
		sh.mu.Unlock()
		if err := <-done; err == nil || !pause(ctx, attempt) {
			return
		}
	}
}

// coordinates returns the epoch in which this broker coordinates the shard, which
// goes into markers, if it still does as in that term.
func (sh *shard) coordinates(term uint64) (int32, bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.epoch, sh.term == term && sh.state == shardActive
}
