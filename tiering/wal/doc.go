// Package wal encodes and decodes what a log is made of: write-ahead objects,
// checkpoints, segments and manifest pages. It does no I/O; package tiering does.
//
// Vocabulary: a chain is the sequence of objects one incarnation wrote, in
// slots 0, 1, 2, …; an extent is one partition's contiguous run of record
// batches inside an object; a row describes one batch of an extent; a record
// tells of leadership and of manifests; a segment is a large object that batches
// of extents were moved to, a section one partition's part of it, a block a run of
// batches in a section. A position is a byte index inside an object, an offset a
// place in a Kafka log.
//
// # The object
//
// All integers are big-endian. varint and uvarint are those of encoding/binary.
//
//	+--------+-------+---------+--------+------+
//	| header | index | records | digest | data |
//	+--------+-------+---------+--------+------+
//	|<-------------- head -------------->|
//
// The head alone is enough to seal a chain and to recover its partitions; one
// small ranged read fetches it. Header, 152 bytes:
//
//	  0 magic          8   "TIDEMARK"
//	  8 major          u16 3; a reader refuses the object of a newer one. 2 is read
//	                       as well: it had no control batches, and its partition
//	                       states end before the transactions
//	 10 minor          u16 a reader ignores what a newer minor appends
//	 12 kind           u8  1 START, 2 DATA, 3 CLOSE, 4 FENCE; 3 zero bytes follow
//	 16 cluster        16  cluster id
//	 32 incarnation    u64 whose chain
//	 40 slot           u64
//	 48 previous       32  digest of slot-1; zero in slot 0 and in a FENCE
//	 80 acknowledged   u64 slots below it were acknowledged when this was encoded
//	 88 checkpoint     u64 newest durable checkpoint; in a CLOSE it equals slot
//	 96 head length    u32 header, index, records and digest together
//	100 index length   u32
//	104 records length u32
//	108 extents        u32
//	112 data length    u64
//	120 data hash      u64 XXH64 of data
//	128 writer         u64 incarnation that wrote the object: the sealer of a FENCE
//	136 reserved       8   zero
//	144 body CRC32C    u32 of index and records
//	148 header CRC32C  u32 of bytes 0 to 147
//
// The digest is SHA-256 of header, index and records. The header covers the
// data through its hash, the index through each extent's CRC32C, so two objects
// of equal digest have equal bytes.
//
// Index, one entry an extent:
//
//	topic id 16, partition uvarint, leader epoch uvarint,
//	flags u8 (bit 0: stored as one zstd frame),
//	position in data uvarint, stored length uvarint, raw length uvarint (present if stored compressed),
//	base offset uvarint, CRC32C u32 of the stored bytes,
//	rows uvarint, then per row:
//	  length uvarint, last offset delta uvarint, max timestamp varint,
//	  flags u8 (bit 0 transactional, bit 1 control, bit 2 has producer, bit 3 commit),
//	  with a producer: id uvarint, epoch uvarint, base sequence uvarint (of 32 bits),
//	  of a control batch: coordinator epoch uvarint (of 32 bits)
//
// Offsets are dense: a row begins where the one before it ended.
//
// Records, each: type u8, length uvarint, payload (extra payload bytes of a
// newer minor are ignored, unknown types are skipped):
//
//	1 OPEN     topic id 16, partition uvarint, leader epoch uvarint, base offset uvarint
//	2 RELEASE  topic id 16, partition uvarint, leader epoch uvarint, opened u8,
//	           with opened: length uvarint, partition state
//	3 TRIM     slot uvarint: nothing rests on the slots below it any more
//	4 ADD      topic id 16, partition uvarint, leader epoch uvarint, segment reference:
//	           the segment takes the place of the partition's oldest extents, which end where it ends
//	6 LOGSTART topic id 16, partition uvarint, leader epoch uvarint, offset uvarint:
//	           the log begins there; what ends below it leaves the manifest
//
// Within one object, extents come before records.
//
// # The segment
//
// A segment holds the batches of one partition, or of several, in the order of
// topic id, partition and offset.
//
//	+--------+-----------+-----+-----------+---------+-----+---------+
//	| header | section 0 | ... | section n | block 0 | ... | block m |
//	+--------+-----------+-----+-----------+---------+-----+---------+
//	|<--------------- head -------------->|<-------- data -------->|
//
// Header, 96 bytes:
//
//	 0 magic          8   "TIDESEGM"
//	 8 major, minor   u16 u16, as above
//	12 flags          u8  bit 0: shared by partitions; 3 zero bytes follow
//	16 cluster        16
//	32 incarnation    u64 that wrote it
//	40 name           16  the ULID in its key
//	56 created        u64 milliseconds since the epoch
//	64 head length    u32
//	68 sections       u32
//	72 data length    u64
//	80 data CRC32C    u32
//	84 sections CRC32C u32
//	88 reserved       4   zero
//	92 header CRC32C  u32 of bytes 0 to 91
//
// Each section is preceded by its length, a uvarint. A manifest names position,
// length and CRC32C of a section, so that a reader needs no header:
//
//	topic id 16, partition uvarint, leader epoch uvarint (that wrote it),
//	base offset uvarint, position of the first block in the object u64,
//	digest: batches uvarint, records uvarint, bytes uvarint, sum u64,
//	blocks uvarint, then per block:
//	  flags u8 (bit 0: stored as one zstd frame), leader epoch uvarint,
//	  stored length uvarint, raw length uvarint (present if a zstd frame),
//	  last offset uvarint (less the block's base), max timestamp varint, CRC32C u32 of the stored bytes,
//	extras uvarint, then per extra: type u8, length uvarint, bytes; unknown types are skipped:
//	  1 producers: uvarint count, then as in a partition state what the section's
//	    batches did to the idempotent producers (2 and 3 are kept for aborted
//	    transactions and key blocks; the former are in the partition state)
//
// A block begins where the one before it ended, in offsets and in bytes. A zstd
// frame is storage framing and undone before anything is served. The digest does
// not depend on order or framing: bytes are counted as served, sum adds up the
// XXH64 of each batch as served, modulo 2^64.
//
// A segment reference: flags u8 (bit 0 shared), incarnation uvarint, leader epoch
// uvarint, name 16, base offset uvarint, last offset uvarint (less the base), max
// timestamp varint, position, length uvarint and CRC32C u32 of the section, stored
// bytes uvarint, digest.
//
// # Partition state
//
//	topic id 16, partition, leader epoch, log start offset, end offset (all uvarint),
//	epochs uvarint, each: epoch uvarint, start offset uvarint,
//	pages of segments, segment references (a uvarint count each),
//	tiered uvarint: segments cover the log up to it, or did until the log start passed it,
//	pages of extents, next page number uvarint, extent references,
//	flags u8 (bit 0: some producer was forgotten for age),
//	producers uvarint, each: id, epoch uvarint, updated varint, batches uvarint, each:
//	  base sequence, last offset delta, base offset uvarint, timestamp varint (less updated),
//	transactional producers uvarint, each, in the order of the producers:
//	  id, first offset of the open transaction (plus 1, 0 none), highest coordinator
//	  epoch (plus 1, 0 none) uvarint, newest timestamp varint (less updated),
//	pages of aborted transactions (a uvarint count), aborted transactions uvarint, each, in
//	the order of their markers:
//	  producer id, marker offset (less the one before), first offset (less than the
//	  marker's by) uvarint
//
// A page reference: leader epoch, number, base offset, last offset (less the base)
// uvarint, max timestamp varint, entries, bytes uvarint, floors uvarint, each:
// incarnation uvarint, lowest slot uvarint. Of a page of aborted transactions the base
// is the lowest first offset, the last offset that of the newest marker.
//
// # Checkpoint and page
//
// All are an envelope of 64 bytes (magic "TIDECKPT", "TIDEPAGE", "TIDESGPG" or
// "TIDEABPG", major u16, minor u16, 4 zero bytes, cluster 16, incarnation u64, slot or page number
// u64, raw length u64, CRC32C u32 of the stored body, header CRC32C u32) and a body
// stored as one zstd frame: of a checkpoint, a uvarint count and that many
// partition states, each preceded by its length as a uvarint; of a page, a uvarint
// count and that many extent references ("TIDEPAGE"), segment references
// ("TIDESGPG") or aborted transactions ("TIDEABPG").
package wal
