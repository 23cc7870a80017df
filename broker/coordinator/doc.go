// Package coordinator runs the groups of the shards that this broker
// coordinates, of the classic protocol and of the consumer protocol (KIP-848), and
// their transactional ids: it loads them from the metadata store, drives the
// state machines of packages group, consumer and txn with requests and time, and
// makes what they decide durable.
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
//   - a chunk is the offsets of up to 64 partitions of one topic and group;
//   - an image is the topics that exist, as the view shows them at one moment.
//
// Keys, below the cluster's root. <group> is the group id, percent-encoded:
//
//	groups/<shard>/<group>/h                  header: protocol, generation or epochs, members
//	groups/<shard>/<group>/m/<n>/<part>       one member, in parts of at most 256 KiB
//	offsets/<shard>/<group>/<topic id>/<c>    one chunk, with the pending offsets of transactions
//	txns/<shard>/<transactional id>           one transactional id, percent-encoded as well
//
// Member keys are written before the header that names them and are never
// written again under the same number; what no header names does not count. So
// a generation of any size appears at once, with its header. A header of format
// 1 is of a classic group, of format 2 of a consumer group; a group that changes
// its protocol is written like any other new state of it.
//
// # Replies and writes
//
// A reply that reveals a state waits until that state, or a later one, is
// stored. Of a consumer group one state is written at a time, and what changed
// meanwhile in the next: a thousand members that join at once cost a few writes.
// A state is written when the commits accepted before it are decided, so that
// none of a former owner succeeds once another has the partition. If a consumer
// group's state cannot be stored, the group goes back to the one that is.
//
// # Transactions
//
// A state of a transactional id counts when it is stored: requests wait for the
// one that is being written and decide on what it left. A prepared transaction has
// a goroutine that sends its markers until all are answered, and then stores the
// end; it ends with the shard's term. A marker for a shard's groups ends what is
// pending of its producer, behind the commits that were accepted before, and voids
// the answers of coordinators that are on their way to later ones.
//
// # __consumer_offsets
//
// The mirror copies offsets and classic groups into that topic, for tools that
// read it. It is behind the store by its interval and may miss what a failure
// swallowed, until everything is copied again; it never has what the store has
// not. Nothing reads it back.
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
// shard.mu guards a shard and all it has. The locks of the committer, the writer of
// transactions, the mirror and the images are taken after it, never before. No lock is held
// across a call to the store or the log, nor while expressions are matched.
package coordinator
