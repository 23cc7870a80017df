// Package wal encodes and decodes what a chain is made of: write-ahead objects,
// checkpoints and manifest pages. It does no I/O; package tiering does.
//
// Vocabulary: a chain is the sequence of objects one incarnation wrote, in
// slots 0, 1, 2, …; an extent is one partition's contiguous run of record
// batches inside an object; a row describes one batch of an extent; a record
// tells of leadership. A position is a byte index inside an object, an offset a
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
//	  8 major          u16 a reader that does not know it refuses the object
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
//	  flags u8 (bit 0 transactional, bit 1 control, bit 2 has producer),
//	  with a producer: id uvarint, epoch uvarint, base sequence uvarint
//
// Offsets are dense: a row begins where the one before it ended.
//
// Records, each: type u8, length uvarint, payload (extra payload bytes of a
// newer minor are ignored, unknown types are skipped):
//
//	1 OPEN     topic id 16, partition uvarint, leader epoch uvarint, base offset uvarint
//	2 RELEASE  topic id 16, partition uvarint, leader epoch uvarint, opened u8,
//	           with opened: partition state (see PartitionState)
//
// # Checkpoint and page
//
// Both are an envelope of 64 bytes (magic "TIDECKPT" or "TIDEPAGE", major u16,
// minor u16, 4 zero bytes, cluster 16, incarnation u64, slot or page number
// u64, raw length u64, CRC32C u32 of the stored body, header CRC32C u32) and a body stored as
// one zstd frame: of a checkpoint, a uvarint count and that many partition states;
// of a page, a uvarint count and that many extent references.
package wal
