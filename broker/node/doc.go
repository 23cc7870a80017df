// Package node runs a broker: it assembles the parts of an incarnation, runs
// them together, drains them, and goes on with a new incarnation when others
// have ended the old one.
//
// Words: a process is one call of Run; it lives through one incarnation after
// the other, each with a registration, a chain, listeners and metrics of its
// own. What outlives an incarnation (bucket, metadata store, cache, identity)
// is handed in, opened and checked by the caller: the command, or a test that
// brings all of it in memory and on fake time.
//
// An incarnation starts in this order: listen, ask the bucket whether etcd has
// been put back in time, register, start the chain, build
// the parts, run them, answer clients once the view is loaded. It ends in the
// order that drain describes, or at once when its chain is sealed.
package node
