package raw

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/tiering/object/mem"
)

func TestPutsKeepTheirRate(t *testing.T) {
	s := NewStore(mem.New(), "x")
	h, err := s.Puts(t.Context(), 100, 200, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if h.Count() < 60 || h.Count() > 100 {
		t.Errorf("%d PUTs in half a second at 200 a second", h.Count())
	}
	got, err := s.Gets(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got.Count() != h.Count() {
		t.Errorf("%d GETs of %d objects", got.Count(), h.Count())
	}
}

// The bytes put are bytes that a producer has sent, but for the window.
func TestCeilingCarriesTheGenerator(t *testing.T) {
	const size, inFlight, window = 64 << 10, 4, 1 << 20
	sink := NewSink([]string{"t"}, 3, window)
	defer sink.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers("sink:9092"), kgo.Dialer(sink.Dial), kgo.DefaultProduceTopic("t"),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedBytes(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	value := noise(1000)
	begun := time.Now()
	var sent int64
	generate := func(ctx context.Context) error {
		for time.Since(begun) < 500*time.Millisecond {
			cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
				if err == nil {
					sent += int64(len(value))
				}
			})
		}
		return cl.Flush(ctx)
	}
	s := NewStore(mem.New(), "x")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rate, err := s.Ceiling(ctx, sink, size, inFlight, 500*time.Millisecond, generate)
	if err != nil {
		t.Fatal(err)
	}
	if rate <= 0 {
		t.Fatal("nothing was put")
	}
	if put := s.next.Load() * size; put > sink.received {
		t.Errorf("%d bytes put, %d received", put, sink.received)
	}
	if sent == 0 || sink.received < sent {
		t.Errorf("%d bytes of values acknowledged, %d received", sent, sink.received)
	}
}

// Beyond its window the sink lets a producer wait.
func TestSinkHoldsBack(t *testing.T) {
	s := NewSink([]string{"t"}, 1, 100)
	s.admit(60)
	s.admit(60)
	in := make(chan struct{})
	go func() { s.admit(60); close(in) }()
	select {
	case <-in:
		t.Fatal("let in beyond the window")
	case <-time.After(50 * time.Millisecond):
	}
	if !s.take(t.Context(), 100) {
		t.Fatal("nothing to take")
	}
	s.done(100)
	<-in
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s.take(ctx, 1000) {
		t.Error("took what was never received")
	}
}
