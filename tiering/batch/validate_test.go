package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"runtime"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

const now = 1_700_000_000_000

var lenient = Rules{BytesMax: 1 << 20, TimestampMin: 0, TimestampMax: math.MaxInt64, InflatedMax: 1 << 20}

// record encodes one record.
func record(offset int32, ts int64, key, value []byte, headers ...string) []byte {
	body := []byte{0}
	body = binary.AppendVarint(body, ts)
	body = binary.AppendVarint(body, int64(offset))
	field := func(v []byte) {
		if v == nil {
			body = binary.AppendVarint(body, -1)
			return
		}
		body = binary.AppendVarint(body, int64(len(v)))
		body = append(body, v...)
	}
	field(key)
	field(value)
	body = binary.AppendVarint(body, int64(len(headers)))
	for _, h := range headers {
		field([]byte(h))
		field(nil)
	}
	return append(binary.AppendVarint(nil, int64(len(body))), body...)
}

// three is the records of a batch of three, the last one the newest.
func three() []byte {
	out := record(0, 0, []byte("k0"), []byte("v0"))
	out = append(out, record(1, 5, []byte("k1"), nil, "header")...)
	return append(out, record(2, 9, []byte("k2"), []byte{})...)
}

// build wraps records in a batch.
func build(records []byte, n int32, attributes int16) []byte {
	b := make([]byte, HeaderLen, HeaderLen+len(records))
	binary.BigEndian.PutUint32(b[8:], uint32(HeaderLen-Overhead+len(records)))
	binary.BigEndian.PutUint32(b[12:], math.MaxUint32)
	b[16] = Magic
	binary.BigEndian.PutUint16(b[21:], uint16(attributes))
	binary.BigEndian.PutUint32(b[23:], uint32(n-1))
	binary.BigEndian.PutUint64(b[27:], now)
	binary.BigEndian.PutUint64(b[35:], now+9)
	binary.BigEndian.PutUint64(b[43:], math.MaxUint64)
	binary.BigEndian.PutUint16(b[51:], math.MaxUint16)
	binary.BigEndian.PutUint32(b[53:], math.MaxUint32)
	binary.BigEndian.PutUint32(b[57:], uint32(n))
	return sum(append(b, records...))
}

func sum(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

// compress deflates as the codec's producers do.
func compress(t testing.TB, c Codec, src []byte) []byte {
	var out bytes.Buffer
	var err error
	switch c {
	case None:
		return src
	case Gzip:
		w := gzip.NewWriter(&out)
		_, err = w.Write(src)
		err = errors.Join(err, w.Close())
	case Snappy:
		return snappy.Encode(nil, src)
	case LZ4:
		w := lz4.NewWriter(&out)
		_, err = w.Write(src)
		err = errors.Join(err, w.Close())
	case Zstd:
		w, e := zstd.NewWriter(&out)
		if e != nil {
			t.Fatal(e)
		}
		_, err = w.Write(src)
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// xerial wraps blocks in the framing of Java's snappy stream.
func xerial(blocks ...[]byte) []byte {
	out := append(bytes.Clone(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1)
	for _, b := range blocks {
		e := snappy.Encode(nil, b)
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(e))), e...)
	}
	return out
}

func TestValidBatches(t *testing.T) {
	for c := None; c <= Zstd; c++ {
		b := build(compress(t, c, three()), 3, int16(c))
		before := bytes.Clone(b)
		for _, keys := range []bool{false, true} {
			rules := lenient
			rules.Keys = keys
			h, err := Validate(b, rules)
			if err != nil {
				t.Errorf("%s: %v", c, err)
			}
			if h.Records != 3 || h.Codec() != c || h.Length != len(b) {
				t.Errorf("%s: %+v", c, h)
			}
			if !bytes.Equal(b, before) {
				t.Errorf("%s: the batch was changed", c)
			}
		}
	}
}

func TestRefusedBatches(t *testing.T) {
	edit := func(f func(b []byte)) []byte { b := build(three(), 3, 0); f(b); return sum(b) }
	put64 := func(at int, v int64) []byte {
		return edit(func(b []byte) { binary.BigEndian.PutUint64(b[at:], uint64(v)) })
	}
	put32 := func(at int, v int32) []byte {
		return edit(func(b []byte) { binary.BigEndian.PutUint32(b[at:], uint32(v)) })
	}
	put16 := func(at int, v int16) []byte {
		return edit(func(b []byte) { binary.BigEndian.PutUint16(b[at:], uint16(v)) })
	}
	good := build(three(), 3, 0)
	pid := func(f func(b []byte)) []byte {
		return edit(func(b []byte) {
			binary.BigEndian.PutUint64(b[43:], 4)
			binary.BigEndian.PutUint16(b[51:], 0)
			binary.BigEndian.PutUint32(b[53:], 0)
			f(b)
		})
	}
	unkeyed := append(record(0, 0, nil, []byte("v")), record(1, 0, []byte("k"), []byte("v"))...)
	compacted := lenient
	compacted.Keys = true
	recent := lenient
	recent.TimestampMin, recent.TimestampMax = now-1000, now+4
	for _, c := range []struct {
		name  string
		b     []byte
		rules Rules
		want  error
	}{
		{"empty", nil, lenient, ErrShort},
		{"cut short", good[:len(good)-1], lenient, ErrShort},
		{"header cut short", good[:40], lenient, ErrShort},
		{"length below a header", put32(8, 10), lenient, ErrInvalid},
		{"negative length", put32(8, -1), lenient, ErrInvalid},
		{"length too long", put32(8, int32(len(good))), lenient, ErrShort},
		{"two batches", append(bytes.Clone(good), good...), lenient, ErrInvalid},
		{"trailing junk", append(bytes.Clone(good), 1, 2, 3), lenient, ErrInvalid},
		{"magic 0", edit(func(b []byte) { b[16] = 0 }), lenient, ErrMagic},
		{"magic 1", edit(func(b []byte) { b[16] = 1 }), lenient, ErrMagic},
		{"magic 3", edit(func(b []byte) { b[16] = 3 }), lenient, ErrMagic},
		{"checksum", append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), lenient, ErrCRC},
		{"base offset", put64(0, 1), lenient, ErrInvalid},
		{"control", put16(21, bitControl), lenient, ErrInvalid},
		{"codec 5", put16(21, 5), lenient, ErrCodec},
		{"codec 7", put16(21, 7), lenient, ErrCodec},
		{"no records", put32(57, 0), lenient, ErrInvalid},
		{"negative count", put32(57, -3), lenient, ErrInvalid},
		{"count against last offset delta", put32(57, 4), lenient, ErrInvalid},
		{"negative last offset delta", put32(23, -1), lenient, ErrInvalid},
		{"more records than claimed", build(three(), 2, 0), lenient, ErrInvalid},
		{"fewer records than claimed", build(three(), 4, 0), lenient, ErrInvalid},
		{"producer id -2", put64(43, -2), lenient, ErrInvalid},
		{"producer without epoch", pid(func(b []byte) { binary.BigEndian.PutUint16(b[51:], math.MaxUint16) }), lenient, ErrInvalid},
		{"producer without sequence", pid(func(b []byte) { binary.BigEndian.PutUint32(b[53:], math.MaxUint32) }), lenient, ErrInvalid},
		{"transactional without producer", put16(21, bitTransactional), lenient, ErrInvalid},
		{"log append time from a producer", put16(21, bitLogAppendTime), lenient, ErrTimestamp},
		{"too large", good, Rules{BytesMax: len(good) - 1, TimestampMax: math.MaxInt64}, ErrTooLarge},
		{"record too new", good, recent, ErrTimestamp},
		{"compressed, too new", build(compress(t, Gzip, three()), 3, int16(Gzip)), recent, ErrTimestamp},
		{"no key", build(unkeyed, 2, 0), compacted, ErrInvalid},
		{"no key, compressed", build(compress(t, Zstd, unkeyed), 2, int16(Zstd)), compacted, ErrInvalid},
		{"not compressed as it says", build(three(), 3, int16(Gzip)), compacted, ErrInvalid},
		{"negative offset delta", build(append(record(0, 0, nil, nil), record(-1, 0, nil, nil)...), 2, 0), lenient, ErrInvalid},
		{"offset delta skips", build(append(record(0, 0, nil, nil), record(2, 0, nil, nil)...), 2, 0), lenient, ErrInvalid},
		{"record length too long", build([]byte{0x7e, 0, 0, 0, 1, 1, 0}, 1, 0), lenient, ErrInvalid},
		{"header count", build([]byte{14, 0, 0, 0, 1, 1, 0xfe, 0x0f}, 1, 0), lenient, ErrInvalid},
		{"varint of 11 bytes", build(bytes.Repeat([]byte{0xff}, 11), 1, 0), lenient, ErrInvalid},
	} {
		if _, err := Validate(c.b, c.rules); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestRejectedRecordsAreNamed(t *testing.T) {
	rules := lenient
	rules.TimestampMin, rules.TimestampMax = now+5, now+8
	_, err := Validate(build(three(), 3, 0), rules)
	var rejected *RejectedError
	if !errors.As(err, &rejected) || rejected.Total != 2 || rejected.Records[0].Index != 0 || rejected.Records[1].Index != 2 {
		t.Errorf("%+v", err)
	}
}

func TestMaxTimestampIsCorrected(t *testing.T) {
	b := build(three(), 3, 0)
	binary.BigEndian.PutUint64(b[35:], now+77) // the producer overstates it
	sum(b)
	h, err := Validate(b, lenient)
	if err != nil || h.MaxTimestamp != now+9 {
		t.Fatalf("%+v %v", h, err)
	}
	if CheckCRC(b) != nil {
		t.Error("the checksum is not renewed")
	}
	if again, _ := Parse(b); again.MaxTimestamp != now+9 {
		t.Error("the batch still says otherwise")
	}
}

func TestInflate(t *testing.T) {
	src := bytes.Repeat([]byte("some records "), 1000)
	for c := Gzip; c <= Zstd; c++ {
		z := compress(t, c, src)
		got, err := Inflate(c, z, len(src))
		if err != nil || !bytes.Equal(got, src) {
			t.Errorf("%s: %v", c, err)
		}
		if _, err := Inflate(c, z, len(src)-1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s over the limit: %v", c, err)
		}
		if _, err := Inflate(c, z[:len(z)/2], len(src)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s cut short: %v", c, err)
		}
	}
	got, err := Inflate(Snappy, xerial(src[:100], src[100:]), len(src))
	if err != nil || !bytes.Equal(got, src) {
		t.Errorf("xerial: %v", err)
	}
	for name, z := range map[string][]byte{
		"chunk of 2^31-1":    append(xerial(), 0x7f, 0xff, 0xff, 0xff, 1),
		"negative chunk":     append(xerial(), 0xff, 0xff, 0xff, 0xff, 1),
		"cut chunk length":   append(xerial(), 0, 0),
		"block claims 1 GiB": {0x80, 0x80, 0x80, 0x80, 0x04, 0},
	} {
		if _, err := Inflate(Snappy, z, 2<<30); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Inflate(5, nil, 1); !errors.Is(err, ErrCodec) {
		t.Errorf("codec 5: %v", err)
	}
}

// TestBombs gives 64 MiB of zeros to inflate where 1 MiB is allowed.
func TestBombs(t *testing.T) {
	for c := Gzip; c <= Zstd; c++ {
		z := compress(t, c, make([]byte, 64<<20))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := Inflate(c, z, 1<<20); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", c, err)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 24<<20 {
			t.Errorf("%s: a limit of 1 MiB cost %d bytes", c, used)
		}
	}
	// A zstd frame whose window is 2^31 bytes.
	if _, err := Inflate(Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0}, 1<<20); err == nil {
		t.Error("a window of 2 GiB is accepted")
	}
}

func FuzzValidate(f *testing.F) {
	for c := None; c <= Zstd; c++ {
		f.Add(build(compress(f, c, three()), 3, int16(c)))
	}
	f.Add(build(compress(f, Snappy, nil), 3, int16(Snappy)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > HeaderLen {
			sum(b) // look behind the checksum
		}
		rules := lenient
		rules.Keys = true
		h, err := Validate(b, rules)
		if err != nil {
			return
		}
		if h.Length != len(b) || h.Records < 1 || CheckCRC(b) != nil {
			t.Fatalf("accepted %+v", h)
		}
		payload, err := Payload(b, &h, rules.InflatedMax)
		if err != nil {
			t.Fatal(err)
		}
		if err := Walk(payload, h.Records, func(*Record) error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzInflate(f *testing.F) {
	for c := Gzip; c <= Zstd; c++ {
		f.Add(int8(c), compress(f, c, three()))
	}
	f.Add(int8(Snappy), xerial(three()))
	f.Fuzz(func(t *testing.T, c int8, b []byte) {
		out, err := Inflate(Codec(c), b, 1<<20)
		if err == nil && len(out) > 1<<20 {
			t.Fatal("over the limit")
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	var records []byte
	const n = 10_000
	for i := range int32(n) {
		records = append(records, record(i, 0, []byte("some key"), bytes.Repeat([]byte{'x'}, 100))...)
	}
	for _, c := range []Codec{None, Zstd} {
		batch := build(compress(b, c, records), n, int16(c))
		rules := lenient
		rules.BytesMax = len(batch)
		b.Run(c.String(), func(b *testing.B) {
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for range b.N {
				if _, err := Validate(batch, rules); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
