package chaos

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/etcd"
)

// kv is the cluster's metadata, by a way of its own.
func (r *rig) kv() metadata.KV {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	kv, err := etcd.Open(ctx, etcd.Config{Endpoints: strings.Split(r.etcd.URLs(), ","), Cluster: "tidemark"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = kv.Close() })
	return kv
}

// entries are the keys below a prefix.
func (r *rig) entries(kv metadata.KV, prefix string) ([]metadata.Entry, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	entries, _, err := kv.Range(ctx, prefix)
	return entries, err
}

// owner is who claimed a partition last.
type owner struct {
	metadata.Incarnation
	epoch int32
}

// owners maps every partition to its newest owner.
func (r *rig) owners() map[string]owner {
	r.t.Helper()
	entries, err := r.entries(r.kv(), metadata.PrefixPartitions)
	if err != nil {
		r.t.Fatal(err)
	}
	by := make(map[string]owner)
	for _, e := range entries {
		var p metadata.Partition
		if err := json.Unmarshal(e.Value, &p); err != nil {
			r.t.Fatalf("%s: %v", e.Key, err)
		}
		if n := len(p.Owners); n > 0 {
			by[e.Key] = owner{p.Owners[n-1].Incarnation, p.Owners[n-1].Epoch}
		}
	}
	return by
}

// sessions maps registrations to the leases they hang on.
func (r *rig) sessions() map[string]metadata.LeaseID {
	r.t.Helper()
	entries, err := r.entries(r.kv(), metadata.PrefixBrokers)
	if err != nil {
		r.t.Fatal(err)
	}
	by := make(map[string]metadata.LeaseID)
	for _, e := range entries {
		by[e.Key] = e.Lease
	}
	return by
}

func same(a, b map[string]metadata.LeaseID) (n int) {
	for k, lease := range a {
		if b[k] == lease {
			n++
		}
	}
	return n
}

// move gives every partition to another broker, as a controller would that
// changes its mind.
func (r *rig) move(kv metadata.KV) (moved int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	guard, err := r.entries(kv, metadata.KeyController)
	if err != nil || len(guard) == 0 {
		return 0, err
	}
	brokers, err := r.entries(kv, metadata.PrefixBrokers)
	if err != nil || len(brokers) == 0 {
		return 0, err
	}
	var live []metadata.Incarnation
	for _, b := range brokers {
		inc, err := metadata.ParseIncarnation(strings.TrimPrefix(b.Key, metadata.PrefixBrokers))
		if err != nil {
			return 0, err
		}
		live = append(live, inc)
	}
	parts, err := r.entries(kv, metadata.PrefixPartitions)
	if err != nil {
		return 0, err
	}
	changes := make(map[metadata.TopicPartition]metadata.PreferredChange)
	for _, e := range parts {
		tp, err := metadata.ParsePartitionKey(e.Key)
		if err != nil {
			return 0, err
		}
		var p metadata.Partition
		if err := json.Unmarshal(e.Value, &p); err != nil {
			return 0, err
		}
		changes[tp] = metadata.PreferredChange{Partition: p, ModRevision: e.ModRevision, Preferred: live[r.random.IntN(len(live))]}
	}
	for _, res := range metadata.SetPreferred(ctx, kv, metadata.Cond{Key: metadata.KeyController, ModRevision: guard[0].ModRevision}, changes) {
		if res.Err == nil {
			moved++
		}
	}
	return moved, nil
}
