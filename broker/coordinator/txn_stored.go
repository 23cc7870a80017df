package coordinator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-io/tidemark/broker/txn"
	"github.com/tidemark-io/tidemark/metadata"
)

func txnsPrefix(shard int) string { return fmt.Sprintf("%s%d/", metadata.PrefixTxns, shard) }

func txnKey(shard int, id string) string { return txnsPrefix(shard) + escape(id) }

func parseTxnKey(shard int, key string) (string, error) {
	return unescape(strings.TrimPrefix(key, txnsPrefix(shard)))
}

// storedTxn is the value of a transactional id's key; times are in milliseconds.
// Last is left out for nobody, and Next for none.
type storedTxn struct {
	Format        int                `json:"format"`
	Producer      int64              `json:"producer_id"`
	Epoch         int16              `json:"epoch"`
	Last          *[2]int64          `json:"last,omitempty"` // producer id, epoch
	Next          *int64             `json:"next_producer_id,omitempty"`
	State         string             `json:"state"`
	Version       int8               `json:"version"`
	TimeoutMillis int64              `json:"timeout_ms"`
	StartedMillis int64              `json:"started_ms,omitempty"`
	UpdatedMillis int64              `json:"updated_ms"`
	Partitions    map[string][]int32 `json:"partitions,omitempty"` // by topic id
}

func encodeTxn(t *txn.Txn) []byte {
	s := storedTxn{
		Format: storedFormat, Producer: t.Producer.ID, Epoch: t.Producer.Epoch, State: t.State.String(), Version: t.Version,
		TimeoutMillis: t.Timeout.Milliseconds(), UpdatedMillis: t.Updated.UnixMilli(),
	}
	if !t.Started.IsZero() {
		s.StartedMillis = t.Started.UnixMilli()
	}
	if t.Last != txn.Nobody {
		s.Last = &[2]int64{t.Last.ID, int64(t.Last.Epoch)}
	}
	if t.Next >= 0 {
		s.Next = &t.Next
	}
	if len(t.Partitions) > 0 {
		s.Partitions = map[string][]int32{}
		for tp := range t.Partitions {
			s.Partitions[tp.Topic.Hex()] = append(s.Partitions[tp.Topic.Hex()], tp.Partition)
		}
		for _, list := range s.Partitions {
			slices.Sort(list)
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // numbers and plain strings always encode
	}
	return b
}

func decodeTxn(b []byte) (*txn.Txn, error) {
	var s storedTxn
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	state, known := txn.ParseState(s.State)
	if s.Format != storedFormat || !known {
		return nil, fmt.Errorf("transaction of format %d in state %q", s.Format, s.State)
	}
	t := &txn.Txn{
		Producer: txn.Producer{ID: s.Producer, Epoch: s.Epoch}, Last: txn.Nobody, Next: -1, State: state, Version: s.Version,
		Timeout: time.Duration(s.TimeoutMillis) * time.Millisecond, Updated: time.UnixMilli(s.UpdatedMillis),
	}
	if s.StartedMillis != 0 {
		t.Started = time.UnixMilli(s.StartedMillis)
	}
	if s.Last != nil {
		t.Last = txn.Producer{ID: s.Last[0], Epoch: int16(s.Last[1])}
	}
	if s.Next != nil {
		t.Next = *s.Next
	}
	if len(s.Partitions) > 0 {
		t.Partitions = txn.Partitions{}
	}
	for hex, list := range s.Partitions {
		id, err := metadata.ParseTopicIDHex(hex)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			t.Partitions[metadata.TopicPartition{Topic: id, Partition: p}] = struct{}{}
		}
	}
	return t, t.Check()
}
