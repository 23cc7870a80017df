// Package metatest is the conformance suite of metadata.KV: what it tests is
// what the contract says, and every implementation passes all of it.
package metatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
)

// Run tests the stores that open returns. Each call gets one that is empty, with
// the test it is for; open registers its clean-up there.
func Run(t *testing.T, open func(t *testing.T) metadata.KV) {
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"GetAbsent", getAbsent},
		{"GetManyAtOneRevision", getMany},
		{"PutRevisions", putRevisions},
		{"TxnGuards", txnGuards},
		{"TxnElse", txnElse},
		{"TxnWithoutChange", txnWithoutChange},
		{"TxnLimits", txnLimits},
		{"TxnInvalid", txnInvalid},
		{"TxnRace", txnRace},
		{"DeletePrefix", deletePrefix},
		{"RangeOrderAndBounds", rangeOrder},
		{"RangePages", rangePages},
		{"RangeIsOneRevision", rangeOneRevision},
		{"LeaseKeysGo", leaseKeysGo},
		{"LeaseLapses", leaseLapses},
		{"LeaseRenewed", leaseRenewed},
		{"LeaseGone", leaseGone},
		{"LeaseMoves", leaseMoves},
		{"WatchFromThePast", watchPast},
		{"WatchWholeRevisions", watchWhole},
		{"WatchPrefixOnly", watchPrefix},
		{"WatchLeaseLapse", watchLease},
		{"WatchCancel", watchCancel},
		{"WatchCompacted", watchCompacted},
		{"WatchProgress", watchProgress},
		{"WatchUnderLoad", watchLoad},
		{"CanceledContext", canceledContext},
		{"CloseEndsWatches", closeEnds},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			tt.run(&suite{T: t, ctx: ctx, kv: open(t)})
		})
	}
}

type suite struct {
	*testing.T
	ctx context.Context
	kv  metadata.KV
}

// must writes ops without conditions and returns the revision.
func (s *suite) must(ops ...metadata.Op) int64 {
	s.Helper()
	res, err := s.kv.Txn(s.ctx, metadata.Txn{Then: ops})
	if err != nil || !res.Succeeded {
		s.Fatalf("txn: %+v, %v", res, err)
	}
	return res.Revision
}

func (s *suite) get(key string) metadata.Entry {
	s.Helper()
	entries, _, err := s.kv.Get(s.ctx, key)
	if err != nil || len(entries) != 1 {
		s.Fatalf("get %s: %v, %v", key, entries, err)
	}
	return entries[0]
}

func (s *suite) keys(prefix string) []string {
	s.Helper()
	entries, _, err := s.kv.Range(s.ctx, prefix)
	if err != nil {
		s.Fatalf("range %q: %v", prefix, err)
	}
	keys := []string{}
	for _, e := range entries {
		keys = append(keys, e.Key)
	}
	return keys
}

func (s *suite) equal(what string, got, want any) {
	s.Helper()
	if g, w := fmt.Sprintf("%v", got), fmt.Sprintf("%v", want); g != w {
		s.Fatalf("%s: got %s, want %s", what, g, w)
	}
}

func (s *suite) is(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

func put(key, value string) metadata.Op { return metadata.Put(key, []byte(value)) }

func getAbsent(s *suite) {
	e := s.get("nothing")
	if e.Exists() || e.Key != "nothing" || e.Value != nil || e.Lease != 0 || e.CreateRevision != 0 {
		s.Fatalf("absent key: %+v", e)
	}
	entries, rev, err := s.kv.Get(s.ctx)
	if err != nil || len(entries) != 0 || rev < 1 {
		s.Fatalf("get of no keys: %v, %d, %v", entries, rev, err)
	}
}

func getMany(s *suite) {
	const n = 250 // more than one transaction holds
	var keys []string
	var ops []metadata.Op
	for i := range n {
		keys = append(keys, fmt.Sprintf("k/%03d", i))
		if i%2 == 0 {
			ops = append(ops, put(keys[i], fmt.Sprint(i)))
		}
	}
	var last int64
	for chunk := range slices.Chunk(ops, metadata.MaxTxnOps) {
		last = s.must(chunk...)
	}
	slices.Reverse(keys) // the order is the caller's
	entries, rev, err := s.kv.Get(s.ctx, keys...)
	if err != nil || len(entries) != n || rev < last {
		s.Fatalf("got %d entries at %d, %v", len(entries), rev, err)
	}
	for i, e := range entries {
		if e.Key != keys[i] || e.Exists() != ((n-1-i)%2 == 0) {
			s.Fatalf("entry %d: %+v", i, e)
		}
	}
}

func putRevisions(s *suite) {
	r1 := s.must(put("a", "1"))
	r2 := s.must(put("a", "2"), put("b", ""))
	if r2 <= r1 {
		s.Fatalf("revisions %d, %d", r1, r2)
	}
	a, b := s.get("a"), s.get("b")
	if string(a.Value) != "2" || a.CreateRevision != r1 || a.ModRevision != r2 {
		s.Fatalf("a: %+v", a)
	}
	if len(b.Value) != 0 || !b.Exists() || b.CreateRevision != r2 || b.ModRevision != r2 {
		s.Fatalf("b: %+v", b)
	}
	s.must(metadata.Delete("a"))
	r4 := s.must(put("a", "3"))
	if a := s.get("a"); a.CreateRevision != r4 || a.ModRevision != r4 {
		s.Fatalf("a created again at %d: %+v", r4, a)
	}
}

func txnGuards(s *suite) {
	rev := s.must(put("a", "1"))
	f := func(want bool, conds ...metadata.Cond) {
		s.Helper()
		res, err := s.kv.Txn(s.ctx, metadata.Txn{If: conds, Then: []metadata.Op{put("seen", "x"), metadata.Delete("absent")}})
		if err != nil || res.Succeeded != want {
			s.Fatalf("conditions %v: %+v, %v", conds, res, err)
		}
		if s.get("seen").Exists() != want {
			s.Fatalf("conditions %v: written %v", conds, !want)
		}
		s.must(metadata.Delete("seen"))
	}
	f(true)
	f(true, metadata.Cond{Key: "a", ModRevision: rev})
	f(true, metadata.Cond{Key: "none"})
	f(true, metadata.Cond{Key: "a", ModRevision: rev}, metadata.Cond{Key: "none"})
	f(false, metadata.Cond{Key: "a"})
	f(false, metadata.Cond{Key: "a", ModRevision: rev + 1})
	f(false, metadata.Cond{Key: "a", ModRevision: rev - 1})
	f(false, metadata.Cond{Key: "none", ModRevision: rev})
	f(false, metadata.Cond{Key: "a", ModRevision: rev}, metadata.Cond{Key: "a"})
}

func txnElse(s *suite) {
	rev := s.must(put("a", "1"))
	res, err := s.kv.Txn(s.ctx, metadata.Txn{
		If: []metadata.Cond{{Key: "a"}}, Then: []metadata.Op{put("a", "2")}, Else: []string{"b", "a"},
	})
	if err != nil || res.Succeeded || len(res.Else) != 2 || res.Revision < rev {
		s.Fatalf("%+v, %v", res, err)
	}
	if b := res.Else[0]; b.Key != "b" || b.Exists() {
		s.Fatalf("b: %+v", b)
	}
	if a := res.Else[1]; a.Key != "a" || string(a.Value) != "1" || a.ModRevision != rev {
		s.Fatalf("a: %+v", a)
	}
	res, err = s.kv.Txn(s.ctx, metadata.Txn{
		If: []metadata.Cond{{Key: "a", ModRevision: rev}}, Then: []metadata.Op{put("a", "2")}, Else: []string{"a"},
	})
	if err != nil || !res.Succeeded || res.Else != nil || res.Revision <= rev {
		s.Fatalf("%+v, %v", res, err)
	}
	s.equal("a", s.get("a").ModRevision, res.Revision)
}

func txnWithoutChange(s *suite) {
	rev := s.must(put("a", "1"))
	after := s.must(metadata.Delete("none"), metadata.DeletePrefix("nothing/"))
	e := s.get("a")
	if after < rev || e.ModRevision != rev {
		s.Fatalf("revision %d after %d, a %+v", after, rev, e)
	}
}

func txnLimits(s *suite) {
	var most, conds []string
	for i := range metadata.MaxTxnOps {
		most, conds = append(most, fmt.Sprintf("m/%d", i)), append(conds, fmt.Sprintf("c/%d", i))
	}
	txn := func(thens, ifs, elses []string) metadata.Txn {
		t := metadata.Txn{Else: elses}
		for _, key := range thens {
			t.Then = append(t.Then, put(key, "v"))
		}
		for _, key := range ifs {
			t.If = append(t.If, metadata.Cond{Key: key})
		}
		return t
	}
	if res, err := s.kv.Txn(s.ctx, txn(most, conds, conds)); err != nil || !res.Succeeded {
		s.Fatalf("the largest number of operations: %+v, %v", res, err)
	}
	s.equal("keys", len(s.keys("m/")), metadata.MaxTxnOps)
	for _, t := range []metadata.Txn{
		txn(append(most, "x"), nil, nil), txn(nil, append(conds, "x"), nil), txn([]string{"x"}, nil, append(conds, "x")),
		{Then: []metadata.Op{put("x", strings.Repeat("v", metadata.MaxTxnBytes+1))}},
	} {
		_, err := s.kv.Txn(s.ctx, t)
		s.is("too large", err, metadata.ErrTooLarge)
	}
	s.equal("x exists", s.get("x").Exists(), false)
	big := strings.Repeat("v", metadata.MaxTxnBytes-3)
	s.must(put("big", big))
	s.equal("big", string(s.get("big").Value) == big, true)
}

func txnInvalid(s *suite) {
	for _, ops := range [][]metadata.Op{
		{put("x", "1"), put("x", "2")},
		{put("x", "1"), metadata.Delete("x")},
		{metadata.DeletePrefix("x"), put("x/y", "1")},
		{put("", "1")},
	} {
		_, err := s.kv.Txn(s.ctx, metadata.Txn{Then: ops})
		s.is("invalid transaction", err, metadata.ErrInvalidTxn)
	}
	s.equal("written", s.keys("x"), []string{})
	s.must(metadata.Delete("x"), metadata.DeletePrefix("x"))
}

func txnRace(s *suite) {
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for n := 0; n < each; {
				entries, _, err := s.kv.Get(s.ctx, "n")
				if err != nil {
					s.Error(err)
					return
				}
				value := append(entries[0].Value, 'x')
				res, err := s.kv.Txn(s.ctx, metadata.Txn{
					If:   []metadata.Cond{{Key: "n", ModRevision: entries[0].ModRevision}},
					Then: []metadata.Op{metadata.Put("n", value)},
				})
				if err != nil {
					s.Error(err)
					return
				}
				if res.Succeeded {
					n++
				}
			}
		})
	}
	wg.Wait()
	s.equal("counted", len(s.get("n").Value), writers*each)
}

func deletePrefix(s *suite) {
	s.must(put("d/1", ""), put("d/2", ""), put("d", ""), put("d0", ""), put("e", ""))
	rev := s.must(metadata.DeletePrefix("d/"), put("f", ""))
	s.equal("left", s.keys(""), []string{"d", "d0", "e", "f"})
	s.equal("f", s.get("f").ModRevision, rev)
}

func rangeOrder(s *suite) {
	s.must(put("b/2", "2"), put("b/10", "10"), put("b", ""), put("a", ""), put("b/", ""), put("c", ""), put("b0", ""), put("b\xff", ""))
	s.equal("b/", s.keys("b/"), []string{"b/", "b/10", "b/2"})
	s.equal("everything", s.keys(""), []string{"a", "b", "b/", "b/10", "b/2", "b0", "b\xff", "c"})
	s.equal("nothing", s.keys("zz"), []string{})
	entries, rev, err := s.kv.Range(s.ctx, "b/2")
	if err != nil || len(entries) != 1 || string(entries[0].Value) != "2" || entries[0].ModRevision > rev {
		s.Fatalf("%+v at %d, %v", entries, rev, err)
	}
}

func rangePages(s *suite) {
	const n = 2500
	var want []string
	var ops []metadata.Op
	for i := range n {
		want = append(want, fmt.Sprintf("p/%05d", i))
		ops = append(ops, put(want[i], "v"))
	}
	for chunk := range slices.Chunk(ops, metadata.MaxTxnOps) {
		s.must(chunk...)
	}
	if got := s.keys("p/"); !slices.Equal(got, want) {
		s.Fatalf("%d keys, want %d", len(got), n)
	}
}

// rangeOneRevision moves a mark from the first to the last of many keys and back,
// in transactions: a list at one revision sees exactly one of the two.
func rangeOneRevision(s *suite) {
	var ops []metadata.Op
	for i := range 2200 {
		ops = append(ops, put(fmt.Sprintf("r/%05d", i), "v"))
	}
	for chunk := range slices.Chunk(ops, metadata.MaxTxnOps) {
		s.must(chunk...)
	}
	first, last := "r/", "r/99999"
	s.must(put(first, "mark"))
	ctx, cancel := context.WithCancel(s.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			from, to := first, last
			if i%2 == 1 {
				from, to = last, first
			}
			if _, err := s.kv.Txn(ctx, metadata.Txn{Then: []metadata.Op{metadata.Delete(from), put(to, "mark")}}); err != nil && ctx.Err() == nil {
				s.Error(err)
			}
		}
	})
	for range 20 {
		s.equal("keys", len(s.keys("r/")), 2201)
	}
	cancel()
	wg.Wait()
}

func (s *suite) grant(ttl time.Duration) metadata.LeaseID {
	s.Helper()
	id, err := s.kv.Grant(s.ctx, ttl)
	if err != nil || id == 0 {
		s.Fatalf("grant: %d, %v", id, err)
	}
	return id
}

func leaseKeysGo(s *suite) {
	l := s.grant(time.Minute)
	s.must(metadata.PutLeased("l/1", nil, l), metadata.PutLeased("l/2", nil, l), put("l/3", ""))
	s.equal("lease", s.get("l/1").Lease, l)
	s.is("revoke", s.kv.Revoke(s.ctx, l), nil)
	s.equal("left", s.keys("l/"), []string{"l/3"})
	s.is("revoke again", s.kv.Revoke(s.ctx, l), nil)
	if one, two := s.grant(time.Minute), s.grant(time.Minute); one == two || one == l {
		s.Fatalf("leases %d, %d, %d", l, one, two)
	}
}

// leaseLapses waits for real time where the store's clock is real: etcd's
// shortest lease is a second or two, and it looks every half second.
func leaseLapses(s *suite) {
	l := s.grant(time.Second)
	rev := s.must(metadata.PutLeased("l", nil, l))
	events := s.kv.Watch(s.ctx, "l", rev+1)
	if ev := <-events; len(ev.Events) != 1 || !ev.Events[0].Deleted {
		s.Fatalf("%+v", ev)
	}
	s.equal("exists", s.get("l").Exists(), false)
	_, err := s.kv.Renew(s.ctx, l)
	s.is("renew", err, metadata.ErrLeaseNotFound)
}

func leaseRenewed(s *suite) {
	l := s.grant(2 * time.Second)
	s.must(metadata.PutLeased("l", nil, l))
	for range 8 {
		time.Sleep(500 * time.Millisecond)
		if left, err := s.kv.Renew(s.ctx, l); err != nil || left <= 0 || left > 2*time.Second {
			s.Fatalf("renew: %v, %v", left, err)
		}
	}
	s.equal("exists", s.get("l").Exists(), true)
}

func leaseGone(s *suite) {
	l := s.grant(time.Minute)
	s.is("revoke", s.kv.Revoke(s.ctx, l), nil)
	_, err := s.kv.Renew(s.ctx, l)
	s.is("renew", err, metadata.ErrLeaseNotFound)
	_, err = s.kv.Txn(s.ctx, metadata.Txn{Then: []metadata.Op{put("a", "1"), metadata.PutLeased("b", nil, l)}})
	s.is("put under it", err, metadata.ErrLeaseNotFound)
	s.equal("written", s.keys(""), []string{})
	res, err := s.kv.Txn(s.ctx, metadata.Txn{
		If: []metadata.Cond{{Key: "a", ModRevision: 77}}, Then: []metadata.Op{metadata.PutLeased("b", nil, l)},
	})
	if err != nil || res.Succeeded {
		s.Fatalf("not applied, so not an error: %+v, %v", res, err)
	}
}

func leaseMoves(s *suite) {
	one, two := s.grant(time.Minute), s.grant(time.Minute)
	s.must(metadata.PutLeased("moved", nil, one), metadata.PutLeased("freed", nil, one))
	s.must(metadata.PutLeased("moved", nil, two), put("freed", ""))
	s.is("revoke", s.kv.Revoke(s.ctx, one), nil)
	s.equal("left", s.keys(""), []string{"freed", "moved"})
	s.is("revoke", s.kv.Revoke(s.ctx, two), nil)
	s.equal("left", s.keys(""), []string{"freed"})
}
