package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/harness"
)

// badRig is a cluster of one broker with the table's topics.
type badRig struct {
	c      *harness.Cluster
	broker *harness.Broker
	conn   *badConn // of the rig's own questions
	// When the table began:
	rss         int64
	connections float64
}

func newBadRig(t *testing.T) *badRig {
	t.Helper()
	t.Setenv("GOGC", "25") // the watch is for what the broker holds more than for garbage
	r := &badRig{c: harness.StartCluster(t, harness.Options{Brokers: 1})}
	r.broker = r.c.Brokers[0]
	for _, topic := range []string{badTopic, badAccepted, badProbed} {
		createTopic(t, r.c, topic, 1)
	}
	compact := "compact"
	if _, err := newAdmin(t, r.c).CreateTopic(t.Context(), 1, 1, map[string]*string{"cleanup.policy": &compact}, badCompacted); err != nil {
		t.Fatal(err)
	}
	r.conn = r.dial(t)
	r.conn.ask(t, kmsg.NewPtrInitProducerIDRequest(), 0) // the first id reserves a block in etcd
	harness.Eventually(t, 10*time.Second, "a leader that takes writes", func() error {
		_, err := r.highWatermark(t, badCompacted)
		return err
	})
	return r
}

// warm begins the watch on the broker's memory, once it serves as usual.
func (r *badRig) warm(t *testing.T) {
	t.Helper()
	// The first commit of a cluster makes a topic of its own.
	if code := r.commit(t, "warm", 0); code != 0 {
		t.Fatal(kerr.ErrorForCode(code))
	}
	harness.Eventually(t, 10*time.Second, "the topic of commits", func() error {
		for _, key := range r.etcdKeys(t) {
			if strings.HasSuffix(key, "/topic-names/__consumer_offsets") {
				return nil
			}
		}
		return errors.New("it does not exist")
	})
	time.Sleep(time.Second)
	// 5 sets the peak to what is held now.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", r.broker.PID()), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	r.rss, r.connections = r.memory(t, "VmRSS"), r.metric(t, "tidemark_connections")
}

// memory reads a field of the broker's /proc status, in bytes.
func (r *badRig) memory(t *testing.T, field string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.broker.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == field+":" {
			kib, err := strconv.ParseInt(words[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in the status of process %d", field, r.broker.PID())
	return 0
}

// metric reads one of the broker's metrics.
func (r *badRig) metric(t *testing.T, name string) float64 {
	t.Helper()
	m, err := r.broker.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	n, err := m.Sum(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// state is what no refused input may change: the high watermarks of the topics
// refused records go to, and every key in etcd. The topics are among those.
func (r *badRig) state(t *testing.T) []string {
	t.Helper()
	state := r.etcdKeys(t)
	for _, topic := range []string{badTopic, badCompacted} {
		hw, err := r.highWatermark(t, topic)
		if err != nil {
			t.Fatal(err)
		}
		state = append(state, fmt.Sprintf("end of %s: %d", topic, hw))
	}
	slices.Sort(state)
	return state
}

func (r *badRig) highWatermark(t *testing.T, topic string) (int64, error) {
	t.Helper()
	resp := r.conn.ask(t, endOf(topic), 4).(*kmsg.ListOffsetsResponse)
	got := resp.Topics[0].Partitions[0]
	if got.ErrorCode != 0 {
		return 0, fmt.Errorf("end of %s: error code %d", topic, got.ErrorCode)
	}
	return got.Offset, nil
}

// endOf asks for the high watermark of partition 0 of a topic.
func endOf(topic string) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Timestamp = -1
	req.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{p}}}
	return req
}

// etcdKeys are all keys of the cluster in order, by etcd's JSON gateway.
func (r *badRig) etcdKeys(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	all := base64.StdEncoding.EncodeToString([]byte{0})
	ask := fmt.Sprintf(`{"key":%q,"range_end":%q,"keys_only":true}`, all, all)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.c.Etcd.Members[0].URL+"/v3/kv/range", strings.NewReader(ask))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var found struct{ Kvs []struct{ Key []byte } }
	if err := json.NewDecoder(resp.Body).Decode(&found); err != nil || len(found.Kvs) == 0 {
		t.Fatalf("etcd answers %s with %d keys: %v", resp.Status, len(found.Kvs), err)
	}
	keys := make([]string, len(found.Kvs))
	for i, kv := range found.Kvs {
		keys[i] = string(kv.Key)
	}
	return keys
}

// objects are the keys of the bucket below which records are written first.
// Elsewhere the broker tidies up by itself.
func (r *badRig) objects(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var keys []string
	bucket := r.c.StoreConfig().Bucket
	for o := range r.c.MinIO.Client().ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: "w/", Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		keys = append(keys, o.Key)
	}
	slices.Sort(keys)
	return keys
}

// badConn is a connection on which anything can be sent.
type badConn struct {
	net.Conn
	in          *bufio.Reader
	correlation int32
}

func (r *badRig) dial(t *testing.T) *badConn {
	t.Helper()
	nc, err := net.DialTimeout("tcp", r.broker.Addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &badConn{Conn: nc, in: bufio.NewReader(nc)}
}

// send writes bytes as they are. An error is left to whoever reads: the broker
// may have closed the connection half-way, as it should.
func (c *badConn) send(b []byte) {
	_ = c.SetWriteDeadline(time.Now().Add(badCloseMax))
	_, _ = c.Write(b)
}

// receive reads one answer: its correlation id and the bytes that follow.
func (c *badConn) receive() (int32, []byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(2 * badCloseMax))
	var head [8]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	size := int(binary.BigEndian.Uint32(head[:])) - 4
	if size < 0 || size > 64<<20 {
		return 0, nil, fmt.Errorf("an answer of %d bytes", size)
	}
	body := make([]byte, size)
	_, err := io.ReadFull(c.in, body)
	return int32(binary.BigEndian.Uint32(head[4:])), body, err
}

// ask sends a request of the version given and returns its answer.
func (c *badConn) ask(t *testing.T, req kmsg.Request, version int16) kmsg.Response {
	t.Helper()
	resp, err := c.try(req, version)
	if err != nil {
		t.Fatalf("%s version %d: %v", kmsg.NameForKey(req.Key()), version, err)
	}
	return resp
}

func (c *badConn) try(req kmsg.Request, version int16) (kmsg.Response, error) {
	req.SetVersion(version)
	c.correlation++
	c.send(badRequest(req, c.correlation))
	return c.answer(req)
}

// answer reads the answer to a request that was sent.
func (c *badConn) answer(req kmsg.Request) (kmsg.Response, error) {
	correlation, body, err := c.receive()
	if err != nil {
		return nil, err
	}
	if c.correlation != 0 && correlation != c.correlation {
		return nil, fmt.Errorf("correlation id %d, want %d", correlation, c.correlation)
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() && req.Key() != int16(kmsg.ApiVersions) {
		body = body[1:] // no tagged fields in the header
	}
	return resp, resp.ReadFrom(body)
}

// wantClosed fails unless the broker closes the connection without a word. A
// reset counts: it is what a close is when bytes were left unread.
func (c *badConn) wantClosed(t *testing.T, what string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(badCloseMax))
	var b [256]byte
	n, err := c.in.Read(b[:])
	if n > 0 {
		t.Errorf("%s: answered with % x...", what, b[:n])
	} else if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: the connection is not closed within %v: %v", what, badCloseMax, err)
	}
	c.Close()
}

// wantAlive fails unless the connection still serves.
func (c *badConn) wantAlive(t *testing.T) {
	t.Helper()
	c.ask(t, kmsg.NewPtrApiVersionsRequest(), 0)
}

var badFormat = kmsg.NewRequestFormatter(kmsg.FormatterClientID("bad"))

// badRequest is a request as it is sent, its length before it.
func badRequest(req kmsg.Request, correlation int32) []byte {
	return badFormat.AppendRequest(nil, req, correlation)
}

// badBody is a request with another body than its own.
func badBody(req kmsg.Request, body []byte) []byte {
	full := badRequest(req, 1)
	head := full[4 : len(full)-len(req.AppendTo(nil))]
	return badFrame(head, body)
}

// badFrame puts a length before the bytes given.
func badFrame(parts ...[]byte) []byte {
	b := bytes.Join(parts, nil)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}
