// Package model checks the protocols on which every acknowledgement rests by
// visiting all states that they can get into, within bounds, and by showing that
// each of their guards is needed. It does no I/O and runs none of the broker's
// code: what is checked here is the reasoning behind package tiering, and the
// owner lists of package metadata.
//
//	go test ./test/model            some ten million states, half a minute on one core
//	go test -short ./test/model     smaller bounds, a second or two
//	go test -v ./test/model         prints every counterexample
//
// A model is a set of rules, one for each guard, and the zero value is the
// protocol as it is built. It must be explored to the end without a broken
// promise, and every kind of step must occur. With any one guard taken away, a
// counterexample must be found: a guard whose loss goes unnoticed is either not
// needed or not modelled, and its test fails.
//
// # Vocabulary
//
// Slot, chain, fence, CLOSE, seal, trim mark, checkpoint, OPEN and RELEASE are
// the words of package tiering. A mark or an end m stands for the slots below m.
// The heirs are the incarnations that lead what a sealed chain led. A mutant is
// a model with one guard taken away.
//
// # The chain
//
// One writer with several PUTs in flight and, if it likes, a CLOSE; two sealers;
// checkpoints, trim marks and the deletion of objects; the heirs, who delete
// what a sealed chain leaves; optionally a copy of the writer's process that
// writes other bytes under its name, and readers who ask whether the writer
// still leads. Promised: an acknowledged slot lies below the end and holds its
// bytes; all who find an end find the same; what the recorded checkpoint and the
// slots up to the end are needed for is there; no proof of leadership succeeds
// that was begun after the end was recorded.
//
// Agreement is asked of the ends that sealers find, before they look at the
// record: so the record, which is written if absent, is a second line of defence
// here and has no mutant.
//
// One rule of deletion only readers need: the heirs leave the newest slots, as
// many as there may be PUTs in flight. A writer that does not know that it was
// sealed looks there, and tries there again.
//
// # The hand-over
//
// One partition, three incarnations, one chain each. They claim the partition by
// compare-and-swap, the same one repeatedly, learn of their claim or do not,
// open, append, release by consent, checkpoint, trim the owner list by a request
// that may come late, forget what they released, CLOSE, and are sealed, rightly
// or wrongly, at any time. Promised: no offset is acknowledged twice; whoever
// opens inherits every acknowledged record, in a log without gap or overlap; and
// in every state a newcomer who seals everything would.
//
// # The collection
//
// One partition whose extents lie in the chains of its leaders, one after the
// other, the same incarnation again among them. Leaders upload segments, commit
// their ADDs or do not, checkpoint, write down what they owe of other chains,
// drop owner entries, release and forget, and raise the marks of their own
// chains, in steps between which the partition may leave and come back. Of the
// debts that they write, one is sent and not answered: it arrives later or never,
// and is void once the debt was written again. A collector raises the marks of
// sealed chains, from owner lists and debts as they were when it looked; two kinds
// of sweepers delete segments that nobody names, one of them while it may be
// deposed. Promised: what the newest manifest names, extent or segment, is there,
// and no chain that the next leader has to replay is taken for inherited. That it
// is the newest is enough: what an older one names, a reader who misses it looks
// up again.
//
// # The transactions
//
// One producer that runs one transaction after the other, two partitions, two
// owners of the coordinator's shard. The client sends batches, asks for a commit
// or an abort, and goes on; requests that it gave up on arrive later. Leaders ask
// about partitions, append, and take markers; the coordinator decides, at a
// request or because it took too long, sends markers, completes, is deposed and
// goes on sending. Two ways: every transaction has an epoch of its own, and
// requests and markers may come at any time and again; or all have one, and then
// what the old protocol cannot tell apart is left out. Promised: what a
// transaction wrote is shown in all partitions if its client committed it and the
// coordinator did, else nowhere; and nothing of it stays open once it is complete.
//
// # What is left out
//
// Time: an actor that waits, crashes or is paused is one that takes no step for
// a while, or ever. Lost messages likewise: a request that was sent may be
// delivered at any time, any number of times, or never, and its answer may not
// arrive. So retries cost nothing and are not bounded. Nothing says that
// anything ever happens: the models are about safety, not liveness. Reads of the
// bucket and of the metadata store are linearizable, as their conformance suites
// demand. The bytes of records, producers' state, several partitions in one
// chain, and the damage of stored bytes are not modelled. In the hand-over a
// chain takes one record at a time and acknowledges it at once, and sealing is
// one step: the chain model is what allows that. Waiting for a predecessor is
// not a step; an OPEN is possible once all that must be closed is.
//
// # Reading a trace
//
// A trace lists the steps from the start to the first broken promise; none is
// shorter. A step names who took it and what it was about. Nothing is said of
// what was sent and never arrived, nor of those who did nothing. The two sealers
// are alike and change names when one overtakes the other.
package model
