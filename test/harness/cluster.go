package harness

import (
	"fmt"
	"strings"
)

const bucket = "tidemark"

// Cluster is some brokers and, unless one of them has everything embedded, the
// store and the etcd they share.
type Cluster struct {
	MinIO   *MinIO // nil when embedded
	Etcd    *Etcd  // nil when embedded
	Brokers []*Broker

	t    T
	args []string
}

// Options shape a cluster.
type Options struct {
	Brokers     int      // 3 when 0
	EtcdMembers int      // 1 when 0
	Args        []string // more arguments for every broker
}

// StartCluster runs MinIO, etcd and brokers, and waits until all are ready.
func StartCluster(t T, o Options) *Cluster {
	t.Helper()
	Binary(t)
	c := NewCluster(t, StartMinIO(t), StartEtcd(t, max(o.EtcdMembers, 1)), o.Args...)
	n := o.Brokers
	if n == 0 {
		n = 3
	}
	for range n {
		c.Add().Launch()
	}
	c.WaitReady()
	return c
}

// NewCluster is a cluster on a store and an etcd that run, without brokers yet.
// It makes the bucket.
func NewCluster(t T, m *MinIO, e *Etcd, args ...string) *Cluster {
	t.Helper()
	m.CreateBucket(bucket)
	return &Cluster{t: t, args: args, MinIO: m, Etcd: e}
}

// StartEmbedded runs one broker with nothing beside it.
func StartEmbedded(t T, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, Brokers: []*Broker{NewBroker(t, "broker-1", args, nil)}}
	c.Brokers[0].Start()
	return c
}

// Add prepares one more broker of the cluster without starting it.
func (c *Cluster) Add() *Broker {
	c.t.Helper()
	args := append([]string{
		"--etcd", c.Etcd.URLs(), "--store", "s3://" + bucket, "--s3-endpoint", c.MinIO.Endpoint(),
	}, c.args...)
	b := NewBroker(c.t, fmt.Sprintf("broker-%d", len(c.Brokers)+1), args, c.MinIO.Env())
	c.Brokers = append(c.Brokers, b)
	return b
}

// WaitReady waits for every broker that runs.
func (c *Cluster) WaitReady() {
	c.t.Helper()
	for _, b := range c.Brokers {
		if b.Running() {
			b.WaitReady()
		}
	}
}

// Seeds are the addresses of the running brokers.
func (c *Cluster) Seeds() []string {
	var seeds []string
	for _, b := range c.Brokers {
		if b.Running() {
			seeds = append(seeds, b.ClientAddr())
		}
	}
	return seeds
}

// Bootstrap is Seeds as the tools of other languages take it.
func (c *Cluster) Bootstrap() string { return strings.Join(c.Seeds(), ",") }

// Disaster kills every broker at once, loses what a broker may lose and starts
// all again. Brokers of a cluster lose their disks; an embedded broker, whose
// directory is also bucket and etcd, loses its cache.
func (c *Cluster) Disaster() {
	c.t.Helper()
	for _, b := range c.Brokers {
		b.process().signal(9)
	}
	for _, b := range c.Brokers {
		b.Kill()
		if c.Etcd == nil {
			b.WipeCache()
		} else {
			b.Wipe()
		}
	}
	for _, b := range c.Brokers {
		b.Launch()
	}
	c.WaitReady()
}

// StoreConfig is how to reach the cluster's bucket.
type StoreConfig struct {
	Endpoint, Bucket, AccessKey, SecretKey string
}

// StoreConfig tells a client of the test's own where the log lies.
func (c *Cluster) StoreConfig() StoreConfig {
	return StoreConfig{c.MinIO.Endpoint(), bucket, accessKey, secretKey}
}

// Credentials are the keys of every MinIO that the harness starts; the endpoint
// and the bucket are left open.
func Credentials() StoreConfig { return StoreConfig{AccessKey: accessKey, SecretKey: secretKey} }
