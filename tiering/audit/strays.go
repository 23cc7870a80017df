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
	"github.com/tidemark-io/tidemark/tiering"
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
	swept := a.cfg.SweepGrace
	for _, l := range []struct {
		prefix string
		grace  time.Duration
		of     account
	}{
		{"w/", a.cfg.Grace, a.accountSlot}, {"k/", a.cfg.Grace, a.accountCheckpoint},
		{"s/", swept, a.accountNamed}, {"x/", swept, a.accountShared}, {"m/", swept, a.accountNamed},
	} {
		if err := a.walkPrefix(ctx, l.prefix, l.grace, l.of); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) walkPrefix(ctx context.Context, prefix string, grace time.Duration, of account) error {
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
			if err := a.walkObject(ctx, &infos[i], grace, of); err != nil {
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
func (a *auditor) walkObject(ctx context.Context, o *object.Info, grace time.Duration, of account) error {
	a.out.add(func(t *Totals) { t.Objects++; t.ObjectBytes += o.Size })
	reason, owner, err := of(ctx, o.Key, false)
	if reason == owedReason {
		a.out.add(func(t *Totals) { t.OwedObjects++; t.OwedBytes += o.Size })
		return err
	}
	if err != nil || reason == "" {
		return err
	}
	age := max(0, a.now().Sub(o.Modified))
	expired := age > grace || grace == 0
	if expired {
		if reason, owner, err = of(ctx, o.Key, true); err != nil || reason == "" {
			return err
		}
		if reason == owedReason {
			a.out.add(func(t *Totals) { t.OwedObjects++; t.OwedBytes += o.Size })
			return nil
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

// owedReason is that of an object which deletion owes: no stray.
const owedReason = "of a deleted topic, or below a log start"

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

// accountNamed accounts for segments of one partition and for manifest pages.
func (a *auditor) accountNamed(ctx context.Context, key string, now bool) (string, string, error) {
	what := "segment"
	tp, s, ok := wal.ParseSegmentKey(key)
	if !ok {
		what = "page"
		tp, _, _, ok = wal.ParsePageKey(key)
	}
	if !ok {
		return strangeName, key[:2], nil
	}
	if a.named.has(key) || a.cfg.Topic != "" && a.topicName(tp.Topic) != a.cfg.Topic {
		return "", "", nil
	}
	_, there, err := a.partition(ctx, tp)
	if err != nil {
		return "", "", err
	}
	if !there {
		return owedReason, "", nil
	}
	if now {
		named, err := a.namedNow(ctx, tp, key)
		if err != nil || named {
			return "", "", err
		}
	}
	if start := a.named.start(tp); start > 0 {
		below := s.Base < start
		if what == "page" {
			if below, err = a.pageBelow(ctx, key, start); err != nil {
				return "", "", err
			}
		}
		if below {
			return owedReason, "", nil
		}
	}
	return what + " that no manifest names", "partition " + a.partitionName(tp), nil
}

// accountShared accounts for shared segments, for which all partitions must have
// been walked through.
func (a *auditor) accountShared(ctx context.Context, key string, now bool) (string, string, error) {
	inc, _, ok := wal.ParseSharedKey(key)
	if !ok {
		return strangeName, "x/", nil
	}
	if a.named.has(key) || a.cfg.Topic != "" {
		return "", "", nil
	}
	var sections []wal.Section
	var err error
	if e := a.request(ctx, func() { sections, err = a.inspector.SharedSections(ctx, key) }); e != nil {
		return "", "", e
	}
	if err != nil && (unanswered(ctx, err) || errors.Is(err, tiering.ErrDataLoss)) {
		if errors.Is(err, tiering.ErrDataLoss) {
			err = nil // deleted meanwhile
		}
		return "", "", err
	}
	owed := len(sections) > 0
	for i := range sections {
		tp := sections[i].Partition
		if _, there, err := a.partition(ctx, tp); err != nil || !there {
			if err != nil {
				return "", "", err
			}
			continue
		}
		if now {
			if named, err := a.namedNow(ctx, tp, key); err != nil || named {
				return "", "", err
			}
		}
		owed = owed && sections[i].Last() < a.named.start(tp)
	}
	if owed {
		return owedReason, "", nil
	}
	return "segment that no manifest names", "chain " + inc.String(), nil
}

// pageBelow reports whether a page names nothing from start on. One that cannot
// be read is not owed by anybody.
func (a *auditor) pageBelow(ctx context.Context, key string, start int64) (below bool, err error) {
	var last int64
	if e := a.request(ctx, func() { last, err = a.inspector.PageLast(ctx, key) }); e != nil {
		return false, e
	}
	if err != nil && unanswered(ctx, err) {
		return false, err
	}
	return err == nil && last < start, nil
}

// namedNow reports whether the partition, rebuilt once more, names a segment or a
// page. One that cannot be rebuilt may name it.
func (a *auditor) namedNow(ctx context.Context, tp metadata.TopicPartition, key string) (bool, error) {
	f := &findings{}
	v, err := a.rebuildOnce(ctx, tp, true, f)
	if err != nil {
		return false, err
	}
	if v == nil || v.state == nil {
		return true, nil
	}
	note := func(segments []wal.SegmentRef) { // the others need no look of their own
		for i := range segments {
			if segments[i].Last < v.state.LogStart {
				continue
			}
			a.named.add(wal.SegmentKey(tp, &segments[i]))
		}
	}
	for _, p := range v.state.AbortedPages {
		a.named.add(wal.PageKey(tp, p.Epoch, p.Number))
	}
	for _, p := range v.state.Pages {
		a.named.add(wal.PageKey(tp, p.Epoch, p.Number))
	}
	for _, p := range v.state.SegmentPages {
		a.named.add(wal.PageKey(tp, p.Epoch, p.Number))
		var refs []wal.SegmentRef
		if e := a.request(ctx, func() { refs, err = a.inspector.SegmentPage(ctx, tp, p) }); e != nil {
			return false, e
		}
		if err != nil {
			return true, nil // said when the partition was walked through
		}
		note(refs)
	}
	note(v.state.Segments)
	a.named.begins(tp, v.state.LogStart)
	return a.named.has(key), nil
}
