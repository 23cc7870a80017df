package coordinator

import (
	"context"
	"log/slog"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

// sweep removes what has expired from every active shard: offsets past their
// retention, offsets of deleted topics, and groups of which nothing is left. It
// looks in memory and asks the store only about topics that seem gone.
func (c *Coordinator) sweep() {
	if !c.sweeping.CompareAndSwap(false, true) {
		return // the last one is not done
	}
	defer c.sweeping.Store(false)
	for i := range c.shards {
		if c.draining.Load() || c.life.ctx.Err() != nil {
			return
		}
		c.shards[i].sweep(c.life.ctx)
	}
}

func (sh *shard) sweep(ctx context.Context) {
	sh.expireTxns(time.Now())
	gone, ok := sh.goneTopics(ctx)
	if !ok {
		return
	}
	for _, id := range sh.groupIDs() {
		if cm := sh.expireOffsets(id, gone); cm != nil {
			<-cm.done
		}
		sh.deleteIfVacant(id)
	}
}

func (sh *shard) groupIDs() []string {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	ids := make([]string, 0, len(sh.groups))
	for id := range sh.groups {
		ids = append(ids, id)
	}
	return ids
}

// goneTopics returns the topics with offsets that the store says do not exist.
// The view alone may merely be behind; the store cannot be, because a topic is
// there before the first commit for it, and its id is never used again.
func (sh *shard) goneTopics(ctx context.Context) (map[metadata.TopicID]bool, bool) {
	missing := map[metadata.TopicID]bool{}
	sh.mu.Lock()
	for _, e := range sh.groups {
		for id := range e.chunks {
			if _, known := sh.c.cfg.View.TopicByID(id.topic); !known {
				missing[id.topic] = true
			}
		}
	}
	sh.mu.Unlock()
	gone := map[metadata.TopicID]bool{}
	for id := range missing {
		getCtx, cancel := context.WithTimeout(ctx, sh.c.cfg.AttemptTimeout)
		entries, _, err := sh.c.cfg.KV.Get(getCtx, metadata.TopicKey(id))
		cancel()
		if err != nil {
			sh.c.log.Warn("could not look for deleted topics", slog.Any(logError, err))
			return nil, false
		}
		if !entries[0].Exists() {
			gone[id] = true
		}
	}
	return gone, true
}

// expireOffsets queues the removal of a group's expired offsets.
func (sh *shard) expireOffsets(id string, gone map[metadata.TopicID]bool) *commit {
	now := time.Now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, err := sh.find(id)
	// An undecided commit may be about to replace what looks expired.
	if e == nil || err != nil || e.dead() || e.outstanding > 0 {
		return nil
	}
	var changes []change
	n := 0
	for cid, ch := range e.chunks {
		topic, known := sh.c.cfg.View.TopicByID(cid.topic)
		parts := map[int32]edit{}
		for p, at := range ch.parts {
			o := at.offset
			// What a transaction is about to change is in use.
			old := known && o != nil && len(at.pending) == 0 &&
				e.machine().OffsetExpired(now, topic.Name, o.at, o.expires, sh.c.cfg.OffsetsRetention)
			if gone[cid.topic] || old {
				parts[p] = edit{}
			}
		}
		if len(parts) > 0 {
			changes = append(changes, change{id: cid, parts: parts})
			n += len(parts)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	cm, err := sh.submit(e, changes)
	if err != nil {
		return nil
	}
	sh.c.metrics.offsetsGone.Add(float64(n))
	return cm
}

// deleteIfVacant deletes a group without members and offsets, as Kafka does.
func (sh *shard) deleteIfVacant(id string) {
	sh.mu.Lock()
	e, err := sh.find(id)
	if e == nil || err != nil || !e.machine().Vacant() || e.dead() ||
		len(e.chunks) > 0 || e.outstanding > 0 || e.writing || e.queued != nil || e.changed {
		sh.mu.Unlock()
		return
	}
	done, err := sh.delete(e)
	sh.mu.Unlock()
	if err == nil {
		if err = <-done; err == nil {
			sh.c.log.Debug("deleted a group without members and offsets", slog.String(logGroup, id))
		}
	}
}
