// Package sim runs whole clusters, and their clients, on fake time, with faults
// that follow from a seed. What runs is the code of the binary: package
// broker/node, with everything below it, over a bucket and an etcd in memory and
// a network of buffers.
//
// # Words
//
// A world is one simulated run. Its weather is what a seed makes of it: rates at
// which requests get lost, are refused, answered wrongly, late or twice, and a
// plan of mishaps, which befall processes and links at given times: crashes,
// pauses, twins, cuts, outages, lost leases. A call is a request to the bucket,
// to etcd, to a peer or to a broker, or the answer to one. The director sees a
// run through; the judge holds what clients saw against what is promised.
//
// # The scheduler
//
// Every call parks, and one goroutine (World.run) releases them: when nothing
// else in the bubble can run (synctest.Wait), it takes the call that is due
// first, or lets time pass until one is. Requests are applied by the scheduler
// itself, so that bucket and etcd change in one order. How long a call takes, and
// what becomes of it, is drawn by its name (who, what, which key, which attempt
// or moment) and not in the order in which calls come: one call more or less,
// and the Go runtime decides some things by lot, changes nothing for the others.
//
// A request outlives its sender. One that timed out arrives all the same, or
// not; so do those of a process that was killed, and those that a paused process
// had queued. A killed process's goroutines run on until they notice, but all
// its handles are dead. The clock of a paused process runs on, as CLOCK_BOOTTIME
// does, and so do its timers, which those of a stopped process would not: it
// wakes to timeouts that have fired. What others see of it is the same.
//
// # A run
//
// Three brokers start, and clients: idempotent producers with up to five batches
// in flight, some of which begin at the wrong broker, or send copies of old
// batches to any broker; a plain one; readers, with and without leader epochs;
// members of a group; committers; probers, which ask brokers that do not lead
// what only leaders may answer. In every other world brokers write segments, trim,
// collect and sweep all the time. For 12 to 25 s things go wrong. Then everything
// heals, and has to be well again in 10 s (leaders) and 15 s (acknowledgements);
// two fresh consumers at each broker read everything; processes end, in good
// order and not; the latest requests arrive; and tiering/audit walks bucket and
// etcd. Package test/checker judges the history.
//
// # Running it
//
//	go test ./test/sim                                   100 seeds; 50 with -short (16 with -race); 1,000 where CI is set
//	TIDEMARK_SEEDS=5000 go test ./test/sim -timeout 2h   that many
//	TIDEMARK_FIRST_SEED=7 …                              from that one on
//	TIDEMARK_SEED=7 go test ./test/sim -run TestSeeds    only that one
//	TIDEMARK_SEED=7 TIDEMARK_TIMES=10 …                  ten times
//	TIDEMARK_TRACE=1 …                                   keep traces of good runs too
//	TIDEMARK_ARTIFACTS=dir …                             where to; else the directory for temporary files
//	TIDEMARK_SEEDED=all go test ./test/sim -run Seeded   every seeded bug; else two by turns
//
// A seed that breaks something is told with what it broke, its trace (releases,
// faults, logs and clients in one sequence) and its history. A panic in a broker
// breaks something as well; of one that ends the process the trace is kept, in
// memory that a file backs, and the history is not. A seed is rerun with the
// second to last line of that; nine of ten reruns and more fail again. What
// the runtime decides by lot (select, the order of maps, which of two goroutines
// goes on at one instant) is left to the race detector and to the chaos rig.
package sim
