// Package txn is the protocol of one transactional id as a state machine: what
// Kafka's transaction coordinator decides, without I/O, goroutines or clocks.
//
//	Empty ──Add──▶ Ongoing ──End──▶ PrepareCommit ──Complete──▶ CompleteCommit
//	  ▲               │  ▲     └──▶ PrepareAbort  ──Complete──▶ CompleteAbort
//	  └──────Init─────┼──┴──────────────────Add─────────────────────┘
//	                  └─Fence─▶ PrepareAbort
//
// A Txn is a value that does not change. Each event returns a Step: the state
// to store, if there is one, and what to answer once it is stored. Whoever drives
// the machine stores one state at a time and goes on from what is stored, so that
// an answer never rests on anything else.
//
// # Epochs
//
// In version 2 of the protocol (KIP-890) every end of a transaction raises the
// producer's epoch, and the markers carry the raised one: what comes late of an
// ended transaction is recognised by its epoch. In version 1 the epoch stays.
// A coordinator that ends a transaction by itself, because of its age or of a new
// instance of the producer, raises the epoch in either version.
//
// A raised epoch that was lost on its way to the producer is told again: Last is
// the identity that the producer had before it asked for the one it has. Who
// still has it and asks again is the same producer. When the coordinator raised
// the epoch unasked, Last is nobody, and the producer is fenced.
package txn
