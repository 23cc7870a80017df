package kclient

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// server answers EndTxn requests over pipes; hold keeps answers back.
type server struct {
	mu    sync.Mutex
	conns []net.Conn
	dials int
	raw   []byte // answered as it is, when set
	mute  bool
}

func (s *server) dial(context.Context, string) (net.Conn, error) {
	a, b := net.Pipe()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	s.conns = append(s.conns, b)
	go s.serve(b)
	return a, nil
}

func (s *server) serve(c net.Conn) {
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		s.mu.Lock()
		raw, mute := s.raw, s.mute
		s.mu.Unlock()
		switch {
		case mute:
		case raw != nil:
			_, _ = c.Write(raw)
		default:
			resp := kmsg.NewPtrEndTxnResponse()
			resp.Version, resp.ProducerID, resp.ErrorCode = 5, int64(binary.BigEndian.Uint32(frame[4:])), 51
			body := append([]byte{0}, resp.AppendTo(nil)...) // a header without tags
			out := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
			out = append(append(out, frame[4:8]...), body...)
			_, _ = c.Write(out)
		}
	}
}

func (s *server) set(raw []byte, mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw, s.mute = raw, mute
}

func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func ask(c *Client) (*kmsg.EndTxnResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req := kmsg.NewPtrEndTxnRequest()
	req.Version, req.TransactionalID = 5, "x"
	resp, err := c.Request(ctx, "a:1", req)
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.EndTxnResponse), nil
}

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		c := New("test", s.dial)
		defer c.Close()
		seen := map[int64]bool{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				resp, err := ask(c)
				if err != nil || resp.ErrorCode != 51 {
					t.Error(resp, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				seen[resp.ProducerID] = true
			})
		}
		wg.Wait()
		if len(seen) != 50 || s.dials != 1 {
			t.Fatalf("%d answers over %d connections", len(seen), s.dials)
		}
		s.cut() // as an idle connection is
		synctest.Wait()
		if _, err := ask(c); err != nil || s.dials != 2 {
			t.Fatal(err, s.dials)
		}
	})
}

func TestAnswersThatDoNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		c := New("test", s.dial)
		s.set(nil, true)
		if _, err := ask(c); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		late := make(chan error, 1)
		go func() { _, err := ask(c); late <- err }()
		synctest.Wait()
		s.cut()
		if err := <-late; err == nil {
			t.Fatal("an answer from a broken connection")
		}
		for name, raw := range map[string][]byte{
			"huge":      {0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0},
			"negative":  {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
			"unasked":   {0, 0, 0, 4, 0, 0, 1, 0},
			"truncated": {0, 0, 0, 6, 0, 0, 0, 0, 0, 1},
			"empty":     {0, 0, 0, 4, 0, 0, 0, 0},
		} {
			s.cut() // correlation ids begin at 0
			synctest.Wait()
			s.set(raw, false)
			if resp, err := ask(c); err == nil {
				t.Errorf("%s: %+v", name, resp)
			}
		}
		c.Close()
		if _, err := ask(c); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	})
}

// TestSilence: a connection over which nothing comes any more is given up, as one
// whose other end is gone without a word.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		c := New("test", s.dial)
		defer c.Close()
		for range 3 { // answers come, if seldom
			if _, err := ask(c); err != nil {
				t.Fatal(err)
			}
			time.Sleep(silenceMax)
		}
		s.set(nil, true)
		for begun := time.Now(); time.Since(begun) < silenceMax; {
			if _, err := ask(c); !errors.Is(err, context.DeadlineExceeded) || s.dials != 1 {
				t.Fatal(err, s.dials)
			}
		}
		s.set(nil, false)
		if _, err := ask(c); err != nil || s.dials != 2 {
			t.Fatal(err, s.dials)
		}
	})
}
