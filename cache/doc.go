// Package cache keeps chunks of immutable objects near the readers: the hottest
// in memory, more of them on disk. It knows keys and bytes, and nothing of what
// they mean.
//
// A chunk is a fixed-size piece of an object (shorter at the object's end),
// named by the object's key and the chunk's index. Because objects never change,
// a chunk is either right or damaged, never stale. The disk is never trusted:
// every chunk carries a checksum that is verified each time it is read, and one
// that fails counts as a miss and is deleted. Losing the directory, part of it,
// or the ability to write to it costs speed and nothing else.
//
// A reader's way: memory, else a load of that chunk already under way, else the
// disk, else the load function the reader brought. However many readers want a
// chunk, it is loaded once; a reader that gives up does not disturb the others,
// and the last one to give up cancels the load. Loads are bounded in number and
// bytes; prefetches get at most half of them, so that a reader who waits is not
// held up by what another may want later. Those who wait for a load take turns by
// reader, and by what one reader reads (package flow): a reader that asks for much
// delays the others by one chunk at a time.
//
// The directory:
//
//	lock              locked while the cache is open
//	owner             format version and cluster; anything else there: start empty
//	<h2>/<hash>-<index>-<size>   one file per chunk
//
// where h2 are the first two digits of hash, the first half of the SHA-256 of
// the key; index and size (of the file, header included) are in hexadecimal too,
// so that the index in memory is rebuilt without opening a file. A chunk file:
//
//	+-------+---------+---+---------+-------+---------+----------+-----+---------+------+
//	| magic | version | 0 | key len | index | length  | CRC32C   | key | CRC32C  | data |
//	| 4     | 1       | 1 | 2       | 8     | of data | of data  |     | of all  |      |
//	|       |         |   |         |       | 4       | 4        |     | before 4|      |
//	+-------+---------+---+---------+-------+---------+----------+-----+---------+------+
//
// Integers are big-endian. Files are written in place and not synced: a file cut
// short by a crash has not the size its name says, or fails its checksum.
//
// What stays on disk is decided by a small probationary queue, a main queue and
// a memory of recent evictions (the S3-FIFO scheme; see policy): what is read
// once, as by a consumer that reads a log from its beginning, passes through the
// small queue and displaces nothing that is read again and again.
package cache
