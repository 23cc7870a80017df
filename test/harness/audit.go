package harness

import (
	"encoding/json"
	"os"
	"time"

	"github.com/tidemark-io/tidemark/tiering/audit"
)

// Audit proves from etcd and the bucket alone that the log is whole, while the
// brokers run.
func (c *Cluster) Audit() {
	c.t.Helper()
	out, err := c.audit()
	if err != nil {
		c.t.Fatalf("audit: %v\n%s", err, last(out.Stdout, 8<<10))
	}
}

// AuditReport is what the audit finds, for whoever judges it.
func (c *Cluster) AuditReport() *audit.Report {
	c.t.Helper()
	out, err := c.audit("--json")
	r := new(audit.Report)
	if jerr := json.Unmarshal(out.Stdout, r); jerr != nil {
		c.t.Fatalf("audit: %v, %v\n%s", err, jerr, last(out.Stdout, 8<<10))
	}
	return r
}

func (c *Cluster) audit(args ...string) (Output, error) {
	return Command{
		Path:  Binary(c.t),
		Args:  append([]string{"audit", "--etcd", c.Etcd.URLs(), "--store", "s3://" + bucket, "--s3-endpoint", c.MinIO.Endpoint()}, args...),
		Env:   append(os.Environ(), c.MinIO.Env()...),
		Limit: 10 * time.Minute,
	}.Run()
}
