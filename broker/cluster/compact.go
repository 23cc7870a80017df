package cluster

import (
	"context"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

const (
	// compactEvery is how often the controller forgets history, and so how long
	// a watch that was cut off may take to resume without listing again.
	compactEvery = 5 * time.Minute
	// compactWorth is the least number of revisions worth a compaction.
	compactWorth   = 1000
	compactTimeout = 30 * time.Second
)

// compact keeps the history of the metadata store bounded, whoever runs it and
// however it is configured: every write of a group's offsets is a revision, and
// a store that never compacts fills up.
func (n *Node) compact(ctx context.Context) error {
	kv, ok := n.cfg.KV.(metadata.Compactor)
	if !ok {
		return nil
	}
	ticker := time.NewTicker(compactEvery)
	defer ticker.Stop()
	var sampled, compacted int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if c, ok := n.cfg.View.Controller(); !ok || c.Incarnation != n.cfg.Incarnation {
			sampled = 0
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, compactTimeout)
		_, now, err := n.cfg.KV.Get(bounded, metadata.KeyController)
		if err == nil && sampled-compacted >= compactWorth {
			if err = kv.Compact(bounded, sampled); err == nil {
				compacted = sampled
			}
		}
		cancel()
		if err != nil {
			n.log.Debug("history not compacted", keyError, err) // the next time will do
			continue
		}
		sampled = now
	}
}
