// Package broker is the Kafka surface: it listens, decodes requests, serves
// them from the log, the cluster's metadata and the group coordinator, and
// answers in Kafka's words.
//
// Words. A connection has one goroutine that reads and one that writes. A
// request's start runs on the reading goroutine, so the starts of a connection
// run in the order its requests arrived; what start returns, the finish, runs on
// a goroutine of its own and may overlap with others; responses are written in
// arrival order whatever finishes first. Produce appends in its start and waits
// for the commit in its finish, which is how the appends of one connection keep
// their order while their flushes overlap. Every other API does its work in the
// finish, on a lane: finishes of one lane run one after the other. Fetches have
// a lane (a session's epochs must be seen in order), everything that changes
// state has another, and reads of metadata have none.
//
// Bounds. A frame is at most Config.FrameBytesMax; its buffer grows with the
// bytes that have arrived, and all buffers of the process share one budget.
// Package internal/wire prices a request before it is decoded. A connection has
// at most Config.InFlightMax requests at work, after which it is not read.
//
// What becomes of errors is decided in kafkaCode alone; which requests are
// served at which versions in apis alone.
package broker
