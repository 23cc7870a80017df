// Package cluster turns single brokers into a cluster: it notices brokers that
// are gone, elects a controller, assigns partitions and group shards, and makes
// each broker lead what it was assigned.
//
// # Words
//
// The preferred broker of a partition is the one the controller wants to lead
// it. A claim is a broker's entry in a partition's owner list, with an epoch. A
// verdict is what one broker holds of another: live, suspect, stuck, absent,
// dead or condemned (see verdict). The actor is the broker whose turn it is to
// seal the chains of others.
//
// # Who does what
//
//	detector    every broker: a stream to each peer, probes on cause, verdicts
//	guardian    the actor: decides which chains to seal, and has the log do it
//	controller  the one that holds the controller key: assigns, under that key
//	leadership  every broker: claims, leads, releases, trims owner lists
//
// Nothing here is trusted for safety. A wrong verdict costs a broker its
// incarnation, two controllers exclude each other in the store, and whether a
// partition may be opened is for the log to find out in the bucket.
//
// # Leaving
//
// Drain, in order: the broker claims nothing more and marks its registration
// as draining; the controller prefers other brokers; these claim and ask for
// releases, partition by partition, while the rest is still served; then, or
// as soon as nothing moves any more and nothing is about to, the log closes
// its chain; then the registration ends; then Run returns. Who asks for a
// release when the chain is being closed already waits for that: it is the
// release of everything, and to seal the chain instead would undo it. The
// alternative, to close the chain first, needs no releases but leaves every
// partition without a leader from the first step to the last; it is what
// happens to whatever was not taken over in time, and to all of it when
// there is no other broker.
//
// # Locks
//
// detector.mu, leadership.mu and guardian.mu are leaves: none is held while
// another one is taken, except signal.mu, or during I/O.
package cluster
