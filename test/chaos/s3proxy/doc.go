// Package s3proxy stands before an object store and lies, as far as a store, the
// network before it and its operators' other software may.
//
// It is an HTTP proxy. What the client signed is forwarded unchanged, the Host
// header included, so signatures stay valid. Rules pick requests by operation,
// key, probability and number; a mode says what becomes of a request that was
// picked. Every rule counts what it saw, what it hit, and what came of that,
// for a fault that never happened shows nothing.
//
// Whatever the rules do, the proxy remembers which keys the store said it had
// created, and how often it said so twice: see Overwritten.
//
// Requests that a mode delivers late belong to the proxy; Close drops and
// awaits them.
package s3proxy
