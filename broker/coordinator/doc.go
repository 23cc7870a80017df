// Package coordinator runs the classic consumer groups of the shards that this
// broker coordinates: it loads them from the metadata store, drives package
// group with requests and time, and makes what groups decide durable.
//
// Words:
//
//   - a shard is one of metadata.GroupShards slices of all groups; ShardOf says
//     which one a group belongs to;
//   - the shard key, coordinators/<shard>, says who coordinates the shard. It is
//     written by the controller; its revision guards every write made here, so
//     that a coordinator that was replaced can write nothing any more;
//   - a term is one load of a shard in this process. What was begun in an earlier
//     term has no effect on a later one;
//   - a chunk is the offsets of up to 64 partitions of one topic and group.
//
// Keys, below the cluster's root. <group> is the group id, percent-encoded:
//
//	groups/<shard>/<group>/h                  header: generation, protocol, leader, members
//	groups/<shard>/<group>/m/<n>/<part>       one member, in parts of at most 256 KiB
//	offsets/<shard>/<group>/<topic id>/<c>    one chunk
//
// Member keys are written before the header that names them and are never
// written again under the same number; what no header names does not count. So
// a generation of any size appears at once, with its header.
//
// # Ambiguous writes
//
// A write that was not answered may be applied now or later. Writes therefore
// also compare the revisions of the keys they replace: sent again, a write
// takes effect once, and a delayed copy of an old one none at all. When the
// fate of a write cannot be learnt within its deadline, the shard key is
// rewritten under its revision, which voids whatever is still under way, and the
// shard is loaded again before it serves.
//
// # Locks
//
// shard.mu guards a shard and all its groups. The committer's lock is taken
// after it, never before. No lock is held across a call to the store.
package coordinator
