package objecttest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/tiering/object"
)

func list(t *testing.T, ctx context.Context, s object.Store) {
	before := time.Now().Add(-2 * time.Second) // stores keep whole seconds
	keys := []string{"a/1", "a/2", "a/3/x", "a/3/y", "a-b", "b/1", "c"}
	for i, key := range keys {
		mustCreate(t, ctx, s, key, make([]byte, i))
	}
	all := []string{"a-b", "a/1", "a/2", "a/3/x", "a/3/y", "b/1", "c"}
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"", "", 100, all},
		{"", "", 3, all[:3]},
		{"", "", 0, nil},
		{"", "", -1, nil},
		{"", "a/2", 100, all[3:]},
		{"", "a/2", 2, all[3:5]},
		{"", "a/25", 1, all[3:4]},
		{"", "c", 100, nil},
		{"", "~", 100, nil},
		{"a/", "", 100, all[1:5]},
		{"a", "", 100, all[:5]},
		{"a/3", "", 100, all[3:5]},
		{"a/3/", "a/3/x", 100, all[4:5]},
		{"a/", "b", 100, nil},
		{"b/", "a", 100, all[5:6]},
		{"zz", "", 100, nil},
		{"a/1/", "", 100, nil},
	} {
		infos, err := s.List(ctx, c.prefix, c.after, c.limit)
		if err != nil {
			t.Fatalf("List(%q, %q, %d) = %v", c.prefix, c.after, c.limit, err)
		}
		if got := names(infos); !slices.Equal(got, c.want) {
			t.Errorf("List(%q, %q, %d) = %q, want %q", c.prefix, c.after, c.limit, got, c.want)
		}
		for _, info := range infos {
			if want := slices.Index(keys, info.Key); info.Size != int64(want) {
				t.Errorf("%s: size %d, want %d", info.Key, info.Size, want)
			}
			if info.Modified.Before(before) || info.Modified.After(time.Now().Add(2*time.Second)) {
				t.Errorf("%s: modified %v", info.Key, info.Modified)
			}
		}
	}
}

func names(infos []object.Info) []string {
	var keys []string
	for _, info := range infos {
		keys = append(keys, info.Key)
	}
	return keys
}

// listMany goes past one page of an S3 listing (1,000 keys), in one call and
// by stepping.
func listMany(t *testing.T, ctx context.Context, s object.Store) {
	if testing.Short() {
		t.Skip("creates 1,050 objects")
	}
	const workers = 10
	want := make([]string, 1050)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(want); i += workers {
				want[i] = fmt.Sprintf("many/%06d", i)
				if err := s.Create(ctx, want[i], []byte("x")); err != nil {
					t.Errorf("Create(%q) = %v", want[i], err)
				}
			}
		})
	}
	wg.Wait()
	infos, err := s.List(ctx, "many/", "", 5000)
	if err != nil || !slices.Equal(names(infos), want) {
		t.Fatalf("List = %d keys, %v; want %d", len(infos), err, len(want))
	}
	infos, err = s.List(ctx, "many/", "", 1020)
	if err != nil || !slices.Equal(names(infos), want[:1020]) {
		t.Fatalf("List of 1020 = %d keys, %v", len(infos), err)
	}
	var got []string
	for {
		after := ""
		if len(got) > 0 {
			after = got[len(got)-1]
		}
		infos, err := s.List(ctx, "many/", after, 300)
		if err != nil {
			t.Fatal(err)
		}
		if len(infos) == 0 {
			break
		}
		got = append(got, names(infos)...)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("stepping saw %d keys, want %d", len(got), len(want))
	}
}

// listOrder has names that sort differently with and without the slash.
func listOrder(t *testing.T, ctx context.Context, s object.Store) {
	keys := []string{"p/a!b", "p/a/1", "p/a-1", "p/a.1", "p/a0", "p/aa", "p/A", "p/_", "p/~"}
	for _, key := range keys {
		mustCreate(t, ctx, s, key, []byte("x"))
	}
	slices.Sort(keys)
	infos, err := s.List(ctx, "p/", "", 100)
	if err != nil || !slices.Equal(names(infos), keys) {
		t.Fatalf("List = %q, %v; want %q", names(infos), err, keys)
	}
	for i, key := range keys {
		infos, err := s.List(ctx, "p/", key, 1)
		if want := keys[i+1 : min(i+2, len(keys))]; err != nil || !slices.Equal(names(infos), want) {
			t.Fatalf("List after %q = %q, %v; want %q", key, names(infos), err, want)
		}
	}
}

// oddKeys are allowed, and must not be confused by escaping.
func oddKeys(t *testing.T, ctx context.Context, s object.Store) {
	keys := []string{
		"a+b", "a%20b", "a%2Fb", "a&b=c", "q?x=1", "h#frag", "semi;colon", "comma,at@", "tilde~dollar$",
		"paren(1)[2]{3}", "quote'\"`", "star*bang!", "lt<gt>", "pipe|caret^", "colon:", "eq=", "_under/-dash",
		"UPPER/lower", "upper/lower", strings.Repeat("s", 200) + "/" + strings.Repeat("t", 200), "trail.", "two..dots", "tmp", "lock",
	}
	for _, key := range keys {
		mustCreate(t, ctx, s, key, []byte(key))
	}
	for _, key := range keys {
		mustGet(t, ctx, s, key, []byte(key))
		infos, err := s.List(ctx, key, "", 10)
		if err != nil || !slices.Contains(names(infos), key) {
			t.Fatalf("List(%q) = %q, %v", key, names(infos), err)
		}
	}
	for _, key := range keys {
		if err := s.Delete(ctx, key); err != nil {
			t.Fatalf("Delete(%q) = %v", key, err)
		}
	}
	infos, err := s.List(ctx, "", "", 100)
	if err != nil || len(infos) != 0 {
		t.Fatalf("after deleting all: %q, %v", names(infos), err)
	}
}

func hostileKeys(t *testing.T, ctx context.Context, s object.Store) {
	for _, key := range []string{
		"", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../up", "a/../b", "a/..", "./a", "a/./b", ".hidden", "a/.hidden",
		"a b", "tab\t", "nul\x00", "new\nline", "\x7f", "\xff\xfe", "ü", strings.Repeat("x", 256), strings.Repeat("abc/", 128) + "abcd",
	} {
		_, err := s.Get(ctx, key, 0, -1)
		wantErr(t, fmt.Sprintf("Get(%q)", key), err, object.ErrRefused)
		wantErr(t, fmt.Sprintf("Create(%q)", key), s.Create(ctx, key, []byte("x")), object.ErrRefused)
		wantErr(t, fmt.Sprintf("Delete(%q)", key), s.Delete(ctx, key), object.ErrRefused)
	}
	for _, prefix := range []string{"/", "../", "a//", "a/../", " ", "\x00", "."} {
		_, err := s.List(ctx, prefix, "", 10)
		wantErr(t, fmt.Sprintf("List(%q)", prefix), err, object.ErrRefused)
	}
	infos, err := s.List(ctx, "", "", 10)
	if err != nil || len(infos) != 0 {
		t.Fatalf("refused keys left %q, %v", names(infos), err)
	}
}
