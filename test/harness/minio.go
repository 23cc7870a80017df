package harness

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	accessKey = "tidemark"
	secretKey = "tidemark-secret"
)

// MinIO is an object store of one node. It survives Kill and Start.
type MinIO struct {
	*server
	Addr string
	dir  string
}

// StartMinIO runs MinIO on drives directories of its own; one when none is
// named. Arguments are drives relative to the store's directory, as MinIO's
// command line takes them: more than one with an ellipsis makes server pools.
func StartMinIO(t T, drives ...string) *MinIO {
	t.Helper()
	if len(drives) == 0 {
		drives = []string{"drive"}
	}
	m := &MinIO{Addr: FreeAddr(t), dir: t.TempDir()}
	bin := Tool(t, "minio")
	args := []string{"server", "--quiet", "--address", m.Addr}
	for _, d := range drives {
		args = append(args, filepath.Join(m.dir, d))
	}
	m.server = newServer(t, "minio", filepath.Join(logDir(t), "minio.log"), func() *exec.Cmd {
		cmd := exec.Command(bin, args...)
		cmd.Env = append(os.Environ(),
			"MINIO_ROOT_USER="+accessKey, "MINIO_ROOT_PASSWORD="+secretKey,
			"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_CALLHOME_ENABLE=off",
			"MINIO_CI_CD=on") // drives may lie on the root file system
		return cmd
	})
	m.Start()
	return m
}

// Start runs the server and waits until it takes writes.
func (m *MinIO) Start() {
	m.t.Helper()
	m.server.Start()
	m.waitReady(30*time.Second, "http://"+m.Addr+"/minio/health/cluster")
}

// Endpoint is the store's base URL.
func (m *MinIO) Endpoint() string { return "http://" + m.Addr }

// Env are the environment variables a client of the store needs.
func (m *MinIO) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey}
}

// Client speaks to the store for the test itself.
func (m *MinIO) Client() *minio.Client {
	m.t.Helper()
	c, err := minio.New(m.Addr, &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, "")})
	if err != nil {
		m.t.Fatalf("minio client: %v", err)
	}
	return c
}

// CreateBucket makes an empty bucket.
func (m *MinIO) CreateBucket(name string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.Client().MakeBucket(ctx, name, minio.MakeBucketOptions{}); err != nil {
		m.t.Fatalf("create bucket %s: %v", name, err)
	}
}
