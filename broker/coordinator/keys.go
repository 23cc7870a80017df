package coordinator

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/tidemark-io/tidemark/metadata"
)

// ShardOf is the shard of a group, which is also the partition of
// __consumer_offsets that Kafka would choose: the absolute value of Java's hash
// of the id, over UTF-16 units; 0 for the one value that has none
// (org.apache.kafka.common.utils.Utils.abs).
func ShardOf(groupID string) int {
	var h int32
	for _, r := range groupID {
		if hi, lo := utf16.EncodeRune(r); hi != '\uFFFD' {
			h = (31*h+int32(hi))*31 + int32(lo)
		} else {
			h = 31*h + int32(r)
		}
	}
	if h == math.MinInt32 {
		return 0
	}
	return int(max(h, -h)) % metadata.GroupShards
}

// escape makes any group id one element of a key, each id a different one:
// everything but plain characters becomes %XX, and the empty id a lone %.
func escape(id string) string {
	if id == "" {
		return "%"
	}
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}

// unescape is the inverse of escape and refuses what escape does not write.
func unescape(s string) (string, error) {
	if s == "%" {
		return "", nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if plain(s[i]) {
			b.WriteByte(s[i])
			continue
		}
		if s[i] != '%' || i+3 > len(s) {
			return "", fmt.Errorf("group %q in a key", s)
		}
		v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("group %q in a key: %w", s, err)
		}
		b.WriteByte(byte(v))
		i += 2
	}
	if s == "" || escape(b.String()) != s {
		return "", fmt.Errorf("group %q in a key", s)
	}
	return b.String(), nil
}

func groupsPrefix(shard int) string  { return fmt.Sprintf("%s%d/", metadata.PrefixGroups, shard) }
func offsetsPrefix(shard int) string { return fmt.Sprintf("%s%d/", metadata.PrefixOffsets, shard) }

func groupPrefix(shard int, id string) string { return groupsPrefix(shard) + escape(id) + "/" }

func groupOffsetsPrefix(shard int, id string) string { return offsetsPrefix(shard) + escape(id) + "/" }

func headerKey(prefix string) string { return prefix + "h" }

func memberKey(prefix string, n uint64, part int) string {
	return fmt.Sprintf("%sm/%016x/%04x", prefix, n, part)
}

func chunkKey(prefix string, id chunkID) string {
	return prefix + id.topic.Hex() + "/" + strconv.Itoa(int(id.chunk))
}

// groupKey is what a key below groups/<shard>/ says.
type groupKey struct {
	id     string
	member bool // else the header
	n      uint64
	part   int
}

func parseGroupKey(shard int, key string) (groupKey, error) {
	fields := strings.Split(strings.TrimPrefix(key, groupsPrefix(shard)), "/")
	bad := fmt.Errorf("group key %q", key)
	if len(fields) != 2 && len(fields) != 4 {
		return groupKey{}, bad
	}
	id, err := unescape(fields[0])
	if err != nil {
		return groupKey{}, err
	}
	if len(fields) == 2 {
		if fields[1] != "h" {
			return groupKey{}, bad
		}
		return groupKey{id: id}, nil
	}
	n, err := strconv.ParseUint(fields[2], 16, 64)
	part, err2 := strconv.ParseUint(fields[3], 16, 16)
	if err != nil || err2 != nil || fields[1] != "m" {
		return groupKey{}, bad
	}
	return groupKey{id: id, member: true, n: n, part: int(part)}, nil
}

func parseChunkKey(shard int, key string) (string, chunkID, error) {
	fields := strings.Split(strings.TrimPrefix(key, offsetsPrefix(shard)), "/")
	if len(fields) != 3 {
		return "", chunkID{}, fmt.Errorf("offsets key %q", key)
	}
	id, err := unescape(fields[0])
	if err != nil {
		return "", chunkID{}, err
	}
	topic, err := metadata.ParseTopicIDHex(fields[1])
	if err != nil {
		return "", chunkID{}, fmt.Errorf("offsets key %q: %w", key, err)
	}
	n, err := strconv.ParseInt(fields[2], 10, 32)
	if err != nil || n < 0 {
		return "", chunkID{}, fmt.Errorf("offsets key %q", key)
	}
	return id, chunkID{topic: topic, chunk: int32(n)}, nil
}
