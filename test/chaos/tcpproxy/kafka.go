package tcpproxy

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// frameMax bounds a frame: Kafka's socket.request.max.bytes, and what a fetch
// may answer beyond it.
const frameMax = 128 << 20

// talk is what is known of one Kafka connection: the requests whose replies are
// outstanding, in order, for a broker answers in order.
type talk struct {
	rules *rules
	say   func([]byte) // sends bytes of our own to the client

	mu      sync.Mutex // guards what follows; say is called under it, in order
	waiting []outstanding
	changed chan struct{} // closed when waiting shrinks
}

type outstanding struct {
	correlation  int32
	key, version int16
	cut          *Active // the rule that cuts before this reply
	own          []byte  // a reply of ours; the server will send none
}

var errCut = errors.New("cut by a rule")

func newTalk(r *rules, say func([]byte)) *talk {
	return &talk{rules: r, say: say, changed: make(chan struct{})}
}

// frame reads one frame, its length included.
func frame(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(4)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n := binary.BigEndian.Uint32(head)
	if n > frameMax {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	b := make([]byte, 4+n)
	_, err = io.ReadFull(r, b)
	return b, err
}

// request takes one request from the client. Drop resets the client's side, cut
// both.
func (t *talk) request(r *bufio.Reader, drop, cut func()) (piece, error) {
	b, err := frame(r)
	if err != nil {
		return piece{}, err
	}
	key, version, correlation, err := head(b)
	if err != nil {
		return piece{}, err
	}
	if key == produceKey && noReply(b, version) {
		return piece{data: b}, nil
	}
	o := outstanding{correlation: correlation, key: key, version: version}
	p := piece{data: b}
	a := t.pick(key, version, b)
	if a != nil {
		switch a.rule.Action {
		case Hold, HoldAndDrop:
			p.due = time.Now().Add(a.rule.Delay)
			if a.rule.Action == HoldAndDrop {
				drop()
			}
			t.rules.did(a, false)
		case RefuseProduce:
			if o.own, err = refusal(b, version, correlation, a.rule.Code); err != nil {
				return piece{}, err
			}
			p.data = nil
			t.rules.did(a, false)
		case CutBeforeReply:
			o.cut = a
		case CutBeforeRequest:
			t.rules.did(a, false)
			cut()
			return piece{}, errCut
		}
	}
	t.expect(o)
	return p, nil
}

func (t *talk) pick(key, version int16, b []byte) *Active {
	if !t.rules.wanted(key) {
		return nil
	}
	req, err := decodeRequest(b)
	if err != nil {
		return nil // malformed, or newer than this client library: passes as it is
	}
	return t.rules.pick(req)
}

// expect notes that a reply is due. One of our own is sent at once if no other
// is due before.
func (t *talk) expect(o outstanding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o.own != nil && len(t.waiting) == 0 {
		t.say(o.own)
		return
	}
	t.waiting = append(t.waiting, o)
}

// reply takes one reply from the server, with those of ours that come next.
func (t *talk) reply(r *bufio.Reader, cut func()) (piece, error) {
	b, err := frame(r)
	if err != nil {
		return piece{}, err
	}
	o, own, err := t.answered(b)
	if err != nil {
		return piece{}, err
	}
	if o.cut != nil {
		t.rules.did(o.cut, written(b, o))
		cut()
		return piece{}, errCut
	}
	return piece{data: append(b, own...)}, nil
}

func (t *talk) answered(b []byte) (outstanding, []byte, error) {
	if len(b) < 8 {
		return outstanding{}, nil, io.ErrUnexpectedEOF
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		return outstanding{}, nil, errors.New("a reply that nothing asked for")
	}
	o := t.waiting[0]
	if got := int32(binary.BigEndian.Uint32(b[4:])); got != o.correlation {
		return o, nil, fmt.Errorf("reply %d where %d was due", got, o.correlation)
	}
	t.waiting = t.waiting[1:]
	var own []byte
	for len(t.waiting) > 0 && t.waiting[0].own != nil {
		own = append(own, t.waiting[0].own...)
		t.waiting = t.waiting[1:]
	}
	close(t.changed)
	t.changed = make(chan struct{})
	return o, own, nil
}

// awaitReplies waits until nothing is outstanding, done is closed or the limit
// is reached.
func (t *talk) awaitReplies(done <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		t.mu.Lock()
		n, changed := len(t.waiting), t.changed
		t.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-changed:
		case <-done:
			return
		case <-timer.C:
			return
		}
	}
}

var produceKey = kmsg.NewPtrProduceRequest().Key()

func head(b []byte) (key, version int16, correlation int32, err error) {
	r := kbin.Reader{Src: b[4:]}
	key, version, correlation = r.Int16(), r.Int16(), r.Int32()
	return key, version, correlation, r.Complete()
}

// decodeRequest reads a whole request.
func decodeRequest(b []byte) (kmsg.Request, error) {
	r := kbin.Reader{Src: b[4:]}
	req := kmsg.RequestForKey(r.Int16())
	version := r.Int16()
	r.Int32()
	r.NullableString()
	if req == nil || version > req.MaxVersion() {
		return nil, errors.New("not known")
	}
	req.SetVersion(version)
	if req.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	if err := r.Complete(); err != nil {
		return nil, err
	}
	return req, req.ReadFrom(r.Src)
}

// noReply tells a produce with acks=0, which is not answered.
func noReply(b []byte, version int16) bool {
	r := kbin.Reader{Src: b[4+2+2+4:]}
	r.NullableString()
	switch {
	case version >= 9:
		kmsg.SkipTags(&r)
		r.CompactNullableString()
	case version >= 3:
		r.NullableString()
	}
	return r.Int16() == 0 && r.Ok()
}

// refusal is the reply of a broker that leads none of the partitions.
func refusal(b []byte, version int16, correlation int32, code int16) ([]byte, error) {
	req, err := decodeRequest(b)
	if err != nil {
		return nil, err
	}
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(version)
	for _, topic := range req.(*kmsg.ProduceRequest).Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
		for _, partition := range topic.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.BaseOffset = partition.Partition, code, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(correlation))
	if resp.IsFlexible() {
		out = append(out, 0)
	}
	out = resp.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out, nil
}

// written tells whether a lost reply to a produce said that it was written.
func written(b []byte, o outstanding) bool {
	if o.key != produceKey {
		return false
	}
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(o.version)
	r := kbin.Reader{Src: b[8:]}
	if resp.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	if resp.ReadFrom(r.Src) != nil {
		return false
	}
	for _, topic := range resp.Topics {
		for _, p := range topic.Partitions {
			if p.ErrorCode == 0 {
				return true
			}
		}
	}
	return false
}
