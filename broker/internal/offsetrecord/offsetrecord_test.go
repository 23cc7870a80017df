package offsetrecord

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/tiering/batch"
)

func TestBatches(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	var records []Record
	for i := range 100 {
		r := Record{Key: OffsetKey("g", "t", int32(i)), Time: now.Add(time.Duration(i%7) * time.Second)}
		if i%3 != 0 {
			o := Offset{Offset: int64(i), LeaderEpoch: 2, Metadata: "m", Committed: now}
			r.Value = o.Value()
		}
		records = append(records, r)
	}
	next := 0
	batches := Batches(records, 1000)
	if len(batches) < 2 {
		t.Fatalf("%d batches", len(batches))
	}
	for _, b := range batches {
		h, err := batch.Validate(b, batch.Rules{BytesMax: 1 << 20, InflatedMax: 1 << 20, Keys: true, TimestampMax: 1 << 62})
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 1100 {
			t.Errorf("a batch of %d bytes", len(b))
		}
		if h.BaseTimestamp > h.MaxTimestamp || h.ProducerID != -1 {
			t.Errorf("%+v", h)
		}
		err = batch.Scan(b, &h, 1<<20, func(r *batch.Record) error {
			want := &records[next]
			next++
			if !bytes.Equal(r.Key, want.Key) {
				return fmt.Errorf("record %d: key %q", next-1, r.Key)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if next != len(records) {
		t.Errorf("%d records", next)
	}
}

func TestFormats(t *testing.T) {
	var k kmsg.OffsetCommitKey
	if err := k.ReadFrom(OffsetKey("g", "t", 3)); err != nil || k.Version != 1 || k.Group != "g" || k.Topic != "t" || k.Partition != 3 {
		t.Errorf("%+v %v", k, err)
	}
	at := time.UnixMilli(5)
	for _, c := range []struct {
		o    Offset
		want kmsg.OffsetCommitValue
	}{
		{Offset{7, 2, "m", at, time.Time{}}, kmsg.OffsetCommitValue{Version: 3, Offset: 7, LeaderEpoch: 2, Metadata: "m", CommitTimestamp: 5}},
		{Offset{7, -1, "", at, time.UnixMilli(9)}, kmsg.OffsetCommitValue{Version: 1, Offset: 7, LeaderEpoch: -1, CommitTimestamp: 5, ExpireTimestamp: 9}},
	} {
		v := kmsg.NewOffsetCommitValue()
		if err := v.ReadFrom(c.o.Value()); err != nil || v.Version != c.want.Version || v.Offset != c.want.Offset ||
			c.want.Version == 3 && v.LeaderEpoch != c.want.LeaderEpoch || v.Metadata != c.want.Metadata || v.CommitTimestamp != 5 ||
			c.want.Version == 1 && v.ExpireTimestamp != 9 {
			t.Errorf("%+v %v", v, err)
		}
	}
	g := kmsg.NewGroupMetadataValue()
	g.Generation = 4
	var back kmsg.GroupMetadataValue
	if err := back.ReadFrom(GroupValue(&g)); err != nil || back.Version != 3 || back.Generation != 4 {
		t.Errorf("%+v %v", back, err)
	}
}
