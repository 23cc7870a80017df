package harness

import (
	"os"
	"time"
)

// Audit proves from etcd and the bucket alone that the log is whole, while the
// brokers run.
func (c *Cluster) Audit() {
	c.t.Helper()
	out, err := Command{
		Path:  Binary(c.t),
		Args:  []string{"audit", "--etcd", c.Etcd.URLs(), "--store", "s3://" + bucket, "--s3-endpoint", c.MinIO.Endpoint()},
		Env:   append(os.Environ(), c.MinIO.Env()...),
		Limit: 10 * time.Minute,
	}.Run()
	if err != nil {
		c.t.Fatalf("audit: %v\n%s", err, last(out.Stdout, 8<<10))
	}
}
