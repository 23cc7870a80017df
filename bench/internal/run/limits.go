package run

import (
	"context"
	"time"

	"github.com/tidemark-io/tidemark/bench/internal/load"
	"github.com/tidemark-io/tidemark/bench/internal/raw"
	"github.com/tidemark-io/tidemark/bench/internal/report"
	"github.com/tidemark-io/tidemark/bench/internal/target"
)

const (
	putsInFlight = 8 // as many as a broker has
	etcdTime     = time.Second
	getTime      = 2 * time.Second
)

// limits measures what the store and etcd do by themselves right after a phase:
// under a rate, PUTs of the object size and rate the broker used, one at a time,
// and GETs of them; without one, as many as the broker has in flight.
func (s *side) limits(ctx context.Context, f report.Figures, i int, r *load.Result, used target.Usage) error {
	if used.Requests.Puts == 0 {
		return nil
	}
	size := max(1, int(used.Requests.PutBytes/used.Requests.Puts))
	if s.Load.Rate == 0 {
		return s.ceiling(ctx, f, size)
	}
	puts, err := s.raw.Puts(ctx, size, used.Requests.Puts/r.Elapsed.Seconds(), s.Load.Duration/2)
	if err != nil {
		return err
	}
	f.Latencies("raw PUT", puts)
	s.keep(i, "raw PUT", puts)
	f[report.RawRatio50] = f["ack p50"] / f["raw PUT p50"]
	f[report.RawRatio99] = f["ack p99"] / f["raw PUT p99"]
	gets, err := s.raw.Gets(ctx, getTime)
	if err != nil {
		return err
	}
	f.Latencies("raw GET", gets)
	if s.target.EtcdURL() == "" {
		return nil
	}
	etcd, rate, err := raw.Etcd(ctx, s.target.EtcdURL(), etcdTime)
	if err != nil {
		return err
	}
	f.Latencies("raw etcd", etcd)
	f[report.EtcdRate] = rate
	return nil
}

// ceiling runs the same producers against a sink while PUTs of the same size
// carry as many bytes.
func (s *side) ceiling(ctx context.Context, f report.Figures, size int) error {
	sink := raw.NewSink(s.session.Topics(), s.Load.Partitions, int64(size)*2*putsInFlight)
	defer sink.Close()
	producers, err := load.OpenAt(sink.Dial, s.Load, s.session.Topics())
	if err != nil {
		return err
	}
	defer producers.Close()
	d := s.Load.Duration / 2
	rate, err := s.raw.Ceiling(ctx, sink, size, putsInFlight, d, func(ctx context.Context) error {
		_, err := producers.Produce(ctx, d)
		return err
	})
	if err != nil {
		return err
	}
	f[report.RawCeiling] = rate / mb
	f[report.ShareOfRaw] = f[report.Throughput] / f[report.RawCeiling] * 100
	return nil
}
