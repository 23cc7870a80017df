package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func badArrayCases() []badCase {
	return []badCase{
		{"2^31-1 elements claimed, 4 bytes left, everywhere", arraysClaimed},
		{"varints that do not end, everywhere", varintsEndless},
		{"requests without a body", bodiesMissing},
		{"compact length 0 where null is not allowed", compactNull},
		{"compact null and empty are different", compactNullOrEmpty},
		{"tagged fields in a header", headerTags},
		{"tagged fields in a body", bodyTags},
		{"2 Mi elements of one byte", thinElements},
	}
}

// lengthField is a count or length in a request: an array, bytes or a string.
type lengthField struct {
	name string
	// path leads to the field from the request, through the first element of
	// every array on the way.
	path []int
	// encode is the request with one element in the field, or with none.
	encode func(version int16, filled bool) (kmsg.Request, []byte)
}

// lengthFields finds all of them in the request of an API.
func lengthFields(key int16) []lengthField {
	var fields []lengthField
	add := func(name string, path []int) {
		fields = append(fields, lengthField{name, path, func(version int16, filled bool) (kmsg.Request, []byte) {
			req := kmsg.RequestForKey(key)
			req.SetVersion(version)
			fill(reflect.ValueOf(req).Elem(), path, filled)
			return req, req.AppendTo(nil)
		}})
	}
	walkLengths(reflect.TypeOf(kmsg.RequestForKey(key)).Elem(), kmsg.NameForKey(key), nil, add)
	return fields
}

func walkLengths(typ reflect.Type, name string, path []int, add func(string, []int)) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Name == "Version" || f.Name == "UnknownTags" {
			continue
		}
		name, path := name+"."+f.Name, append(path[:len(path):len(path)], i)
		of := f.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of.Kind() == reflect.Slice || of.Kind() == reflect.String {
			add(name, path)
		}
		if of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct {
			walkLengths(of, name, path, add)
		}
	}
}

// fill makes the way to a field and gives it one element, or none, not null.
func fill(v reflect.Value, path []int, filled bool) {
	for i, step := range path {
		v = v.Field(step)
		if v.Kind() == reflect.Pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		last := i == len(path)-1
		switch {
		case last && v.Kind() == reflect.String && filled:
			v.SetString("x")
		case v.Kind() == reflect.Slice && last && !filled:
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		case v.Kind() == reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			v = v.Index(0)
		}
	}
}

// eachLength calls f for every length field of every version of every API that
// is advertised, with the bytes of the body before the field.
func (r *badRig) eachLength(t *testing.T, f func(what string, req kmsg.Request, before []byte, text bool)) {
	t.Helper()
	n := 0
	for _, api := range r.advertised(t) {
		for _, field := range lengthFields(api.ApiKey) {
			for version := api.MinVersion; version <= api.MaxVersion; version++ {
				req, none := field.encode(version, false)
				_, one := field.encode(version, true)
				at := difference1(none, one)
				if at < 0 {
					continue // not in this version
				}
				text := strings.HasPrefix(kindAt(req, field.path), "string")
				if !req.IsFlexible() { // the last byte of the count is the one that differs
					if at -= 3; text {
						at += 2
					}
				}
				n++
				f(fmt.Sprintf("%s version %d", field.name, version), req, none[:at], text)
			}
		}
	}
	if n < 300 {
		t.Errorf("only %d lengths were found", n)
	}
}

// kindAt is the kind of the field at the end of a path.
func kindAt(req kmsg.Request, path []int) string {
	typ := reflect.TypeOf(req).Elem()
	for _, step := range path {
		for typ.Kind() != reflect.Struct {
			typ = typ.Elem()
		}
		typ = typ.Field(step).Type
	}
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	return typ.Kind().String()
}

// difference1 is where two bodies first differ, -1 if nowhere.
func difference1(a, b []byte) int {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return -1
}

// refusedBody sends a body on a connection of its own, which must be closed.
func (r *badRig) refusedBody(t *testing.T, what string, req kmsg.Request, body ...[]byte) {
	t.Helper()
	c := r.dial(t)
	c.send(badBody(req, bytes.Join(body, nil)))
	c.wantClosed(t, what)
}

func arraysClaimed(t *testing.T, r *badRig) {
	left := []byte{0, 0, 0, 0}
	r.eachLength(t, func(what string, req kmsg.Request, before []byte, text bool) {
		switch {
		case req.IsFlexible():
			r.refusedBody(t, what, req, before, binary.AppendUvarint(nil, math.MaxInt32), left)
			r.refusedBody(t, what+" and one", req, before, binary.AppendUvarint(nil, math.MaxInt32+1), left)
			r.refusedBody(t, what+" of 32 bits", req, before, binary.AppendUvarint(nil, math.MaxUint32), left)
		case text:
			r.refusedBody(t, what, req, before, []byte{0x7f, 0xff}, left)
			r.refusedBody(t, what+" negative", req, before, []byte{0x80, 0}, left)
		default:
			r.refusedBody(t, what, req, before, []byte{0x7f, 0xff, 0xff, 0xff}, left)
			r.refusedBody(t, what+" negative", req, before, []byte{0x80, 0, 0, 0}, left)
		}
	})
}

func varintsEndless(t *testing.T, r *badRig) {
	r.eachLength(t, func(what string, req kmsg.Request, before []byte, _ bool) {
		if req.IsFlexible() {
			r.refusedBody(t, what, req, before, bytes.Repeat([]byte{0xff}, 11), []byte{1, 0, 0, 0, 0})
			r.refusedBody(t, what+" of zeros", req, before, bytes.Repeat([]byte{0x80}, 11), []byte{0, 0, 0, 0, 0})
		}
	})
}

func bodiesMissing(t *testing.T, r *badRig) {
	for _, api := range r.advertised(t) {
		for version := api.MinVersion; version <= api.MaxVersion; version++ {
			req := kmsg.RequestForKey(api.ApiKey)
			req.SetVersion(version)
			if len(req.AppendTo(nil)) > 0 {
				r.refusedBody(t, fmt.Sprintf("%s version %d", kmsg.NameForKey(api.ApiKey), version), req)
			}
		}
	}
}

// compactNull puts null where Kafka's schema has none: into the name of a topic
// to create and of one to delete, and into a group's id. Kafka closes the
// connection; an error for the topic or the group will do.
func compactNull(t *testing.T, r *badRig) {
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(5)
	topic := []byte{2, 0, 0, 0, 0, 1, 0, 1, 1, 1, 0} // one topic: null, 1 partition, factor 1
	body := append(topic, 0, 0, 0x10, 0, 0, 0)       // timeout, not only validated
	c := r.dial(t)
	c.send(badBody(create, body))
	if resp, err := c.answer0(create); err == nil && resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode == 0 {
		t.Error("a topic without a name is created")
	}

	join := kmsg.NewPtrJoinGroupRequest()
	join.SetVersion(6)
	body = append([]byte{0}, 0, 0, 0x27, 0x10, 0, 0, 0x27, 0x10, 1, 0, 9)
	body = append(body, "consumer\x02\x06range\x01\x00\x00"...)
	c = r.dial(t)
	c.send(badBody(join, body))
	if resp, err := c.answer0(join); err == nil && resp.(*kmsg.JoinGroupResponse).ErrorCode == 0 {
		t.Error("a group without an id is joined")
	}
}

func (c *badConn) answer0(req kmsg.Request) (kmsg.Response, error) {
	c.correlation = 0
	return c.answer(req)
}

// compactNullOrEmpty: no list of topics is all of them, an empty list is none.
func compactNullOrEmpty(t *testing.T, r *badRig) {
	for _, c := range []struct {
		name   string
		topics []kmsg.MetadataRequestTopic
		all    bool
	}{{"null", nil, true}, {"empty", []kmsg.MetadataRequestTopic{}, false}} {
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = c.topics
		got := len(r.conn.ask(t, req, 12).(*kmsg.MetadataResponse).Topics)
		if (got > 0) != c.all {
			t.Errorf("%s: %d topics", c.name, got)
		}
	}
}

// tagBombs are blocks of tagged fields that cost more than they should.
func tagBombs() map[string][]byte {
	return map[string][]byte{
		"2^31-1 fields claimed":       binary.AppendUvarint(nil, math.MaxInt32),
		"2^32-1 fields claimed":       binary.AppendUvarint(nil, math.MaxUint32),
		"a million fields":            append(binary.AppendUvarint(nil, 1<<20), bytes.Repeat([]byte{7, 0}, 1<<20)...),
		"1000 fields":                 append(binary.AppendUvarint(nil, 1000), bytes.Repeat([]byte{7, 0}, 1000)...),
		"a field of 2^31-1 bytes":     append([]byte{1, 7}, binary.AppendUvarint(nil, math.MaxInt32)...),
		"a field of 2^32-1 bytes":     append([]byte{1, 7}, binary.AppendUvarint(nil, math.MaxUint32)...),
		"a tag of eleven bytes":       append([]byte{1}, bytes.Repeat([]byte{0xff}, 11)...),
		"a size of eleven bytes":      append([]byte{1, 7}, bytes.Repeat([]byte{0x80}, 11)...),
		"a field longer than is left": {1, 7, 100, 0, 0},
	}
}

func headerTags(t *testing.T, r *badRig) {
	req := flexibleHeader()
	full := badRequest(req, 1)[4:]
	head := full[:len(full)-len(req.AppendTo(nil))-1] // without its own tagged fields
	for name, bomb := range tagBombs() {
		c := r.dial(t)
		c.send(badFrame(head, bomb))
		c.wantClosed(t, name)
	}
}

func bodyTags(t *testing.T, r *badRig) {
	req := flexibleHeader()
	body := req.AppendTo(nil)
	for name, bomb := range tagBombs() {
		r.refusedBody(t, name, req, body[:len(body)-1], bomb)
	}
	// A few fields that nobody knows are no reason to refuse a request.
	c := r.dial(t)
	c.send(badBody(req, append(body[:len(body)-1], 2, 100, 1, 'x', 101, 0)))
	if _, err := c.answer0(req); err != nil {
		t.Errorf("unknown tagged fields: %v", err)
	}
}

// thinElements: an element of one byte takes a hundred times as much in memory.
func thinElements(t *testing.T, r *badRig) {
	const elements = 2 << 20
	groups := kmsg.NewPtrDescribeGroupsRequest()
	groups.SetVersion(5)
	r.refusedBody(t, "empty group ids", groups, binary.AppendUvarint(nil, elements+1), bytes.Repeat([]byte{1}, elements), []byte{0, 0})
	old := kmsg.NewPtrOffsetFetchRequest()
	old.SetVersion(8)
	r.refusedBody(t, "groups of nothing", old, binary.AppendUvarint(nil, elements+1), bytes.Repeat([]byte{1}, elements), []byte{0, 0})
}
