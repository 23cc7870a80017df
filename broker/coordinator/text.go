package coordinator

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// text is a string from the network in a JSON value: as a string where that
// loses nothing and costs little, else as bytes. JSON itself would replace
// invalid UTF-8, and could make six bytes of one.
type text string

type textBytes struct {
	B []byte `json:"b"`
}

// MarshalJSON implements json.Marshaler.
func (t text) MarshalJSON() ([]byte, error) {
	if !t.readable() {
		return json.Marshal(textBytes{B: []byte(t)})
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(string(t)); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

func (t text) readable() bool {
	for i := range len(t) {
		// Quotes and markup are escaped, by us or by the encoder around us.
		switch c := t[i]; {
		case c < ' ', c == '"', c == '\\', c == '<', c == '>', c == '&', c == 0x7f, c == 0xe2:
			return false
		}
	}
	return utf8.ValidString(string(t))
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var raw textBytes
		if err := json.Unmarshal(b, &raw); err != nil {
			return err
		}
		*t = text(raw.B)
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*t = text(s)
	return nil
}

// size bounds the encoded length.
func (t text) size() int {
	if t.readable() {
		return len(t) + 2
	}
	return (len(t)+2)/3*4 + 8
}

func textPtr(s *string) *text {
	if s == nil {
		return nil
	}
	t := text(*s)
	return &t
}

func (t *text) stringPtr() *string {
	if t == nil {
		return nil
	}
	s := string(*t)
	return &s
}
