// Package tcpproxy stands between processes on one machine and breaks what
// passes: it is the network of the fault tests.
//
// Vocabulary: a proxy is one loopback listener before one server. A link is the
// directed way from one source to that server; a proxy that can tell its sources
// apart (see Owner) has a link for each, the others have one, of source "". A
// connection on a link has two ways: up, to the server, and down, back from it.
// A mode says what a link does with bytes and connections, for each way; it can
// be changed at any time and concerns open connections as well as new ones.
//
// Bytes that a mode holds are delivered when it is lifted, as the network's
// retransmissions would; a connection that is cut is reset on both sides.
//
// A Kafka proxy (see NewKafka) also reads the frames that pass. Its rules hold
// chosen requests and deliver them late, after the client has long moved to
// another connection, refuse them in the server's name, or cut the connection
// between a request's effect and its reply.
//
// Every goroutine belongs to a proxy; Close ends and awaits them all.
package tcpproxy
