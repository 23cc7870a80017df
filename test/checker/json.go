package checker

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

func (k Key) String() string { return k.Topic + "-" + strconv.Itoa(int(k.Partition)) }

// ParseKey reads what Key.String prints.
func ParseKey(s string) (Key, error) {
	i := strings.LastIndexByte(s, '-')
	if i < 0 {
		return Key{}, fmt.Errorf("%q names no partition", s)
	}
	p, err := strconv.ParseInt(s[i+1:], 10, 32)
	if err != nil {
		return Key{}, fmt.Errorf("%q names no partition: %w", s, err)
	}
	return Key{s[:i], int32(p)}, nil
}

// MarshalJSON writes the forms in the comment of Op.
func (o Op) MarshalJSON() ([]byte, error) {
	key := strconv.Quote(o.Key.String()) // topic names are ASCII
	switch o.Kind {
	case 's', 'f':
		return fmt.Appendf(nil, `["%c",%s,%d,%d]`, o.Kind, key, o.Value, o.Offset), nil
	case 'p':
		return o.appendPoll(key), nil
	case 'w':
		return fmt.Appendf(nil, `["w",%s,%d,%d,%d]`, key, o.Marks.Start, o.Marks.LSO, o.Marks.HW), nil
	case 'c', 'a':
		return fmt.Appendf(nil, `["%c",%s,%d]`, o.Kind, key, o.Offset), nil
	case 'r':
		return fmt.Appendf(nil, `["r",%s,%d,%d]`, key, o.Offset, o.To), nil
	}
	return nil, fmt.Errorf("operation of unknown kind %q", o.Kind)
}

func (o Op) appendPoll(key string) []byte {
	b := append([]byte(`["p",{`), key...)
	b = append(b, ":["...)
	for i, r := range o.Records {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, '['), r.Offset, 10)
		if r.Bad == "" {
			b = strconv.AppendUint(append(b, ','), r.Value, 10)
		} else {
			why, _ := json.Marshal(r.Bad) // a string always can
			b = append(append(b, ",null,"...), why...)
		}
		b = append(b, ']')
	}
	return append(b, "]}]"...)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (o *Op) UnmarshalJSON(data []byte) error {
	var parts []json.RawMessage
	var kind string
	if err := json.Unmarshal(data, &parts); err != nil {
		return err
	}
	if len(parts) < 2 {
		return fmt.Errorf("operation %s is too short", data)
	}
	if err := json.Unmarshal(parts[0], &kind); err != nil || len(kind) != 1 {
		return fmt.Errorf("operation %s has no kind", data)
	}
	*o = Op{Kind: kind[0]}
	if o.Kind == 'p' {
		return o.parsePoll(parts[1])
	}
	var key string
	if err := json.Unmarshal(parts[1], &key); err != nil {
		return err
	}
	var err error
	if o.Key, err = ParseKey(key); err != nil {
		return err
	}
	return o.parseNumbers(parts[2:])
}

func (o *Op) parseNumbers(parts []json.RawMessage) error {
	var into []any
	switch o.Kind {
	case 's', 'f':
		into = []any{&o.Value, &o.Offset}
	case 'w':
		into = []any{&o.Marks.Start, &o.Marks.LSO, &o.Marks.HW}
	case 'c', 'a':
		into = []any{&o.Offset}
	case 'r':
		into = []any{&o.Offset, &o.To}
	default:
		return fmt.Errorf("operation of unknown kind %q", o.Kind)
	}
	if len(parts) != len(into) {
		return fmt.Errorf("operation %q has %d numbers", o.Kind, len(parts))
	}
	for i := range into {
		if err := json.Unmarshal(parts[i], into[i]); err != nil {
			return err
		}
	}
	return nil
}

func (o *Op) parsePoll(data []byte) error {
	var polled map[string][][]json.RawMessage
	if err := json.Unmarshal(data, &polled); err != nil {
		return err
	}
	if len(polled) != 1 {
		return fmt.Errorf("a poll operation of %d partitions", len(polled))
	}
	for key, records := range polled {
		var err error
		if o.Key, err = ParseKey(key); err != nil {
			return err
		}
		for _, r := range records {
			rec, err := parseRecord(r)
			if err != nil {
				return err
			}
			o.Records = append(o.Records, rec)
		}
	}
	return nil
}

func parseRecord(parts []json.RawMessage) (r Record, err error) {
	if len(parts) != 2 && len(parts) != 3 {
		return r, fmt.Errorf("a record of %d parts", len(parts))
	}
	if err := json.Unmarshal(parts[0], &r.Offset); err != nil {
		return r, err
	}
	if len(parts) == 3 {
		return r, json.Unmarshal(parts[2], &r.Bad)
	}
	return r, json.Unmarshal(parts[1], &r.Value)
}
