package test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// recorder is a proxy before one broker that keeps what clients send.
type recorder struct {
	t  *testing.T
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex // guards what follows
	broker string
	client string // whose connections are opened now
	conns  map[net.Conn]bool
	lines  []*recorded
	closed bool
}

// recorded is what came over one connection.
type recorded struct {
	client string
	frames [][]byte // with their lengths
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{t: t, ln: ln, conns: make(map[net.Conn]bool)}
	r.wg.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

func (r *recorder) close() {
	r.mu.Lock()
	r.closed = true
	r.ln.Close()
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// as names the client whose connections follow.
func (r *recorder) as(client string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.client = client
}

func (r *recorder) accept() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.wg.Go(func() { r.serve(c) })
	}
}

func (r *recorder) serve(client net.Conn) {
	r.mu.Lock()
	addr := r.broker
	line := &recorded{client: r.client}
	r.mu.Unlock()
	broker, err := net.Dial("tcp", addr)
	if err != nil {
		client.Close()
		return
	}
	r.mu.Lock()
	r.lines = append(r.lines, line)
	r.conns[client], r.conns[broker] = true, true
	closed := r.closed
	r.mu.Unlock()
	if closed {
		client.Close()
		broker.Close()
	}
	r.wg.Go(func() {
		_, _ = io.Copy(client, broker) // ends with either connection
		client.Close()
		broker.Close()
	})
	defer client.Close()
	defer broker.Close()
	in := bufio.NewReader(client)
	for {
		frame, err := oneFrame(in)
		if err != nil {
			return
		}
		r.mu.Lock()
		line.frames = append(line.frames, frame)
		r.mu.Unlock()
		if _, err := broker.Write(frame); err != nil {
			return
		}
	}
}

const recordedFrameMax = 16 << 20

func oneFrame(in io.Reader) ([]byte, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(in, prefix[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(prefix[:])
	if n > recordedFrameMax {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	frame := make([]byte, 4+n)
	copy(frame, prefix[:])
	_, err := io.ReadFull(in, frame[4:])
	return frame, err
}

// What is kept of a client's traffic: of each API and version the first requests
// that differ, none of them large.
const (
	keptEach     = 24
	keptBytesMax = 4 << 10
)

// save writes the traffic of every client into dir, a file a connection, and
// returns how many bytes. Topic ids are renamed.
func (r *recorder) save(dir string, ids map[[16]byte][16]byte) int {
	r.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen, numbered, total := make(map[string]int), make(map[string]int), 0
	for _, line := range r.lines {
		var kept []byte
		for _, frame := range line.frames {
			if len(frame) < 12 || len(frame) > keptBytesMax {
				continue
			}
			for id, as := range ids {
				frame = bytes.ReplaceAll(frame, id[:], as[:])
			}
			clear(frame[8:12]) // the correlation id
			kind := line.client + string(frame[4:8])
			if seen[string(frame)]++; seen[string(frame)] > 1 {
				continue
			}
			if seen[kind]++; seen[kind] > keptEach {
				continue
			}
			kept = append(kept, frame...)
		}
		if len(kept) == 0 {
			continue
		}
		numbered[line.client]++
		name := filepath.Join(dir, fmt.Sprintf("%s-%02d.frames", line.client, numbered[line.client]))
		if err := os.WriteFile(name, kept, 0o644); err != nil {
			r.t.Fatal(err)
		}
		total += len(kept)
	}
	return total
}
