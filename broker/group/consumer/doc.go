// Package consumer is the consumer group protocol of KIP-848 as a state machine:
// it decides, and does nothing else. There is no I/O, no goroutine, no clock and
// no randomness in it; whoever drives it passes in the time, the topics that
// exist, the ids of new members and what regular expressions match.
//
// Words:
//
//   - the group epoch grows when what has to be assigned changes: a member, a
//     subscription, the partitions of a topic;
//   - the target is what every member should have. The assignment epoch is the
//     group epoch it was computed for;
//   - a member is reconciled towards its target by its heartbeats: it first gives
//     up what is not in the target, then its epoch becomes the target's, and then
//     it is given what nobody else has any more;
//   - a partition has an owner from the moment it is assigned until its member
//     says, by no longer naming it among what it owns, that it was given up;
//   - a classic member speaks the classic protocol, with the consumer's
//     subscription embedded in it, to a group of this kind (online migration).
//
// A member's state:
//
//	          target needs nothing revoked
//	  ┌──────────────────────────────────────────────┐
//	  │                                              ▼
//	Stable ──▶ Unrevoked ── owns no revoked ──▶ Unreleased ── all free ──▶ Stable
//	   target   partition any more, epoch :=        others still own
//	   changed                        target        what it should get
//
// Members are values that do not change: an event replaces them. So a snapshot
// is a list of pointers, and the driver sees by identity which members have to
// be written again. Whatever a reply reveals must be durable before it is sent:
// the driver waits for the newest snapshot that was issued.
//
// The semantics are those of Apache Kafka 4.3's group coordinator, with the
// numbers of the KIPs where a rule comes from one. Methods are not safe for
// concurrent use.
package consumer
