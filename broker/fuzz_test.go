package broker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/metadata"
)

type noRoom struct{}

func (noRoom) take(context.Context, int64) error { return nil }

// FuzzFrame reads a frame, its header and its request from hostile bytes.
func FuzzFrame(f *testing.F) {
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		req := kmsg.RequestForKey(key)
		if req == nil {
			continue
		}
		// Package wire tries every version. Each seed costs a moment whenever
		// fuzzing begins.
		for _, version := range []int16{0, req.MaxVersion() / 2, req.MaxVersion()} {
			req.SetVersion(version)
			fillRequest(req, [16]byte{1})
			f.Add(kmsg.NewRequestFormatter(kmsg.FormatterClientID("seed")).AppendRequest(nil, req, 1))
		}
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	for _, frames := range traffic(f) {
		for _, frame := range frames {
			f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := readFrame(context.Background(), bufio.NewReader(bytes.NewReader(b)), 1<<20, noRoom{})
		if err != nil {
			return
		}
		h, err := parseHeader(frame)
		if err != nil || h.body == nil {
			return
		}
		if _, err := decode(&h, 1<<20); err != nil {
			return
		}
	})
}

// FuzzServe has every handler serve what decodes, over fakes. A panic in one is
// what it looks for.
func FuzzServe(f *testing.F) {
	v := &fakeView{topics: map[string]*metadata.Topic{}, configs: map[string]map[string]string{}, owner: 7,
		brokers: []metadata.Broker{{ID: 1, Incarnation: 7, Host: "h", Port: 1}}}
	topic := &metadata.Topic{ID: metadata.TopicID{1}, Name: "t", Partitions: 2}
	v.topics["t"] = topic
	log := &fakeLog{parts: map[metadata.TopicPartition]*fakePartition{}, lead: true, view: v}
	join := make(chan struct{})
	close(join)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { ln.Close() })
	s, err := New(Config{Self: 7, ID: 1, ClusterID: "c", Listener: ln, Log: log, View: v, Admin: &fakeAdmin{v: v}, Groups: &fakeGroups{v: v, join: join},
		Logger: slog.New(slog.DiscardHandler), AutoCreateTopics: true})
	if err != nil {
		f.Fatal(err)
	}
	for key, a := range s.apis {
		for version := a.min; version <= a.max; version++ {
			req := kmsg.RequestForKey(key)
			req.SetVersion(version)
			fillRequest(req, topic.ID)
			f.Add(key, version, req.AppendTo(nil))
		}
	}
	for _, frames := range traffic(f) {
		for _, frame := range frames {
			if h, err := parseHeader(frame); err == nil && h.body != nil {
				f.Add(h.key, h.version, h.body)
			}
		}
	}
	here, there := net.Pipe()
	f.Cleanup(func() { here.Close(); there.Close() })
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		a, ok := s.apis[key]
		if !ok || version < a.min || version > a.max {
			return
		}
		req, err := decode(&header{key: key, version: version, body: body}, 1<<20)
		if err != nil {
			return
		}
		if hb, ok := req.(*kmsg.HeartbeatRequest); ok && hb.Group == "panic" {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		c := newConn(s, here)
		r := &Request{Key: key, Version: version, Body: req, Client: c.info.Load(), conn: c, received: time.Now()}
		resp, err := a.start(ctx, r)(ctx)
		if err == nil && resp != nil {
			appendResponse(nil, 1, resp)
		}
		if r.release != nil {
			r.release()
		}
		v.mu.Lock() // forget what was created
		v.topics, v.configs = map[string]*metadata.Topic{"t": topic}, map[string]map[string]string{}
		v.mu.Unlock()
	})
}
