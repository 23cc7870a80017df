package tcpproxy

import "time"

// Mode is what a link does to what passes. The zero Mode passes everything.
type Mode struct {
	// Refuse resets the connections that are open when the mode is set, and
	// every new one as soon as it is made.
	Refuse bool
	Up     Way
	Down   Way
}

// Way is what happens to the bytes of one direction.
type Way struct {
	// Block delivers nothing while it is set. The sender is not told.
	Block bool
	// Latency delays every piece, Jitter by up to as much again. Order is kept.
	Latency, Jitter time.Duration
	// Rate limits each connection, in bytes a second; 0: no limit.
	Rate int
	// CutAfter resets a connection when it has carried so many bytes since the
	// mode was set; 0: never.
	CutAfter int64
}

// Blackhole accepts connections and bytes and delivers nothing.
func Blackhole() Mode { return Mode{Up: Way{Block: true}, Down: Way{Block: true}} }

// Refuse resets what is open and what is new.
func Refuse() Mode { return Mode{Refuse: true} }

// BlockUp delivers nothing to the server; what it says still arrives.
func BlockUp() Mode { return Mode{Up: Way{Block: true}} }

// BlockDown delivers requests and no answers.
func BlockDown() Mode { return Mode{Down: Way{Block: true}} }

// Slow delays both ways, so that a round trip takes latency more.
func Slow(latency, jitter time.Duration) Mode {
	w := Way{Latency: latency / 2, Jitter: jitter / 2}
	return Mode{Up: w, Down: w}
}

// Throttle limits each connection to rate bytes a second each way.
func Throttle(rate int) Mode { return Mode{Up: Way{Rate: rate}, Down: Way{Rate: rate}} }

// CutUp resets a connection after n more bytes to the server, in the middle of
// whatever they belong to; CutDown after n more bytes of answers.
func CutUp(n int64) Mode   { return Mode{Up: Way{CutAfter: n}} }
func CutDown(n int64) Mode { return Mode{Down: Way{CutAfter: n}} }
