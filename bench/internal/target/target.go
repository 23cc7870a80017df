// Package target starts the systems that a benchmark compares and reads what
// they have used.
//
// Every case has servers of its own, each a process of its own, all on this
// machine: minio is brokers with MinIO and etcd beside them, if the case names
// a model behind a proxy that makes MinIO as slow as a store far away; file is
// one broker with bucket and etcd embedded; kafka is Apache Kafka as a single
// node; external is whatever answers at the addresses given, of which nothing
// but what clients see is known.
package target

import (
	"fmt"

	"github.com/tidemark-io/tidemark/bench/internal/s3model"
	"github.com/tidemark-io/tidemark/bench/internal/workload"
	"github.com/tidemark-io/tidemark/test/harness"
	"github.com/tidemark-io/tidemark/tiering/object"
	"github.com/tidemark-io/tidemark/tiering/object/file"
	"github.com/tidemark-io/tidemark/tiering/object/s3"
)

const bucket = "tidemark"

// Target is the running servers of one case.
type Target struct {
	Seeds []string

	brokers []*harness.Broker
	kafka   *harness.ApacheKafka
	minio   *harness.MinIO
	etcd    *harness.Etcd
	proxy   *s3model.Proxy
	raw     object.Store // nil unless the case asks for it
}

// Start runs the servers of a case and waits until they are ready. They stop
// with the host.
func Start(h *Host, c workload.Case, models map[string]s3model.Model, bootstrap []string) (*Target, error) {
	switch c.System {
	case "external":
		if len(bootstrap) == 0 {
			return nil, fmt.Errorf("case %s: an external system needs -bootstrap", c.Name)
		}
		return &Target{Seeds: bootstrap}, nil
	case "kafka":
		k := harness.StartKafka(h, c.Name, c.Args...)
		return &Target{Seeds: []string{k.Addr}, kafka: k}, nil
	case "file":
		return startFile(h, c)
	default:
		return startMinIO(h, c, models)
	}
}

func startFile(h *Host, c workload.Case) (*Target, error) {
	t := &Target{}
	t.launch(h, c, 1, c.Args, nil)
	if !c.Raw {
		return t, nil
	}
	store, err := file.Open(file.Config{Dir: h.TempDir()})
	if err != nil {
		return nil, err
	}
	h.Cleanup(func() { _ = store.Close() })
	t.raw = store
	return t, nil
}

func startMinIO(h *Host, c workload.Case, models map[string]s3model.Model) (*Target, error) {
	t := &Target{minio: harness.StartMinIO(h), etcd: harness.StartEtcd(h, 1)}
	t.minio.CreateBucket(bucket)
	endpoint := t.minio.Endpoint()
	if c.Model != "" {
		m, ok := models[c.Model]
		if !ok {
			return nil, fmt.Errorf("case %s: no store model %q", c.Name, c.Model)
		}
		var err error
		if t.proxy, err = s3model.New(t.minio.Addr, m, 1); err != nil {
			return nil, err
		}
		h.Cleanup(t.proxy.Close)
		endpoint = t.proxy.Endpoint()
	}
	args := append([]string{"--etcd", t.etcd.URLs(), "--store", "s3://" + bucket, "--s3-endpoint", endpoint}, c.Args...)
	t.launch(h, c, c.Load.Brokers, args, t.minio.Env())
	if !c.Raw {
		return t, nil
	}
	return t, t.openRaw(h, endpoint)
}

// launch runs n brokers and waits until they are ready.
func (t *Target) launch(h *Host, c workload.Case, n int, args, env []string) {
	for i := range n {
		b := harness.NewBroker(h, fmt.Sprintf("%s-%d", c.Name, i+1), args, env)
		if c.Binary != "" {
			b.Bin = c.Binary
		}
		b.Launch()
		t.brokers = append(t.brokers, b)
		t.Seeds = append(t.Seeds, b.Addr)
	}
	for _, b := range t.brokers {
		b.WaitReady()
	}
}

// openRaw reaches the case's bucket with the code the broker uses, so that what
// is compared is the broker and not two S3 clients.
func (t *Target) openRaw(h *Host, endpoint string) error {
	keys := harness.Credentials()
	store, err := s3.Open(s3.Config{Endpoint: endpoint, Bucket: bucket, AccessKey: keys.AccessKey, SecretKey: keys.SecretKey})
	if err != nil {
		return err
	}
	h.Cleanup(func() { _ = store.Close() })
	t.raw = store
	return nil
}

// Raw is the case's own store; nil unless the case asks for its limits.
func (t *Target) Raw() object.Store { return t.raw }

// EtcdURL is a member of the case's etcd; empty when it has none of its own.
func (t *Target) EtcdURL() string {
	if t.etcd == nil {
		return ""
	}
	return t.etcd.Members[0].URL
}
