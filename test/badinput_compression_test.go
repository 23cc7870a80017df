package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// badCompressionCases go into a compacted topic, where the broker looks for
// keys and so has to inflate. Elsewhere it does not, whatever is claimed.
func badCompressionCases() []badCase {
	return []badCase{
		{"sound batches", soundBatches},
		{"bombs into a compacted topic", bombsRefused},
		{"bombs into a compacted topic, eight at once", bombsAtOnce},
		{"one record of many MiB", inflatedRecord},
		{"bombs into a topic that is not compacted", bombsStored},
		{"lookups by time in a bomb that is stored", bombsLookedUp},
		{"damaged streams", damagedStreams},
		{"records without a key", keylessCompressed},
	}
}

// bomb is a codec's bad input: a mebibyte that inflates, or claims to, to a
// gibibyte, made of repeated frames or a false size. Sound is one good record.
type bomb struct {
	codec       uint16
	sound, boom []byte
	keyless     []byte
	compress    func([]byte) []byte
}

var bombs = func() func(t *testing.T) map[string]bomb {
	var made map[string]bomb
	var once sync.Once
	return func(t *testing.T) map[string]bomb {
		t.Helper()
		once.Do(func() { made = makeBombs() })
		return made
	}
}()

const (
	bombPiece  = 16 << 20 // of zeros, compressed once
	bombPieces = 64       // make 1 GiB
)

func makeBombs() map[string]bomb {
	made := make(map[string]bomb)
	for i, c := range []struct {
		name     string
		compress func([]byte) []byte
	}{
		{"gzip", streamed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })},
		{"snappy", func(b []byte) []byte { return snappy.Encode(nil, b) }},
		{"lz4", streamed(func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) })},
		{"zstd", streamed(func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z })},
	} {
		b := bomb{codec: uint16(i + 1), compress: c.compress,
			sound:   c.compress(badRecord(0, 0, []byte("key"), []byte("value"))),
			keyless: c.compress(append(sizedRecord(0, -1), sizedRecord(1, -1)...)),
		}
		if c.name == "snappy" {
			// Blocks after one another, in the framing of Java's streams.
			block := c.compress(make([]byte, 1<<20))
			b.boom = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1}
			for len(b.boom)+4+len(block) < 1<<20-batchHeader {
				b.boom = append(binary.BigEndian.AppendUint32(b.boom, uint32(len(block))), block...)
			}
		} else {
			b.boom = bytes.Repeat(c.compress(make([]byte, bombPiece)), bombPieces)
			b.boom = b.boom[:min(len(b.boom), 1<<20-batchHeader)]
		}
		made[c.name] = b
	}
	return made
}

func streamed(to func(io.Writer) io.WriteCloser) func([]byte) []byte {
	return func(b []byte) []byte {
		var out bytes.Buffer
		w := to(&out)
		_, _ = w.Write(b) // into memory
		_ = w.Close()
		return out.Bytes()
	}
}

// sizedRecord is a record with a null value and a key of the length given, which
// is null or nothing.
func sizedRecord(offset, key int64) []byte {
	body := binary.AppendVarint([]byte{0, 0}, offset)
	return sized(append(binary.AppendVarint(body, key), 1, 0))
}

// takenRecords produces to the topic whose high watermark may move, and wants no
// error.
func (r *badRig) takenRecords(t *testing.T, what string, records []byte) {
	t.Helper()
	got := r.conn.ask(t, badProduce(badAccepted, records), 9).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	if got.ErrorCode != 0 {
		t.Errorf("%s: %v", what, kerr.ErrorForCode(got.ErrorCode))
	}
}

// soundBatches shows that what follows is refused for what is wrong with it: a
// good batch is only refused for being more than one.
func soundBatches(t *testing.T, r *badRig) {
	for name, b := range bombs(t) {
		r.takenRecords(t, name, wrap(b.sound, 1, b.codec))
		r.refusedRecords(t, badCompacted, 9, wrap(b.sound, 2, b.codec), kerr.InvalidRecord)
	}
}

func bombsRefused(t *testing.T, r *badRig) {
	for name, b := range bombs(t) {
		t.Logf("%s: %d KiB", name, len(b.boom)>>10)
		r.refusedRecords(t, badCompacted, 9, wrap(b.boom, 1, b.codec), kerr.MessageTooLarge, kerr.InvalidRecord)
	}
	huge := binary.AppendUvarint(nil, 1<<30) // a block's own idea of its size
	r.refusedRecords(t, badCompacted, 9, wrap(append(huge, make([]byte, 1<<19)...), 1, 2), kerr.MessageTooLarge, kerr.InvalidRecord)
	huge = binary.AppendUvarint(nil, math.MaxUint32)
	r.refusedRecords(t, badCompacted, 9, wrap(append(huge, 0, 0), 1, 2), kerr.MessageTooLarge, kerr.InvalidRecord)
}

func bombsAtOnce(t *testing.T, r *badRig) {
	var all sync.WaitGroup
	defer all.Wait()
	for range 2 {
		for _, b := range bombs(t) {
			c, req := r.dial(t), badProduce(badCompacted, wrap(b.boom, 1, b.codec))
			all.Go(func() {
				resp, err := c.try(req, 9)
				if err != nil {
					t.Error(err)
				} else if resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode == 0 {
					t.Error("a bomb is taken")
				}
			})
		}
	}
}

// inflatedRecord: what is refused as too large is not held in memory first.
func inflatedRecord(t *testing.T, r *badRig) {
	for name, b := range bombs(t) {
		for _, mib := range []int{15, 63} {
			records := b.compress(badRecord(1, 0, []byte("key"), make([]byte, mib<<20))) // its offset is wrong
			if len(records) > 900<<10 {
				continue // snappy does not get there
			}
			t.Logf("%s: %d MiB in %d KiB", name, mib, len(records)>>10)
			r.refusedRecords(t, badCompacted, 9, wrap(records, 1, b.codec), kerr.MessageTooLarge, kerr.InvalidRecord)
		}
	}
}

// bombsStored: a batch that is not inflated costs its own bytes, when it is
// written and when it is read.
func bombsStored(t *testing.T, r *badRig) {
	for name, b := range bombs(t) {
		r.takenRecords(t, name, wrap(b.boom, 1, b.codec))
	}
	end, err := r.highWatermark(t, badAccepted)
	if err != nil {
		t.Fatal(err)
	}
	got := r.conn.ask(t, badFetch(badAccepted, end-1), 11).(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if got.ErrorCode != 0 || len(got.RecordBatches) == 0 {
		t.Errorf("read of a bomb: error code %d, %d bytes", got.ErrorCode, len(got.RecordBatches))
	}
}

// bombsLookedUp: a time within a compressed batch is looked for in its records,
// for as many clients at once as ask.
func bombsLookedUp(t *testing.T, r *badRig) {
	var all sync.WaitGroup
	defer all.Wait()
	for name, b := range bombs(t) {
		const early = 1000
		records := edited(wrap(b.boom, 1, b.codec), atBaseTime, 8, early)
		r.takenRecords(t, name, edited(records, atMaxTime, 8, time.Now().Add(time.Minute).UnixMilli()))
		for range 8 {
			c := r.dial(t)
			all.Go(func() {
				req := endOf(badAccepted)
				req.Topics[0].Partitions[0].Timestamp = time.Now().Add(30 * time.Second).UnixMilli()
				resp, err := c.try(req, 4)
				if err != nil {
					t.Error(err)
				} else if got := resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]; got.ErrorCode != 0 || got.Offset < 0 {
					t.Errorf("%s: offset %d, %v", name, got.Offset, kerr.ErrorForCode(got.ErrorCode))
				}
			})
		}
	}
}

func damagedStreams(t *testing.T, r *badRig) {
	refused := func(what string, codec uint16, stream []byte) {
		t.Run(what, func(t *testing.T) {
			r.refusedRecords(t, badCompacted, 9, wrap(stream, 1, codec), kerr.InvalidRecord, kerr.MessageTooLarge)
		})
	}
	for name, b := range bombs(t) {
		refused(name+" empty", b.codec, nil)
		refused(name+" that is none", b.codec, []byte("not compressed at all"))
		refused(name+" with junk behind it", b.codec, append(bytes.Clone(b.sound), "junk behind"...))
		refused(name+" that holds another byte", b.codec, b.compress(append(badRecord(0, 0, []byte("key"), nil), 0)))
		refused(name+" that holds nothing", b.codec, b.compress(nil))
		for _, cut := range []int{1, len(b.sound) / 2, len(b.sound) - 1} {
			if name == "gzip" || name == "zstd" || name == "lz4" && cut < len(b.sound)-1 || name == "snappy" {
				refused(fmt.Sprintf("%s cut at %d", name, cut), b.codec, b.sound[:cut])
			}
		}
	}
	xerial := []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1}
	for name, tail := range map[string][]byte{
		"of 2^31-1 bytes": {0x7f, 0xff, 0xff, 0xff, 0}, "of 2^32-1 bytes": {0xff, 0xff, 0xff, 0xff, 0},
		"of no bytes": {0, 0, 0, 0}, "cut short": {0, 0},
	} {
		refused("snappy block "+name, 2, append(bytes.Clone(xerial), tail...))
	}
	// Frame headers: a window of 3.75 TiB, and a content of 2^60 bytes.
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	refused("zstd with the largest window", 4, append(bytes.Clone(magic), 0, 0xff, 0, 0, 0))
	refused("zstd with a window of 128 MiB", 4, append(bytes.Clone(magic), 0, 17<<3, 1, 0, 0))
	refused("zstd with a content of 2^60 bytes", 4, append(bytes.Clone(magic), 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0))
}

func keylessCompressed(t *testing.T, r *badRig) {
	for name, b := range bombs(t) {
		resp := r.conn.ask(t, badProduce(badCompacted, wrap(b.keyless, 2, b.codec)), 9).(*kmsg.ProduceResponse)
		got := resp.Topics[0].Partitions[0]
		if got.ErrorCode != kerr.InvalidRecord.Code || len(got.ErrorRecords) != 2 {
			t.Errorf("%s: %v with %d records named", name, kerr.ErrorForCode(got.ErrorCode), len(got.ErrorRecords))
		}
	}
}
