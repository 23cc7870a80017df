package tiering

import (
	"math"
	"time"

	"github.com/tidemark-io/tidemark/tiering/wal"
)

// Policy is what a topic's configs say about how long its partitions keep
// records and how large their segments are. The zero Policy keeps everything.
type Policy struct {
	// Delete: cleanup.policy has delete. Without it nothing is let go of.
	Delete bool
	// RetentionMillis (retention.ms) and RetentionBytes (retention.bytes) are -1 for
	// no limit.
	RetentionMillis, RetentionBytes int64
	// SegmentBytes (segment.bytes) bounds segments of one partition, SegmentMillis
	// (segment.ms) how long something waits in write-ahead objects; 0: what the
	// broker is set to counts.
	SegmentBytes, SegmentMillis int64
}

// limited reports whether records may ever be let go of.
func (p *Policy) limited() bool {
	return p.Delete && (p.RetentionMillis >= 0 || p.RetentionBytes >= 0)
}

// unknownTime is how long something without a timestamp is left alone before it
// is looked at again.
const unknownTime = time.Hour

// judgment goes through what a partition holds, oldest first, and decides what
// retention lets go of. Like Kafka's it takes whole pieces: a piece goes when its
// newest record is older than retention.ms, or when retention.bytes are left
// without it. It stops at the first piece that stays.
type judgment struct {
	policy Policy
	now    int64 // milliseconds since the epoch
	total  int64 // bytes of everything that is not let go of yet

	start int64     // what is below is let go of
	look  time.Time // when the piece that stayed may go for its age; zero: never
	room  int64     // bytes that may come before it may go for its size, or before there is a piece at all
}

// judge begins a judgment of a log that begins at start and holds bytes.
func judge(policy Policy, now time.Time, start, bytes int64) *judgment {
	return &judgment{policy: policy, now: now.UnixMilli(), total: bytes, start: start, room: 1}
}

// take decides about the next piece and reports whether it goes. newest is in
// milliseconds, below 0 when nobody knows.
func (j *judgment) take(last, newest, bytes int64) (goes bool) {
	if !j.policy.limited() {
		return false
	}
	large := j.policy.RetentionBytes >= 0 && j.total-j.policy.RetentionBytes >= bytes
	old := j.policy.RetentionMillis >= 0 && newest >= 0 && newest <= j.now && j.now-newest > j.policy.RetentionMillis
	if large || old {
		j.start, j.total = last+1, j.total-bytes
		return true
	}
	j.room = math.MaxInt64
	if j.policy.RetentionBytes >= 0 {
		if over := j.total - j.policy.RetentionBytes; over > 0 || bytes <= math.MaxInt64+over {
			j.room = bytes - over
		}
	}
	if j.policy.RetentionMillis >= 0 {
		switch {
		case newest < 0:
			j.look = time.UnixMilli(j.now).Add(unknownTime)
		case newest < math.MaxInt64-1-j.policy.RetentionMillis:
			j.look = time.UnixMilli(newest + j.policy.RetentionMillis + 1)
		}
	}
	return false
}

// newestOf is the newest timestamp of a segment: without one, as Kafka does with
// a file, the time at which it was written.
func newestOf(s *wal.SegmentRef) int64 {
	if s.MaxTimestamp >= 0 {
		return s.MaxTimestamp
	}
	return s.ID.Millis()
}
