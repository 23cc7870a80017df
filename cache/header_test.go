package cache

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestHeader(t *testing.T) {
	for _, key := range []string{"k", "w/3f/1/000000000001", strings.Repeat("x", keyBytesMax)} {
		data := []byte("some bytes")
		file := append(encodeHeader(key, 1<<40, data), data...)
		if len(file) != headerBytes(key)+len(data) {
			t.Errorf("%d bytes, want %d", len(file), headerBytes(key)+len(data))
		}
		got, err := decodeChunk(file, key, 1<<40)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("decodeChunk = %q, %v", got, err)
		}
		for i := range file { // every byte matters
			file[i] ^= 0x40
			if _, err := decodeChunk(file, key, 1<<40); !errors.Is(err, errDamaged) {
				t.Fatalf("byte %d changed: %v", i, err)
			}
			file[i] ^= 0x40
		}
		for _, short := range []int{0, 1, len(file) / 2, len(file) - 1} {
			if _, err := decodeChunk(file[:short], key, 1<<40); !errors.Is(err, errDamaged) {
				t.Fatalf("cut to %d: %v", short, err)
			}
		}
		if _, err := decodeChunk(append(bytes.Clone(file), 0), key, 1<<40); !errors.Is(err, errDamaged) {
			t.Error("one byte more was accepted")
		}
		for _, other := range []struct {
			key   string
			index int64
		}{{key + "x", 1 << 40}, {key, 0}} {
			if _, err := decodeChunk(file, other.key, other.index); !errors.Is(err, errDamaged) {
				t.Errorf("taken for chunk %d of %q: %v", other.index, other.key, err)
			}
		}
	}
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("TMCK\x01\x00\xff\xff"))
	f.Add(append(encodeHeader("w/1", 7, []byte("data")), "data"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeader(b)
		if err != nil {
			if !errors.Is(err, errDamaged) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if h.size != headerBytes(h.key) || h.size > len(b) || h.index < 0 || h.length < 0 {
			t.Fatalf("header %+v of %d bytes", h, len(b))
		}
		data, err := decodeChunk(b, h.key, h.index)
		if err == nil && !bytes.Equal(append(encodeHeader(h.key, h.index, data), data...), b) {
			t.Fatal("accepted bytes that would not be written")
		}
	})
}

func TestFileName(t *testing.T) {
	id := idOf("w/3f/1/2", 77)
	name := fileName(id, 4096)
	dir, base, _ := strings.Cut(name, "/")
	if got, size, ok := parseFileName(dir, base); !ok || got != id || size != 4096 {
		t.Errorf("parse(%s) = %v, %d, %v", name, got, size, ok)
	}
	for _, bad := range []string{"", "-", base + "0-1", "x" + base, strings.ToUpper(base), base + "-", base[:33],
		strings.Replace(base, "-", "-0", 1), base + " ", strings.Replace(base, "-", "--", 1)} {
		if _, _, ok := parseFileName(dir, bad); ok {
			t.Errorf("parsed %q", bad)
		}
	}
	if _, _, ok := parseFileName("zz", base); ok {
		t.Error("parsed a file in the wrong directory")
	}
}

// FuzzFileName reads names found in the cache's directory: what is taken for a
// chunk is what it would be called.
func FuzzFileName(f *testing.F) {
	dir, base, _ := strings.Cut(fileName(idOf("w/1", 7), 4096), "/")
	f.Add(dir, base)
	f.Add(dir, base+"-0")
	f.Add("", "--")
	f.Fuzz(func(t *testing.T, dir, name string) {
		id, size, ok := parseFileName(dir, name)
		if ok && (size < 0 || id.index < 0 || fileName(id, size) != filepath.Join(dir, name)) {
			t.Errorf("%q in %q is chunk %d of %x, %d bytes", name, dir, id.index, id.hash, size)
		}
	})
}
