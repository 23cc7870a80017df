package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// chunkID names a chunk on disk. Two keys with one hash share it; the header
// tells them apart.
type chunkID struct {
	hash  [sha256.Size / 2]byte
	index int64
}

func idOf(key string, index int64) chunkID {
	sum := sha256.Sum256([]byte(key))
	return chunkID{hash: [sha256.Size / 2]byte(sum[:]), index: index}
}

// fileName returns the path of a chunk file below the cache's directory.
func fileName(id chunkID, size int64) string {
	hash := hex.EncodeToString(id.hash[:])
	return filepath.Join(hash[:2], fmt.Sprintf("%s-%x-%x", hash, id.index, size))
}

// parseFileName undoes fileName, given the directory's and the file's name.
func parseFileName(dir, name string) (id chunkID, size int64, ok bool) {
	hash, rest, _ := strings.Cut(name, "-")
	indexText, sizeText, _ := strings.Cut(rest, "-")
	b, err := hex.DecodeString(hash)
	if err != nil || len(b) != len(id.hash) {
		return id, 0, false
	}
	copy(id.hash[:], b)
	index, err1 := strconv.ParseUint(indexText, 16, 63)
	n, err2 := strconv.ParseUint(sizeText, 16, 63)
	if err1 != nil || err2 != nil {
		return id, 0, false
	}
	id.index, size = int64(index), int64(n)
	return id, size, fileName(id, size) == filepath.Join(dir, name) // one spelling only
}
