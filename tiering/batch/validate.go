package batch

import (
	"errors"
	"fmt"
	"math"
)

// ErrTimestamp: a record's timestamp lies outside the window that is accepted.
var ErrTimestamp = errors.New("record timestamp is out of range")

// recordErrorsMax is how many offending records an answer names.
const recordErrorsMax = 3

// Rules are what a produced batch is held to, besides its own consistency.
type Rules struct {
	// BytesMax is max.message.bytes.
	BytesMax int
	// TimestampMin and TimestampMax bound the records' timestamps, in
	// milliseconds. They are not looked at under LogAppendTime.
	TimestampMin, TimestampMax int64
	LogAppendTime              bool
	// Keys demands a key of every record: the topic is compacted. It makes
	// Validate inflate a compressed batch, up to InflatedMax bytes.
	Keys        bool
	InflatedMax int
}

// RecordError tells which record of a batch is at fault. Index counts from 0.
type RecordError struct {
	Index  int32
	Reason string
}

// RejectedError is a batch refused for some of its records. It wraps
// ErrTimestamp or ErrInvalid.
type RejectedError struct {
	Records []RecordError
	Total   int
	cause   error
}

func (e *RejectedError) Error() string {
	return fmt.Sprintf("%d records of the batch were refused: %v", e.Total, e.cause)
}

func (e *RejectedError) Unwrap() error { return e.cause }

// add notes one offending record. A timestamp decides the kind of the whole, as
// in Kafka's LogValidator.
func (e *RejectedError) add(index int32, cause error, reason string) {
	e.Total++
	if len(e.Records) < recordErrorsMax {
		e.Records = append(e.Records, RecordError{Index: index, Reason: reason})
	}
	if e.cause == nil || cause == ErrTimestamp {
		e.cause = cause
	}
}

// Validate checks that b is exactly one record batch that a client may produce:
// length, magic, size, CRC, flags, counts, producer fields and timestamps, in
// Kafka's order. The records of an uncompressed batch are walked; a compressed
// one is not inflated unless the rules demand keys, and its timestamps are
// judged by its header. It changes one thing: a header's max timestamp that
// understates or overstates what the uncompressed records say is corrected, as
// Kafka does, because lookups by time rest on it. A refusal changes nothing.
func Validate(b []byte, rules Rules) (Header, error) {
	h, err := Parse(b)
	if err != nil {
		return Header{}, err
	}
	if h.Length != len(b) {
		return Header{}, fmt.Errorf("%w: more than one record batch", ErrInvalid)
	}
	if h.BaseOffset != 0 {
		return Header{}, fmt.Errorf("%w: base offset %d is not 0", ErrInvalid, h.BaseOffset)
	}
	if h.Length > rules.BytesMax {
		return Header{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, h.Length, rules.BytesMax)
	}
	if err := CheckCRC(b); err != nil {
		return Header{}, err
	}
	if err := h.consistent(); err != nil {
		return Header{}, err
	}
	if err := h.timestamps(rules); err != nil {
		return Header{}, err
	}
	if h.Codec() == None || rules.Keys {
		if err := h.records(b, rules); err != nil {
			return Header{}, err
		}
	}
	return h, nil
}

// consistent checks the fields that a CRC does not vouch for.
func (h *Header) consistent() error {
	switch {
	case h.Control():
		return fmt.Errorf("%w: clients may not write control batches", ErrInvalid)
	case h.Codec() > Zstd:
		return fmt.Errorf("%w: %s", ErrCodec, h.Codec())
	case h.Records <= 0:
		return fmt.Errorf("%w: %d records", ErrInvalid, h.Records)
	case h.LastOffsetDelta != h.Records-1:
		return fmt.Errorf("%w: %d records but last offset delta %d", ErrInvalid, h.Records, h.LastOffsetDelta)
	case h.ProducerID < -1:
		return fmt.Errorf("%w: producer id %d", ErrInvalid, h.ProducerID)
	case h.ProducerID >= 0 && h.ProducerEpoch < 0:
		return fmt.Errorf("%w: producer epoch %d", ErrInvalid, h.ProducerEpoch)
	case h.ProducerID >= 0 && h.BaseSequence < 0:
		return fmt.Errorf("%w: sequence number %d", ErrInvalid, h.BaseSequence)
	case h.Transactional() && h.ProducerID < 0:
		return fmt.Errorf("%w: a transactional batch without a producer id", ErrInvalid)
	}
	return nil
}

// timestamps checks what the header alone tells. -1 is "no timestamp".
func (h *Header) timestamps(rules Rules) error {
	switch {
	case rules.LogAppendTime:
		return nil
	case h.LogAppendTime():
		return fmt.Errorf("%w: producers may not set log append time", ErrTimestamp)
	case h.BaseTimestamp < -1 || h.MaxTimestamp < -1:
		return fmt.Errorf("%w: negative", ErrTimestamp)
	case h.Codec() == None:
		return nil // each record is looked at
	}
	if !inWindow(h.MaxTimestamp, rules) || !inWindow(h.BaseTimestamp, rules) {
		return fmt.Errorf("%w: %d to %d", ErrTimestamp, h.BaseTimestamp, h.MaxTimestamp)
	}
	return nil
}

func inWindow(ts int64, rules Rules) bool {
	return ts == -1 || ts >= rules.TimestampMin && ts <= rules.TimestampMax
}

// records walks the records and corrects the header's max timestamp.
func (h *Header) records(b []byte, rules Rules) error {
	var rejected RejectedError
	newest := int64(math.MinInt64)
	err := Scan(b, h, rules.InflatedMax, func(r *Record) error {
		ts := h.BaseTimestamp + r.TimestampDelta
		newest = max(newest, ts)
		if !rules.LogAppendTime && !inWindow(ts, rules) {
			rejected.add(r.OffsetDelta, ErrTimestamp, fmt.Sprintf("Timestamp %d of message with offset %d is out of range.", ts, r.OffsetDelta))
		}
		if rules.Keys && r.Key == nil {
			rejected.add(r.OffsetDelta, ErrInvalid, "Compacted topic cannot accept message without key.")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if rejected.Total > 0 {
		return &rejected
	}
	if !rules.LogAppendTime && newest != h.MaxTimestamp {
		setMaxTimestamp(b, newest)
		h.MaxTimestamp = newest
	}
	return nil
}
