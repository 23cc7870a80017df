// Package test holds the whole-system tests: real brokers, MinIO and etcd as
// processes, driven by the Kafka clients and tools people use, killed, paused
// and wiped, and judged by what can be read back.
//
// The tests need a built bin/tidemark and the tools that `make tools` installs.
// They are skipped under -short and, with the reason, where a tool is missing;
// with CI set a missing tool is a failure. TIDEMARK_TEST_LONG asks for the long
// forms, TIDEMARK_TEST_LOGS names a directory that keeps logs and figures.
package test
