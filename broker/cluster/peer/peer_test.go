package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidemark-io/tidemark/broker/cluster/peer/peerpb"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

const addrEnv = "TIDEMARK_TEST_PEER_LISTEN"

// TestMain lets the test binary serve as the process that is killed.
func TestMain(m *testing.M) {
	if addr := os.Getenv(addrEnv); addr != "" {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(l.Addr())
		_ = NewServer(7, &handler{}, nil).Serve(l)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type handler struct {
	mu     sync.Mutex
	status Status
	asked  [][]tiering.Claim
	from   metadata.Incarnation
	err    error
}

func (h *handler) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status
}

func (h *handler) Release(_ context.Context, from metadata.Incarnation, claims []tiering.Claim) ([]tiering.Released, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked, h.from = append(h.asked, claims), from
	var out []tiering.Released
	for _, c := range claims {
		out = append(out, tiering.Released{Claim: c, Slot: uint64(c.Epoch) + 100})
	}
	return out, h.err
}

// serve starts a server for the length of the test, or until stop.
func serve(t *testing.T, inc metadata.Incarnation, h Handler) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(inc, h, nil)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	stop = sync.OnceFunc(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func newPool(t *testing.T) *Pool {
	p := NewPool(1, nil)
	t.Cleanup(p.Close)
	return p
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestProbe(t *testing.T) {
	want := Status{BucketFailing: true, SessionValid: true, StuckFor: 1500 * time.Millisecond}
	addr, stop := serve(t, 7, &handler{status: want})
	p := newPool(t)
	got, err := p.Probe(within(t, 5*time.Second), 7, addr)
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	var wrong *WrongIncarnationError
	if _, err := p.Probe(within(t, 5*time.Second), 6, addr); !errors.As(err, &wrong) || wrong.Got != 7 || wrong.Want != 6 {
		t.Errorf("meant for another: %v", err)
	}
	stop()
	begun := time.Now()
	if _, err := p.Probe(within(t, 5*time.Second), 7, addr); !errors.Is(err, ErrUnreachable) {
		t.Errorf("gone: %v", err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("a refused probe took %v", took)
	}
}

func TestProbeOfAHungProcessEndsWithItsDeadline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepted by the kernel, answered by nobody
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	begun := time.Now()
	if _, err := newPool(t).Probe(within(t, 200*time.Millisecond), 7, l.Addr().String()); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	if took := time.Since(begun); took < 150*time.Millisecond || took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

func attend(p *Pool, inc metadata.Incarnation, addr string) (attended chan struct{}, ended chan error) {
	attended, ended = make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- p.Attend(context.Background(), inc, addr, func() { close(attended) })
	}()
	return attended, ended
}

func await[T any](t *testing.T, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(5 * time.Second):
		t.Fatal("waited 5 s for " + what)
	}
	return v
}

func TestAttendEndsWithTheServer(t *testing.T) {
	addr, stop := serve(t, 7, &handler{})
	attended, ended := attend(newPool(t), 7, addr)
	await(t, "attendance", attended)
	stop()
	if err := await(t, "the end", ended); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}

func TestAttendOfAnotherIncarnation(t *testing.T) {
	addr, _ := serve(t, 7, &handler{})
	attended, ended := attend(newPool(t), 6, addr)
	var wrong *WrongIncarnationError
	if err := await(t, "the end", ended); !errors.As(err, &wrong) {
		t.Error(err)
	}
	select {
	case <-attended:
		t.Error("attended the wrong incarnation")
	default:
	}
}

func TestForgetEndsAttendance(t *testing.T) {
	addr, _ := serve(t, 7, &handler{})
	p := newPool(t)
	attended, ended := attend(p, 7, addr)
	await(t, "attendance", attended)
	p.Forget(7)
	await(t, "the end", ended)
	p.Close()
	if err := p.Attend(context.Background(), 7, addr, nil); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}

// A killed process is noticed by its connection, without any probe.
func TestKillIsNoticedAtOnce(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), addrEnv+"=127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var addr string
	if _, err := fmt.Fscanln(out, &addr); err != nil {
		t.Fatal(err)
	}
	attended, ended := attend(newPool(t), 7, addr)
	await(t, "attendance", attended)
	begun := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "the end", ended)
	took := time.Since(begun)
	t.Logf("kill -9 noticed after %v", took)
	if took > time.Second {
		t.Errorf("took %v", took)
	}
}

func claims(n int) []tiering.Claim {
	out := make([]tiering.Claim, n)
	for i := range out {
		out[i] = tiering.Claim{
			Partition: metadata.TopicPartition{Topic: metadata.TopicID{1, 2, byte(i), byte(i >> 8)}, Partition: int32(i)},
			Epoch:     int32(i % 1000),
		}
	}
	return out
}

func TestAskRelease(t *testing.T) {
	h := &handler{}
	addr, _ := serve(t, 7, h)
	p := newPool(t)
	const n = 2*maxPartitions + 1 // in three pieces
	asked := claims(n)
	got, err := p.AskRelease(within(t, 10*time.Second), 7, addr, asked)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != n || len(h.asked) != 3 || h.from != 1 {
		t.Fatalf("%d released in %d pieces for %d", len(got), len(h.asked), h.from)
	}
	for i, r := range got {
		if r.Claim != asked[i] || r.Slot != uint64(asked[i].Epoch)+100 {
			t.Fatalf("%d: %+v for %+v", i, r, asked[i])
		}
	}
	if !slices.Equal(slices.Concat(h.asked...), asked) {
		t.Error("the peer was asked for something else")
	}
	var wrong *WrongIncarnationError
	if _, err := p.AskRelease(within(t, 5*time.Second), 8, addr, asked[:1]); !errors.As(err, &wrong) {
		t.Errorf("meant for another: %v", err)
	}
	if len(h.asked) != 3 {
		t.Error("released for another incarnation")
	}
	h.err = errors.New("no")
	if _, err := p.AskRelease(within(t, 5*time.Second), 7, addr, asked[:1]); err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("refused: %v", err)
	}
}

func TestHostileRequests(t *testing.T) {
	h := &handler{}
	addr, _ := serve(t, 7, h)
	cc, err := NewPool(1, nil).dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	client := peerpb.NewPeerClient(cc)
	tooMany := make([]*peerpb.OwnedPartition, maxPartitions+1)
	for i := range tooMany {
		tooMany[i] = &peerpb.OwnedPartition{Topic: make([]byte, 16)}
	}
	for name, parts := range map[string][]*peerpb.OwnedPartition{
		"short topic id":     {{Topic: []byte{1}}},
		"long topic id":      {{Topic: make([]byte, 17)}},
		"no topic id":        {{}},
		"negative partition": {{Topic: make([]byte, 16), Partition: -1}},
		"too many":           tooMany,
	} {
		_, err := client.AskRelease(within(t, 5*time.Second), &peerpb.AskReleaseRequest{To: 7, Partitions: parts})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	big := &peerpb.AskReleaseRequest{To: 7, Partitions: []*peerpb.OwnedPartition{{Topic: make([]byte, maxMessageBytes)}}}
	if _, err := client.AskRelease(within(t, 5*time.Second), big); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("over the size limit: %v", err)
	}
	if len(h.asked) != 0 {
		t.Error("a bad request reached the broker")
	}
}
