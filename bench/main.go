// Command bench measures a cluster against the store it stands on, on the same
// machine in the same run:
//
//	latency      one producer, one record in flight; against raw PUTs, one at a
//	             time, of the object size the broker used
//	steady       a fixed rate from many producers; latency percentiles
//	throughput   as much as the brokers take; against 8 raw PUTs of 4 MiB in flight
//	catch-up     one consumer reading what throughput wrote, from the beginning
//
// with processor seconds per GB from /proc and requests per GB from the
// brokers' metrics. It prints a table and, with -json, writes the figures to a
// file. MinIO, etcd and the brokers are started by it and share its machine:
// the ratios mean more than the figures.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tidemark-io/tidemark/test/harness"
)

type options struct {
	brokers    int
	duration   time.Duration
	recordSize int
	rate       int
	partitions int
	json       string
}

func main() {
	var o options
	flag.IntVar(&o.brokers, "brokers", 1, "brokers in the cluster")
	flag.DurationVar(&o.duration, "duration", 15*time.Second, "length of each measurement")
	flag.IntVar(&o.recordSize, "record-size", 1024, "bytes of a record's value")
	flag.IntVar(&o.rate, "rate", 2000, "records a second of the steady load")
	flag.IntVar(&o.partitions, "partitions", 12, "partitions of each topic")
	flag.StringVar(&o.json, "json", "", "file to write the figures to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	host := &host{}
	code := 0
	if err := host.run(func() error { return bench(ctx, host, o) }); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		code = 1
	}
	os.Exit(code)
}

func bench(ctx context.Context, h *host, o options) error {
	c := harness.StartCluster(h, harness.Options{Brokers: o.brokers})
	b := &bencher{options: o, cluster: c}
	if err := b.open(); err != nil {
		return err
	}
	defer b.close()
	for _, step := range []func(context.Context) error{b.latency, b.steady, b.throughput, b.catchUp} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	b.figures.print(os.Stdout)
	if o.json == "" {
		return nil
	}
	out, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(out, '\n'), 0o644)
}
