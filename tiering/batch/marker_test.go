package batch

import (
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A decoder that nobody here wrote reads the same of a marker.
func TestMarkerIsKafkas(t *testing.T) {
	for _, m := range []Marker{
		{ProducerID: 1 << 40, ProducerEpoch: 7, CoordinatorEpoch: 3, Commit: true},
		{ProducerID: 0, ProducerEpoch: 32767, CoordinatorEpoch: -1},
	} {
		raw, h := EncodeMarker(m, 1234567)
		if len(raw) != MarkerLen || CheckCRC(raw) != nil {
			t.Fatalf("%d bytes instead of %d", len(raw), MarkerLen)
		}
		parsed, err := Parse(raw)
		if err != nil || !reflect.DeepEqual(parsed, h) {
			t.Fatalf("%v: header\n%+v\nread as\n%+v", err, h, parsed)
		}
		if back, err := ParseMarker(raw, &h); err != nil || back != m {
			t.Fatalf("read back %+v, %v", back, err)
		}
		var b kmsg.RecordBatch
		if err := b.ReadFrom(raw); err != nil {
			t.Fatal(err)
		}
		if b.Attributes != 0x30 || b.FirstSequence != -1 || b.NumRecords != 1 || b.LastOffsetDelta != 0 || b.PartitionLeaderEpoch != -1 ||
			b.FirstTimestamp != 1234567 || b.MaxTimestamp != 1234567 || b.ProducerID != m.ProducerID || b.ProducerEpoch != m.ProducerEpoch {
			t.Fatalf("batch %+v", b)
		}
		var r kmsg.Record
		if err := r.ReadFrom(b.Records); err != nil {
			t.Fatal(err)
		}
		var key kmsg.ControlRecordKey
		var value kmsg.EndTxnMarker
		if err := key.ReadFrom(r.Key); err != nil {
			t.Fatal(err)
		}
		if err := value.ReadFrom(r.Value); err != nil {
			t.Fatal(err)
		}
		want := kmsg.ControlRecordKeyTypeAbort
		if m.Commit {
			want = kmsg.ControlRecordKeyTypeCommit
		}
		if key.Version != 0 || key.Type != want || value.Version != 0 || value.CoordinatorEpoch != m.CoordinatorEpoch || len(r.Headers) != 0 {
			t.Fatalf("key %+v, value %+v, %d headers", key, value, len(r.Headers))
		}
	}
}

func FuzzParseMarker(f *testing.F) {
	raw, _ := EncodeMarker(Marker{ProducerID: 5, Commit: true}, 9)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b)
		if err != nil {
			return
		}
		if m, err := ParseMarker(b, &h); err == nil && m.ProducerID != h.ProducerID {
			t.Fatal("another producer's marker")
		}
	})
}
