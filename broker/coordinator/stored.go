package coordinator

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidemark-io/tidemark/broker/group"
	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/metadata"
)

// Transactions are packed to less than the store's limits, because the limits
// count what surrounds keys and values too.
const (
	txnOpsMax   = 100
	txnBytesMax = 448 << 10
	partBytes   = 256 << 10
	opOverhead  = 32
)

// storedFormat is the format of offsets and of classic groups, consumerFormat
// that of consumer groups.
const (
	storedFormat   = 1
	consumerFormat = 2
)

// storedHeader is the value of a header key. A consumer group's generation is
// its epoch; it has an assignment epoch and a digest of its topics besides.
type storedHeader struct {
	Format       int    `json:"format"`
	Generation   int32  `json:"generation"`
	ProtocolType text   `json:"protocol_type"`
	Protocol     *text  `json:"protocol,omitempty"`
	Leader       text   `json:"leader"`
	SinceMillis  int64  `json:"since_ms"`
	Next         uint64 `json:"next"`

	AssignmentEpoch int32  `json:"assignment_epoch,omitempty"`
	Digest          uint64 `json:"digest,string,omitempty"`
	// Members are the numbers of the member keys, in order, each with its
	// number of parts.
	Members [][2]uint64 `json:"members"`
}

// storedMember is the value of a member's keys, put together.
type storedMember struct {
	ID              text             `json:"id"`
	Instance        *text            `json:"instance,omitempty"`
	ClientID        text             `json:"client_id"`
	ClientHost      text             `json:"client_host"`
	SessionMillis   int64            `json:"session_ms"`
	RebalanceMillis int64            `json:"rebalance_ms"`
	Protocols       []storedProtocol `json:"protocols"`
	Assignment      []byte           `json:"assignment"`
}

type storedProtocol struct {
	Name     text   `json:"name"`
	Metadata []byte `json:"metadata"`
}

// memberRef names a member's keys; sum is of their value, put together, and of,
// when not nil, the member itself, if it is one that does not change.
type memberRef struct {
	n     uint64
	parts int
	sum   [sha256.Size]byte
	of    *consumer.Member
}

// stored is what is known of a group's keys.
type stored struct {
	// header is the header's revision; 0: there is none.
	header int64
	// next is above every member key's number ever used.
	next    uint64
	members map[string]memberRef
	// garbage are member keys that no header names.
	garbage []memberRef
}

// groupWrite is a snapshot on its way to storage: batches in order, of which
// the last makes it count, then clean-up that may also be done later.
type groupWrite struct {
	batches [][]metadata.Op
	cleanup [][]metadata.Op
	header  metadata.Op
	after   stored // once the last batch is applied; its header revision is to be filled in
	written []memberRef
}

// snapshot is a state of a group of either protocol.
type snapshot struct {
	seq      uint64
	classic  *group.Snapshot
	of       *group.Group // that issued classic
	consumer *consumer.Snapshot
}

// header is the stored header of s, but for the members.
func (s *snapshot) header() storedHeader {
	if c := s.consumer; c != nil {
		return storedHeader{
			Format: consumerFormat, Generation: c.Epoch, AssignmentEpoch: c.AssignmentEpoch, Digest: c.Digest,
			ProtocolType: consumerType, SinceMillis: c.Since.UnixMilli(),
		}
	}
	c := s.classic
	return storedHeader{
		Format: storedFormat, Generation: c.Generation, ProtocolType: text(c.ProtocolType),
		Protocol: textPtr(c.Protocol), Leader: text(c.Leader), SinceMillis: c.Since.UnixMilli(),
	}
}

func (s *snapshot) members() int {
	if s.consumer != nil {
		return len(s.consumer.Members)
	}
	return len(s.classic.Members)
}

// member returns the id of member i, itself if it is a value that does not
// change, and what encodes it.
func (s *snapshot) member(i int) (id string, of *consumer.Member, encode func() ([]byte, error)) {
	if s.consumer != nil {
		m := s.consumer.Members[i]
		return m.ID, m, func() ([]byte, error) { return encodeConsumer(m) }
	}
	m := &s.classic.Members[i]
	return m.ID, nil, func() ([]byte, error) { return encodeMember(m) }
}

// planGroupWrite decides what to write so that s becomes the stored state.
// Members that did not change keep their keys.
func planGroupWrite(prefix string, st *stored, s *snapshot) (*groupWrite, error) {
	n := s.members()
	w := &groupWrite{after: stored{next: max(st.next, 1), members: make(map[string]memberRef, n)}}
	header := s.header()
	header.Members = make([][2]uint64, 0, n)
	// Every batch also compares, and perhaps reads, the header and the shard key.
	p := packer{reserve: 2*len(headerKey(prefix)) + 4*opOverhead}
	for i := range n {
		id, of, encode := s.member(i)
		ref, known := st.members[id]
		if !known || of == nil || ref.of != of {
			value, err := encode()
			if err != nil {
				return nil, fmt.Errorf("encode member: %w", err)
			}
			if sum := sha256.Sum256(value); !known || ref.sum != sum {
				ref = memberRef{n: w.after.next, parts: (len(value) + partBytes - 1) / partBytes, sum: sum}
				w.after.next++
				w.written = append(w.written, ref)
				for part := range ref.parts {
					end := min((part+1)*partBytes, len(value))
					p.add(metadata.Put(memberKey(prefix, ref.n, part), value[part*partBytes:end]))
				}
			}
			ref.of = of
		}
		w.after.members[id] = ref
		header.Members = append(header.Members, [2]uint64{ref.n, uint64(ref.parts)})
	}
	header.Next = w.after.next
	value, err := json.Marshal(&header)
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	w.header = metadata.Put(headerKey(prefix), value)
	p.add(w.header)
	w.batches = p.batches

	w.after.garbage = unreferenced(st, w.after.members)
	w.planCleanup(prefix)
	return w, nil
}

// planCleanup deletes garbage in the last batch as far as it has room.
func (w *groupWrite) planCleanup(prefix string) {
	last := packer{batches: [][]metadata.Op{w.batches[len(w.batches)-1]}, reserve: 2*len(w.header.Key) + 4*opOverhead}
	last.measure()
	for _, ref := range w.after.garbage {
		for part := range ref.parts {
			last.add(metadata.Delete(memberKey(prefix, ref.n, part)))
		}
	}
	w.batches[len(w.batches)-1] = last.batches[0]
	w.cleanup = last.batches[1:]
}

func unreferenced(st *stored, keep map[string]memberRef) []memberRef {
	garbage := append([]memberRef(nil), st.garbage...)
	for id, ref := range st.members {
		if kept, ok := keep[id]; !ok || kept.n != ref.n {
			garbage = append(garbage, ref)
		}
	}
	return garbage
}

func encodeMember(m *group.SnapshotMember) ([]byte, error) {
	sm := storedMember{
		ID: text(m.ID), Instance: textPtr(m.Instance), ClientID: text(m.ClientID), ClientHost: text(m.ClientHost),
		SessionMillis: m.SessionTimeout.Milliseconds(), RebalanceMillis: m.RebalanceTimeout.Milliseconds(),
		Assignment: m.Assignment,
	}
	for _, p := range m.Protocols {
		sm.Protocols = append(sm.Protocols, storedProtocol{Name: text(p.Name), Metadata: p.Metadata})
	}
	return json.Marshal(&sm)
}

func decodeMember(value []byte) (group.SnapshotMember, error) {
	var sm storedMember
	if err := json.Unmarshal(value, &sm); err != nil {
		return group.SnapshotMember{}, err
	}
	m := group.SnapshotMember{
		ID: string(sm.ID), Instance: sm.Instance.stringPtr(),
		ClientID: string(sm.ClientID), ClientHost: string(sm.ClientHost),
		SessionTimeout:   time.Duration(sm.SessionMillis) * time.Millisecond,
		RebalanceTimeout: time.Duration(sm.RebalanceMillis) * time.Millisecond,
		Assignment:       sm.Assignment,
	}
	for _, p := range sm.Protocols {
		m.Protocols = append(m.Protocols, group.Protocol{Name: string(p.Name), Metadata: p.Metadata})
	}
	return m, nil
}

// packer fills transactions in order.
type packer struct {
	batches [][]metadata.Op
	bytes   int
	reserve int
}

func (p *packer) measure() {
	for _, op := range p.batches[0] {
		p.bytes += opBytes(op)
	}
}

func (p *packer) add(op metadata.Op) {
	n := opBytes(op)
	last := len(p.batches) - 1
	if last < 0 || len(p.batches[last]) >= txnOpsMax || p.bytes+p.reserve+n > txnBytesMax {
		p.batches = append(p.batches, nil)
		p.bytes = 0
		last++
	}
	p.batches[last] = append(p.batches[last], op)
	p.bytes += n
}

func opBytes(op metadata.Op) int { return len(op.Key) + len(op.Value) + opOverhead }
