package coordinator

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"time"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/metadata"
)

// startLoad begins to load the shard. void first makes sure that no write from
// before can still be applied.
func (sh *shard) startLoad(void bool) {
	sh.term++
	sh.state = shardLoading
	term := sh.term
	if !sh.c.spawn(func() { sh.load(term, void) }) {
		sh.state = shardNone
	}
}

// load tries until the shard is loaded, is not ours, or not wanted any more.
func (sh *shard) load(term uint64, void bool) {
	ctx := sh.c.life.ctx
	began := time.Now()
	for attempt := 0; ; attempt++ {
		rev, l, err := sh.read(ctx, void)
		if err == nil || errors.Is(err, errFenced) {
			sh.c.metrics.loads.WithLabelValues(outcomeLabel(err)).Inc()
			sh.loaded(term, rev, l, err == nil, time.Since(began))
			return
		}
		sh.c.metrics.loads.WithLabelValues("error").Inc()
		sh.c.log.Warn("could not load a coordinator shard yet", slog.Int(logShard, sh.id), slog.Any(logError, err))
		if !pause(ctx, attempt) || !sh.loading(term) {
			return
		}
	}
}

func (sh *shard) loading(term uint64) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.term == term && sh.state == shardLoading
}

// loaded makes what was loaded count, or with ours false notes that the shard has
// another coordinator at rev.
func (sh *shard) loaded(term uint64, rev int64, l *loader, ours bool, took time.Duration) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.term != term || sh.state != shardLoading {
		return
	}
	defer sh.c.poke() // the view may have moved on meanwhile
	if !ours {
		sh.state, sh.floor = shardNone, max(sh.floor, rev)
		return
	}
	sh.state, sh.rev, sh.epoch, sh.groups, sh.txns = shardActive, rev, l.epoch, l.entries, l.txns
	sh.pending = newPendings()
	sh.pending.load(sh.groups)
	for _, e := range sh.groups {
		sh.arm(e)
	}
	for _, e := range sh.txns {
		sh.follow(e)
	}
	sh.c.mirror.began(sh)
	sh.c.metrics.loadTime.Observe(took.Seconds())
	sh.c.log.Debug("coordinator shard loaded", slog.Int(logShard, sh.id), slog.Int64(logRevision, rev),
		slog.Int(logGroups, len(l.entries)), slog.Int(logTxns, len(l.txns)), slog.Duration(logTook, took))
}

// read reads the shard's groups and transactions. Whatever it finds is final but for our own
// writes, because the shard key is read first: later writes of others are void.
func (sh *shard) read(ctx context.Context, void bool) (int64, *loader, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	rev, epoch, err := sh.claim(ctx, void)
	if err != nil {
		return rev, nil, err
	}
	groups, groupsRev, err := sh.c.cfg.KV.Range(ctx, groupsPrefix(sh.id))
	if err != nil {
		return 0, nil, fmt.Errorf("read groups: %w", err)
	}
	offsets, _, err := sh.c.cfg.KV.Range(ctx, offsetsPrefix(sh.id))
	if err != nil {
		return 0, nil, fmt.Errorf("read offsets: %w", err)
	}
	txns, _, err := sh.c.cfg.KV.Range(ctx, txnsPrefix(sh.id))
	if err != nil {
		return 0, nil, fmt.Errorf("read transactions: %w", err)
	}
	// The groups were made under topics that are no newer than these.
	if err := sh.c.cfg.View.WaitRevision(ctx, groupsRev); err != nil {
		return 0, nil, fmt.Errorf("wait for the view: %w", err)
	}
	img := sh.c.image()
	l := &loader{sh: sh, epoch: epoch, now: time.Now(), entries: map[string]*entry{}, img: img, match: matcher(img)}
	l.loadGroups(groups)
	l.loadOffsets(offsets)
	l.txns = sh.loadTxns(txns)
	return rev, l, nil
}

// loadTimeout bounds one attempt to read a shard: thousands of groups in pages.
const loadTimeout = 30 * time.Second

// claim returns the revision of the shard key and its epoch, if it names us. With void the key
// is first written again: a write begun under an older revision fails from
// then on, however late it arrives.
func (sh *shard) claim(ctx context.Context, void bool) (rev int64, epoch int32, err error) {
	key := metadata.CoordinatorKey(sh.id)
	for attempt := 0; ; attempt++ {
		entries, _, err := sh.c.cfg.KV.Get(ctx, key)
		if err != nil {
			return 0, 0, fmt.Errorf("read %s: %w", key, err)
		}
		e := entries[0]
		var owner metadata.Coordinator
		if e.Exists() {
			if err := json.Unmarshal(e.Value, &owner); err != nil {
				return 0, 0, fmt.Errorf("decode %s: %w", key, err)
			}
		}
		if owner.Incarnation != sh.c.cfg.Incarnation {
			return e.ModRevision, 0, errFenced
		}
		if !void {
			return e.ModRevision, owner.Epoch, nil
		}
		res, err := sh.c.cfg.KV.Txn(ctx, metadata.Txn{
			If:   []metadata.Cond{{Key: key, ModRevision: e.ModRevision}},
			Then: []metadata.Op{metadata.Put(key, e.Value)},
		})
		if err == nil && res.Succeeded {
			return res.Revision, owner.Epoch, nil
		}
		if err != nil && !isAmbiguous(err) {
			return 0, 0, fmt.Errorf("renew %s: %w", key, err)
		}
		if !pause(ctx, attempt) {
			return 0, 0, fmt.Errorf("renew %s: %w", key, errors.Join(err, ctx.Err()))
		}
	}
}

// loader turns keys into entries.
type loader struct {
	sh      *shard
	now     time.Time
	epoch   int32
	entries map[string]*entry
	txns    map[string]*txnEntry
	img     *consumer.Image
	match   func(regex string) consumer.Matches
}

func (l *loader) entry(id string) *entry {
	e := l.entries[id]
	if e == nil {
		e = l.sh.newEntry(group.New(id, &l.sh.c.cfg.Group, l.now))
		l.entries[id] = e
	}
	return e
}

// unreadable keeps a broken group from being served or overwritten.
func (l *loader) unreadable(id, key string, err error) {
	l.sh.c.log.Error("a stored group cannot be read and is not served", slog.Int(logShard, l.sh.id),
		slog.String(logGroup, id), slog.String(logKey, key), slog.Any(logError, err))
	e := l.sh.newEntry(group.New(id, &l.sh.c.cfg.Group, l.now))
	e.corrupt = true
	e.stored.header = 1 // known to be there, not known well enough to be written
	l.entries[id] = e
}

// storedGroup are the keys of one group.
type storedGroup struct {
	header metadata.Entry
	parts  map[uint64][]metadata.Entry // by number, in part order
}

func (l *loader) loadGroups(entries []metadata.Entry) {
	found := map[string]*storedGroup{}
	for _, en := range entries {
		k, err := parseGroupKey(l.sh.id, en.Key)
		if err != nil {
			l.sh.c.log.Error("unknown key among groups", slog.String(logKey, en.Key), slog.Any(logError, err))
			continue
		}
		g := found[k.id]
		if g == nil {
			g = &storedGroup{parts: map[uint64][]metadata.Entry{}}
			found[k.id] = g
		}
		if k.member {
			g.parts[k.n] = append(g.parts[k.n], en)
		} else {
			g.header = en
		}
	}
	for id, g := range found {
		if err := l.loadGroup(id, g); err != nil {
			l.unreadable(id, g.header.Key, err)
		}
	}
}

func (l *loader) loadGroup(id string, sg *storedGroup) error {
	e := l.entry(id)
	e.stored = stored{next: 1, members: map[string]memberRef{}}
	if sg.header.Exists() {
		if err := l.loadHeader(e, sg); err != nil {
			return err
		}
	}
	// What is left no header names: a write that never came to its end, or
	// whose clean-up did not.
	for n, parts := range sg.parts {
		e.stored.next = max(e.stored.next, n+1)
		e.stored.garbage = append(e.stored.garbage, memberRef{n: n, parts: lastPart(l.sh.id, parts) + 1})
	}
	sort.Slice(e.stored.garbage, func(i, j int) bool { return e.stored.garbage[i].n < e.stored.garbage[j].n })
	return nil
}

func lastPart(shard int, parts []metadata.Entry) int {
	k, err := parseGroupKey(shard, parts[len(parts)-1].Key)
	if err != nil {
		return len(parts) - 1
	}
	return k.part
}

func (l *loader) loadHeader(e *entry, sg *storedGroup) error {
	var h storedHeader
	if err := json.Unmarshal(sg.header.Value, &h); err != nil {
		return fmt.Errorf("decode header: %w", err)
	}
	e.stored.header, e.stored.next = sg.header.ModRevision, max(h.Next, 1)
	switch h.Format {
	case storedFormat:
		return l.loadClassic(e, &h, sg)
	case consumerFormat:
		return l.loadConsumer(e, &h, sg)
	}
	return fmt.Errorf("header has format %d, neither %d nor %d", h.Format, storedFormat, consumerFormat)
}

// loadMembers calls f with the value of each member that the header names; f
// returns the member's id, and itself if it is a value that does not change.
func (l *loader) loadMembers(e *entry, h *storedHeader, sg *storedGroup, f func(value []byte) (string, *consumer.Member, error)) error {
	for _, m := range h.Members {
		value, err := joinParts(sg.parts[m[0]], m[1])
		if err != nil {
			return fmt.Errorf("member %d: %w", m[0], err)
		}
		id, of, err := f(value)
		if err != nil {
			return fmt.Errorf("decode member %d: %w", m[0], err)
		}
		delete(sg.parts, m[0])
		e.stored.members[id] = memberRef{n: m[0], parts: int(m[1]), sum: sha256.Sum256(value), of: of}
	}
	return nil
}

func (l *loader) loadClassic(e *entry, h *storedHeader, sg *storedGroup) error {
	s := &group.Snapshot{
		Generation: h.Generation, ProtocolType: string(h.ProtocolType), Protocol: h.Protocol.stringPtr(),
		Leader: string(h.Leader), Since: time.UnixMilli(h.SinceMillis),
	}
	err := l.loadMembers(e, h, sg, func(value []byte) (string, *consumer.Member, error) {
		m, err := decodeMember(value)
		s.Members = append(s.Members, m)
		return m.ID, nil, err
	})
	if err != nil {
		return err
	}
	e.g = group.Restore(e.id, &l.sh.c.cfg.Group, s, l.now)
	e.written = &snapshot{classic: s}
	return nil
}

func (l *loader) loadConsumer(e *entry, h *storedHeader, sg *storedGroup) error {
	s := &consumer.Snapshot{
		Epoch: h.Generation, AssignmentEpoch: h.AssignmentEpoch, Digest: h.Digest, Since: time.UnixMilli(h.SinceMillis),
	}
	err := l.loadMembers(e, h, sg, func(value []byte) (string, *consumer.Member, error) {
		m, err := decodeConsumer(value)
		if err != nil {
			return "", nil, err
		}
		s.Members = append(s.Members, m)
		return m.ID, m, nil
	})
	if err != nil {
		return err
	}
	c := l.sh.c
	e.g, e.k = nil, consumer.Restore(e.id, &c.cfg.Consumer, c.timing(e.id), s, l.img, l.match, l.now)
	e.written = &snapshot{consumer: s}
	return nil
}

// joinParts puts a member's value together; range reads are in key order.
func joinParts(parts []metadata.Entry, want uint64) ([]byte, error) {
	if uint64(len(parts)) != want {
		return nil, fmt.Errorf("%d of %d parts", len(parts), want)
	}
	if want == 1 {
		return parts[0].Value, nil
	}
	var value []byte
	for _, p := range parts {
		value = append(value, p.Value...)
	}
	return value, nil
}

func (l *loader) loadOffsets(entries []metadata.Entry) {
	for _, en := range entries {
		id, cid, err := parseChunkKey(l.sh.id, en.Key)
		if err != nil {
			l.sh.c.log.Error("unknown key among offsets", slog.String(logKey, en.Key), slog.Any(logError, err))
			continue
		}
		e := l.entry(id)
		if e.corrupt {
			continue
		}
		ch, err := decodeChunk(cid, en)
		if err != nil {
			l.unreadable(id, en.Key, err)
			continue
		}
		e.chunks[cid] = ch
	}
}
