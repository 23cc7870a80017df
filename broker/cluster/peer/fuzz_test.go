package peer

import (
	"context"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/tidemark-io/tidemark/broker/cluster/peer/peerpb"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
)

// FuzzAskRelease has a server answer whatever decodes, and a client read
// whatever a peer may answer.
func FuzzAskRelease(f *testing.F) {
	claims := []tiering.Claim{{Partition: metadata.TopicPartition{Topic: metadata.TopicID{1}, Partition: 2}, Epoch: 3}}
	add := func(to uint64, parts []*peerpb.OwnedPartition) {
		b, err := proto.Marshal(&peerpb.AskReleaseRequest{From: 1, To: to, Partitions: parts})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(7, ownedToWire(claims))
	add(6, ownedToWire(claims))
	add(7, []*peerpb.OwnedPartition{{Topic: []byte("short"), Partition: -1}})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewServer(7, &handler{}, nil)
		var req peerpb.AskReleaseRequest
		if proto.Unmarshal(b, &req) == nil {
			resp, err := s.AskRelease(context.Background(), &req)
			if err == nil && req.GetTo() == 7 {
				if released, err := releasedFromWire(resp.GetReleased()); err != nil || len(released) != len(req.GetPartitions()) {
					t.Errorf("%d of %d partitions, %v", len(released), len(req.GetPartitions()), err)
				}
			}
		}
		var resp peerpb.AskReleaseResponse
		if proto.Unmarshal(b, &resp) == nil {
			if released, err := releasedFromWire(resp.GetReleased()); err == nil {
				for _, r := range released {
					if r.Partition.Partition < 0 {
						t.Errorf("%v", r)
					}
				}
			}
		}
	})
}
