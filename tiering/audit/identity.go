package audit

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/wal"
)

// identify learns the cluster's id and makes sure that both sides have the same.
func (a *auditor) identify(ctx context.Context) error {
	entries, _, err := a.kv.Get(ctx, metadata.KeyIdentity)
	if err != nil {
		return fmt.Errorf("read the cluster's identity: %w", err)
	}
	if !entries[0].Exists() {
		return errors.New("the metadata store knows no cluster of this name")
	}
	var id metadata.Identity
	if err := json.Unmarshal(entries[0].Value, &id); err != nil {
		return fmt.Errorf("the cluster's identity is not readable: %w", err)
	}
	var cluster wal.ClusterID
	raw, err := base64.RawURLEncoding.DecodeString(id.ClusterID)
	if err != nil || len(raw) != len(cluster) {
		return fmt.Errorf("cluster id %q is not 22 characters of base64", id.ClusterID)
	}
	copy(cluster[:], raw)
	for _, key := range []string{"_cluster/id", fmt.Sprintf("_cluster/gen/%d", id.Generation)} {
		if err := a.checkIdentity(ctx, key, id); err != nil {
			return err
		}
	}
	a.out.setCluster(id.ClusterID, id.Generation)
	a.inspector = tiering.NewInspector(a.store, cluster)
	a.chains = newChains(a)
	return nil
}

func (a *auditor) checkIdentity(ctx context.Context, key string, id metadata.Identity) error {
	const bytesMax = 4 << 10
	b, err := a.store.Get(ctx, key, 0, bytesMax)
	if errors.Is(err, object.ErrNotFound) {
		if !id.Ready {
			return errors.New("the cluster's first start is not finished")
		}
		a.out.problem(Problem{KindIdentity, key, "missing from the bucket: no broker will start"})
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	var found struct {
		ClusterID string `json:"cluster_id"`
	}
	if err := json.Unmarshal(b, &found); err != nil {
		a.out.problem(Problem{KindIdentity, key, "not readable: no broker will start"})
		return nil
	}
	if found.ClusterID != id.ClusterID {
		return fmt.Errorf("%w: the metadata store is of cluster %s, the bucket of cluster %s", metadata.ErrIdentity, id.ClusterID, found.ClusterID)
	}
	return nil
}
