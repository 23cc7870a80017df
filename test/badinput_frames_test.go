package test

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func badFrameCases() []badCase {
	cases := []badCase{
		{"header cut at each byte", headerCut},
		{"frame cut at each byte, then hung up", frameCut},
		{"100 MiB claimed on 50 connections, a few bytes sent", largeClaims},
		{"one byte a second", oneByteASecond},
		{"correlation id reused", correlationReused},
		{"20,000 requests without waiting", pipelined},
		{"answers never read", neverRead},
		{"2,000 idle connections", idleConnections},
	}
	for _, c := range []struct {
		name  string
		bytes []byte
	}{
		{"length 0", []byte{0, 0, 0, 0}},
		{"length 7", []byte{0, 0, 0, 7, 0, 18, 0, 0, 0, 0, 0}},
		{"length -1", []byte{0xff, 0xff, 0xff, 0xff, 0, 18, 0, 0}},
		{"length of the least integer", []byte{0x80, 0, 0, 0, 0, 18, 0, 0}},
		{"length of the greatest integer", []byte{0x7f, 0xff, 0xff, 0xff, 0, 18, 0, 0}},
		{"101 MiB claimed, a few bytes sent", append(binary.BigEndian.AppendUint32(nil, 101<<20), 0, 18, 0, 0)},
		{"TLS hello", append([]byte{0x16, 3, 1, 0, 0xf1, 1, 0, 0, 0xed, 3, 3}, make([]byte, 200)...)},
		{"HTTP GET", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"HTTP/2 preface", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")},
		{"SSH banner", []byte("SSH-2.0-OpenSSH_9.6\r\n")},
		{"client id longer than the frame", badFrame([]byte{0, 18, 0, 0, 0, 0, 0, 1, 0x7f, 0xff, 'x'})},
	} {
		cases = append(cases, badCase{c.name, func(t *testing.T, r *badRig) {
			conn := r.dial(t)
			conn.send(c.bytes)
			conn.wantClosed(t, c.name)
		}})
	}
	return cases
}

// flexibleHeader is a request whose header has every part there is.
func flexibleHeader() kmsg.Request {
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(9)
	req.Topics = []kmsg.MetadataRequestTopic{}
	return req
}

func headerCut(t *testing.T, r *badRig) {
	req := flexibleHeader()
	whole := badRequest(req, 1)[4:]
	for n := range whole {
		c := r.dial(t)
		c.send(badFrame(whole[:n]))
		c.wantClosed(t, fmt.Sprintf("%d of %d bytes", n, len(whole)))
	}
	c := r.dial(t)
	c.send(badFrame(whole))
	if _, err := c.answer(req); err != nil {
		t.Errorf("the whole request: %v", err)
	}
}

func frameCut(t *testing.T, r *badRig) {
	whole := badRequest(badProduce(badTopic, plainBatch([]byte("cut"))), 1)
	for n := range whole {
		c := r.dial(t)
		c.send(whole[:n])
		c.Close()
	}
}

func largeClaims(t *testing.T, r *badRig) {
	const claimed = 100 << 20 // just allowed
	for range 50 {
		r.dial(t).send(append(binary.BigEndian.AppendUint32(nil, claimed), badRequest(flexibleHeader(), 1)[4:]...))
	}
	r.dial(t).wantAlive(t)
}

func oneByteASecond(t *testing.T, r *badRig) {
	const slow = 2 // seconds; the rest comes at once
	c := r.dial(t)
	req := kmsg.NewPtrApiVersionsRequest()
	whole := badRequest(req, 1)
	for i := range slow {
		c.send(whole[i : i+1])
		time.Sleep(time.Second)
	}
	c.send(whole[slow:])
	if _, err := c.answer(req); err != nil {
		t.Error(err)
	}
}

func correlationReused(t *testing.T, r *badRig) {
	c := r.dial(t)
	versions, all := kmsg.NewPtrApiVersionsRequest(), flexibleHeader()
	for range 5 { // different APIs, so that a mix-up of the answers shows
		c.send(badRequest(versions, 7))
		c.send(badRequest(all, 7))
	}
	c.correlation = 7
	for range 5 {
		resp, err := c.answer(versions)
		if err != nil || len(resp.(*kmsg.ApiVersionsResponse).ApiKeys) == 0 {
			t.Fatalf("not the API versions: %v", err)
		}
		if resp, err = c.answer(all); err != nil || len(resp.(*kmsg.MetadataResponse).Brokers) != 1 {
			t.Fatalf("not the metadata: %v", err)
		}
	}
}

func pipelined(t *testing.T, r *badRig) {
	const requests = 20_000
	c := r.dial(t)
	var sender sync.WaitGroup
	sender.Go(func() {
		req := kmsg.NewPtrApiVersionsRequest()
		for from := 0; from < requests; from += 1000 {
			var burst []byte
			for i := range 1000 {
				burst = append(burst, badRequest(req, int32(from+i))...)
			}
			c.send(burst)
		}
	})
	defer sender.Wait()
	for i := range requests {
		if got, _, err := c.receive(); err != nil || got != int32(i) {
			c.Close()
			t.Fatalf("answer %d: correlation id %d, %v", i, got, err)
		}
	}
}

// neverRead asks and asks until the broker takes no more, as it must when its
// answers are not taken.
func neverRead(t *testing.T, r *badRig) {
	const enough = 256 << 20 // of requests; what both sockets hold is far less
	c := r.dial(t)
	req := kmsg.NewPtrApiVersionsRequest()
	var burst []byte
	for i := range 4096 {
		burst = append(burst, badRequest(req, int32(i))...)
	}
	for sent := 0; sent < enough; {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(burst)
		if sent += n; err != nil {
			return
		}
	}
	t.Errorf("the broker took %d MiB of requests and its answers were not read", enough>>20)
}

func idleConnections(t *testing.T, r *badRig) {
	conns := make([]*badConn, 2000)
	for i := range conns {
		conns[i] = r.dial(t)
	}
	r.dial(t).wantAlive(t)
	conns[0].wantAlive(t)
	conns[len(conns)-1].wantAlive(t)
	if grown := r.memory(t, "VmRSS") - r.rss; grown > badGrowthMax {
		t.Errorf("%d connections took %d MiB", len(conns), grown>>20)
	}
	for _, c := range conns {
		c.Close()
	}
}

func badVersionCases() []badCase {
	return []badCase{
		{"unknown API keys", unknownKeys},
		{"unknown versions of every API", unknownVersions},
		{"unknown versions of ApiVersions", unknownApiVersions},
		{"versions of Produce advertised for their range", oldProduce},
	}
}

// badHeader is a request of a key and version that may not exist.
func badHeader(key, version int16) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, 42)
	return badFrame(b, []byte{0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
}

func unknownKeys(t *testing.T, r *badRig) {
	for _, key := range []int16{-1, math.MinInt16, math.MaxInt16, 4, 5, 6, 7, 52, 62, 67, 94, 1000} {
		c := r.dial(t)
		c.send(badHeader(key, 0))
		c.wantClosed(t, fmt.Sprintf("key %d", key))
	}
}

func (r *badRig) advertised(t *testing.T) []kmsg.ApiVersionsResponseApiKey {
	t.Helper()
	keys := r.conn.ask(t, kmsg.NewPtrApiVersionsRequest(), 0).(*kmsg.ApiVersionsResponse).ApiKeys
	if len(keys) < 20 {
		t.Fatalf("%d APIs are advertised", len(keys))
	}
	return keys
}

func unknownVersions(t *testing.T, r *badRig) {
	for _, api := range r.advertised(t) {
		if api.ApiKey == int16(kmsg.ApiVersions) {
			continue
		}
		for _, version := range []int16{math.MinInt16, -1, api.MinVersion - 1, api.MaxVersion + 1, math.MaxInt16} {
			c := r.dial(t)
			c.send(badHeader(api.ApiKey, version))
			c.wantClosed(t, fmt.Sprintf("%s version %d", kmsg.NameForKey(api.ApiKey), version))
		}
	}
}

// unknownApiVersions: a client that is newer than the broker learns from the
// answer which version to use, on the same connection (KIP-511).
func unknownApiVersions(t *testing.T, r *badRig) {
	c := r.dial(t)
	for _, version := range []int16{6, 100, math.MaxInt16, -1, math.MinInt16} {
		c.send(badHeader(int16(kmsg.ApiVersions), version))
		c.correlation = 42
		resp, err := c.answer(kmsg.NewPtrApiVersionsRequest())
		if err != nil {
			t.Errorf("version %d: %v", version, err)
			c = r.dial(t)
			continue
		}
		got := resp.(*kmsg.ApiVersionsResponse)
		if got.ErrorCode != kerr.UnsupportedVersion.Code {
			t.Errorf("version %d: error code %d", version, got.ErrorCode)
		}
		var own kmsg.ApiVersionsResponseApiKey
		for _, api := range got.ApiKeys {
			if api.ApiKey == int16(kmsg.ApiVersions) {
				own = api
			}
		}
		if own.MaxVersion != 5 {
			t.Errorf("version %d: the answer names %d APIs, ApiVersions up to %d", version, len(got.ApiKeys), own.MaxVersion)
		}
		c.wantAlive(t)
	}
}

func oldProduce(t *testing.T, r *badRig) {
	c := r.dial(t)
	for version := int16(0); version < 3; version++ {
		resp := c.ask(t, badProduce(badTopic, plainBatch([]byte("old"))), version).(*kmsg.ProduceResponse)
		if got := resp.Topics[0].Partitions[0].ErrorCode; got != kerr.UnsupportedVersion.Code {
			t.Errorf("version %d: error code %d", version, got)
		}
	}
}
