package audit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

const listPage = 1000

func hashKey(key string) uint64 { return xxhash.Sum64String(key) }

// account tells whose object a key is. reason is why nothing accounts for it,
// empty when something does. now asks again, with everything read afresh.
type account func(ctx context.Context, key string, now bool) (reason, owner string, err error)

// walkBucket lists what lies in the bucket and finds what nothing accounts for.
func (a *auditor) walkBucket(ctx context.Context) error {
	for _, l := range []struct {
		prefix string
		of     account
	}{
		{"w/", a.accountSlot}, {"k/", a.accountCheckpoint}, {"m/", a.accountPage},
	} {
		if err := a.walkPrefix(ctx, l.prefix, l.of); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) walkPrefix(ctx context.Context, prefix string, of account) error {
	for after := ""; ; {
		var infos []object.Info
		var err error
		if e := a.request(ctx, func() { infos, err = a.listOnce(ctx, prefix, after) }); e != nil {
			return e
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		for i := range infos {
			if err := a.walkObject(ctx, &infos[i], of); err != nil {
				return err
			}
		}
		if len(infos) < listPage {
			return nil
		}
		after = infos[len(infos)-1].Key
	}
}

func (a *auditor) listOnce(ctx context.Context, prefix, after string) ([]object.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return a.store.List(ctx, prefix, after, listPage)
}

// walkObject accounts for one object. Before one counts as a problem it is
// looked at again: what accounts for it may have come, and it may have gone.
func (a *auditor) walkObject(ctx context.Context, o *object.Info, of account) error {
	a.out.add(func(t *Totals) { t.Objects++; t.ObjectBytes += o.Size })
	reason, owner, err := of(ctx, o.Key, false)
	if err != nil || reason == "" {
		return err
	}
	age := max(0, a.now().Sub(o.Modified))
	expired := age > a.cfg.Grace || a.cfg.Grace == 0
	if expired {
		if reason, owner, err = of(ctx, o.Key, true); err != nil || reason == "" {
			return err
		}
		_, err := a.store.Get(ctx, o.Key, 0, 1)
		if errors.Is(err, object.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	a.out.stray(reason, owner, o.Key, o.Size, age, expired)
	return nil
}

const strangeName = "object of no known name"

// parseSlot parses a key of the form p/<h2>/<inc>/<slot>.
func parseSlot(key string, keyOf func(metadata.Incarnation, uint64) string) (metadata.Incarnation, uint64, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 {
		return 0, 0, false
	}
	inc, err := metadata.ParseIncarnation(parts[2])
	if err != nil {
		return 0, 0, false
	}
	slot, err := strconv.ParseUint(parts[3], 16, 64)
	return inc, slot, err == nil && keyOf(inc, slot) == key
}

func (a *auditor) accountSlot(ctx context.Context, key string, now bool) (string, string, error) {
	inc, slot, ok := parseSlot(key, wal.SlotKey)
	if !ok {
		return strangeName, "w/", nil
	}
	owner := "chain " + inc.String()
	s, known, err := a.chains.known(ctx, inc)
	if err != nil {
		return "", "", err
	}
	if !known {
		return "slot of a chain without a key", owner, nil
	}
	for again := false; ; again = true {
		next, closed, chain, err := s.position(ctx)
		if err != nil {
			return "", "", err
		}
		reason := ""
		switch end := chain.End; {
		case slot < chain.Trim:
			reason = "slot below the trim mark"
		case end == nil && slot >= next:
			// A writer that lives is behind this; look how far it has come.
			reason = "slot beyond a free one"
		case end != nil && (slot > *end || slot == *end && closed):
			reason = "slot beyond the end"
		}
		if reason == "" || again || chain.End != nil && !now {
			return reason, owner, nil
		}
		if err := s.advance(ctx); err != nil && !errors.Is(err, metadata.ErrNoChain) {
			return "", "", err
		}
	}
}

func (a *auditor) accountCheckpoint(ctx context.Context, key string, now bool) (string, string, error) {
	inc, slot, ok := parseSlot(key, wal.CheckpointKey)
	if !ok {
		return strangeName, "k/", nil
	}
	owner := "chain " + inc.String()
	s, known, err := a.chains.known(ctx, inc)
	if err != nil {
		return "", "", err
	}
	if !known {
		return "checkpoint of a chain without a key", owner, nil
	}
	_, _, chain, err := s.position(ctx)
	if err == nil && chain.Checkpoint != slot && (now || chain.End == nil) {
		chain, _, err = metadata.LoadChain(ctx, a.kv, inc)
		if errors.Is(err, metadata.ErrNoChain) {
			return "checkpoint of a chain without a key", owner, nil
		}
	}
	switch {
	case err != nil:
		return "", "", err
	case slot < chain.Checkpoint:
		return "replaced checkpoint", owner, nil
	case slot > chain.Checkpoint:
		return "checkpoint that was not recorded", owner, nil
	}
	return "", "", nil
}

// accountPage parses m/<h2>/<topic>/<partition>/<epoch>-<number>.
func (a *auditor) accountPage(ctx context.Context, key string, now bool) (string, string, error) {
	parts := strings.Split(key, "/")
	if len(parts) != 5 {
		return strangeName, "m/", nil
	}
	tp, err := metadata.ParsePartitionKey(metadata.PrefixPartitions + parts[2] + "/" + parts[3])
	epochText, numberText, _ := strings.Cut(parts[4], "-")
	epoch, err1 := strconv.ParseUint(epochText, 16, 31)
	number, err2 := strconv.ParseUint(numberText, 10, 32)
	if err != nil || err1 != nil || err2 != nil || wal.PageKey(tp, int32(epoch), uint32(number)) != key {
		return strangeName, "m/", nil
	}
	if a.pages.has(key) || a.cfg.Topic != "" && a.topicName(tp.Topic) != a.cfg.Topic {
		return "", "", nil
	}
	_, there, err := a.partition(ctx, tp)
	if err != nil {
		return "", "", err
	}
	if !there {
		a.out.add(func(t *Totals) { t.DeletedTopicPages++ })
		return "", "", nil
	}
	if now {
		named, err := a.named(ctx, tp, key)
		if err != nil || named {
			return "", "", err
		}
	}
	return "page that no manifest names", "partition " + a.partitionName(tp), nil
}

// named reports whether the partition, rebuilt once more, names a page. One that
// cannot be rebuilt may name it.
func (a *auditor) named(ctx context.Context, tp metadata.TopicPartition, key string) (bool, error) {
	f := &findings{}
	v, err := a.rebuildOnce(ctx, tp, true, f)
	if err != nil {
		return false, err
	}
	if v == nil || v.state == nil {
		return true, nil
	}
	for _, p := range v.state.Pages {
		k := wal.PageKey(tp, p.Epoch, p.Number)
		a.pages.add(k) // the others need no look of their own
		if k == key {
			return true, nil
		}
	}
	return false, nil
}
