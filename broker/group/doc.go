// Package group is the classic consumer group protocol as a state machine: it
// decides, and does nothing else. There is no I/O, no goroutine, no clock and no
// randomness in it; whoever drives it passes in the time, the ids of new members
// and the outcome of writes, and carries out the effects that come back.
//
//	            join                 all joined,              leader's sync
//	                                 or rebalance timeout     persisted
//	Empty ───────────▶ PreparingRebalance ───▶ CompletingRebalance ───▶ Stable
//	  ▲                  │    ▲                        │                  │
//	  └── nobody joined ─┘    └── join, leave, expiry ─┴──────────────────┘
//	any state ── deleted ──▶ Dead
//
// Words:
//
//   - a generation is one round of join and sync; its number only grows;
//   - a ticket names a request that waits for its answer; the driver chooses
//     it, the group gives it back in exactly one Reply;
//   - a snapshot is the state to persist. It is issued when a generation has
//     its assignment, when the group becomes empty and when a static member is
//     replaced, and what it reveals is answered only after Persisted says that
//     it, or a later one, is durable.
//
// The semantics are those of Apache Kafka 4.x's classic groups, with the
// numbers of the KIPs where a rule comes from one. Methods are not safe for
// concurrent use.
package group
