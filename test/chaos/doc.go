// Package chaos is the rig: real brokers, a real etcd of three members and a
// real MinIO, with a proxy on every link between them and before the bucket,
// clients that tell a history of all they saw, and a nemesis that breaks things.
//
// Vocabulary: a scenario is one kind of adversity, named S0 to S13, and one test;
// a fault begins, lasts and is healed; the nemesis draws faults by a seed, which
// is printed and can be given back in TIDEMARK_SEED. The short form of each
// scenario is for every change; the long form, TIDEMARK_CHAOS=long, takes hours
// and produces the figures of test/RESULTS.md. At the end of every scenario all
// is healed, the log is read back by fresh consumers, the storage is audited,
// and the checker judges the history.
//
// Environment:
//
//	TIDEMARK_CHAOS=long          the long forms
//	TIDEMARK_CHAOS_DURATION=2h   how long the mixed scenario goes on, in the long form
//	TIDEMARK_SEED=n              repeats what a seed decided
//	TIDEMARK_ROTATE=n            chooses what a short form leaves out; default: by commit
//	TIDEMARK_CRASH_CELLS=regexp  the crash points to try, as "before_trim × kill"
//	TIDEMARK_RESULTS=file        figures are appended here, a line of JSON each
//	TIDEMARK_TEST_LOGS=dir       keeps histories and the servers' output
//
// The proxies are in packages of their own: tcpproxy, s3proxy and etcdproxy.
package chaos
