package broker

import (
	"context"

	"github.com/tidemark-io/tidemark/metadata"
)

// KVAdmin is Admin over a metadata store.
type KVAdmin struct {
	KV metadata.KV
	// Preferred, when set, chooses the first leader of a new partition, which
	// spares it a wait for the controller.
	Preferred func(partition int32) metadata.Incarnation
}

var _ Admin = KVAdmin{}

// CreateTopic and the methods after it call the functions of package metadata
// of the same names.
func (a KVAdmin) CreateTopic(ctx context.Context, spec metadata.TopicSpec) (*metadata.Topic, int64, error) {
	if spec.Preferred == nil { // no manual assignment
		spec.Preferred = a.Preferred
	}
	return metadata.CreateTopic(ctx, a.KV, spec)
}

func (a KVAdmin) DeleteTopic(ctx context.Context, id metadata.TopicID) (int64, error) {
	return metadata.DeleteTopic(ctx, a.KV, id)
}

func (a KVAdmin) CreatePartitions(ctx context.Context, id metadata.TopicID, total int32) (int64, error) {
	_, rev, err := metadata.CreatePartitions(ctx, a.KV, id, total, a.Preferred)
	return rev, err
}

func (a KVAdmin) AlterTopicConfigs(ctx context.Context, id metadata.TopicID, change func(map[string]string) error) (int64, error) {
	_, rev, err := metadata.AlterTopicConfigs(ctx, a.KV, id, change)
	return rev, err
}

func (a KVAdmin) AlterConfigs(ctx context.Context, kind, name string, change func(map[string]string) error) (int64, error) {
	_, rev, err := metadata.AlterConfigs(ctx, a.KV, kind, name, change)
	return rev, err
}

func (a KVAdmin) AllocateProducerIDs(ctx context.Context, n int64) (int64, error) {
	return metadata.AllocateProducerIDs(ctx, a.KV, n)
}
