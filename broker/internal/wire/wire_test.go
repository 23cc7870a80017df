package wire

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill sets every field of v to something, with arrays of up to two elements.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[kmsg.Tags]() {
			return
		}
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "Version" || v.NumField() == 1 {
				fill(r, v.Field(i))
			}
		}
	case reflect.Pointer:
		if r.IntN(4) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem())
		}
	case reflect.Slice:
		n := r.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.String:
		v.SetString("some text"[:r.IntN(9)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.IntN(100)))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(r.IntN(100)))
	case reflect.Float64:
		v.SetFloat(r.Float64())
	default:
		panic(v.Kind())
	}
}

func flexible(key, version int16) bool {
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	return req.IsFlexible()
}

func TestEveryRequestAtEveryVersion(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for key := range schemas {
		for version := int16(0); version <= kmsg.RequestForKey(key).MaxVersion(); version++ {
			for range 20 {
				req := kmsg.RequestForKey(key)
				req.SetVersion(version)
				fill(r, reflect.ValueOf(req).Elem())
				req.SetVersion(version)
				body := req.AppendTo(nil)
				_, rest, err := walk(key, version, req.IsFlexible(), body, 1<<20)
				if err != nil || len(rest) != 0 {
					t.Errorf("%s v%d: %v, %d bytes left", kmsg.NameForKey(key), version, err, len(rest))
					break
				}
				if len(body) == 0 {
					continue
				}
				cut := body[:r.IntN(len(body))]
				if _, err := Check(key, version, req.IsFlexible(), cut, 1<<20); err == nil {
					again := kmsg.RequestForKey(key)
					again.SetVersion(version)
					if again.ReadFrom(cut) != nil {
						t.Fatalf("%s v%d: a cut body passes", kmsg.NameForKey(key), version)
					}
				}
			}
		}
	}
}

func TestHostileCounts(t *testing.T) {
	bytesOf := func(n int, b byte) []byte {
		s := make([]byte, n)
		for i := range s {
			s[i] = b
		}
		return s
	}
	count := func(n uint32, rest []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, n), rest...) }
	for _, c := range []struct {
		name         string
		key, version int16
		body         []byte
		want         error
	}{
		{"2^31-1 topics with 4 bytes left", 3, 1, count(0x7fffffff, []byte{1, 2, 3, 4}), ErrMalformed},
		{"count below -1", 3, 1, count(0x80000000, nil), ErrMalformed},
		{"one byte an element", 3, 9, append([]byte{0x81, 0x80, 0x80, 0x08}, bytesOf(16<<20, 1)...), ErrCostly},
		{"varint of 11 bytes", 3, 9, bytesOf(11, 0xff), ErrMalformed},
		{"tagged field bomb", 18, 3, []byte{1, 1, 0xff, 0xff, 0xff, 0xff, 0x07}, ErrMalformed},
		{"trailing junk", 3, 1, count(0, []byte{9}), nil},
	} {
		allocs := testing.AllocsPerRun(1, func() { _, _ = Check(c.key, c.version, flexible(c.key, c.version), c.body, 1<<20) })
		if allocs > 20 { // the error; an array would be one of its size
			t.Errorf("%s: %v allocations", c.name, allocs)
		}
		if _, err := Check(c.key, c.version, flexible(c.key, c.version), c.body, 1<<20); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// FuzzCheck holds Check to its promise: what it accepts, kmsg decodes within
// the cost that Check reported.
func FuzzCheck(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for key := range schemas {
		req := kmsg.RequestForKey(key)
		for version := int16(0); version <= req.MaxVersion(); version += 3 {
			req.SetVersion(version)
			fill(r, reflect.ValueOf(req).Elem())
			req.SetVersion(version)
			f.Add(key, version, req.AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		if !Known(key) || version < 0 || version > kmsg.RequestForKey(key).MaxVersion() {
			return
		}
		req := kmsg.RequestForKey(key)
		req.SetVersion(version)
		if _, err := Check(key, version, req.IsFlexible(), body, 1<<20); err != nil {
			return
		}
		_ = req.ReadFrom(body)
	})
}
