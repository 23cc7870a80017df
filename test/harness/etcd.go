package harness

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Etcd is an etcd cluster.
type Etcd struct {
	Members []*EtcdMember
}

// EtcdMember is one of its servers.
type EtcdMember struct {
	*server
	URL string
}

// StartEtcd runs a cluster of n members.
func StartEtcd(t T, n int) *Etcd {
	t.Helper()
	bin := Tool(t, "etcd")
	logs := logDir(t)
	names, peers, initial := make([]string, n), make([]string, n), make([]string, n)
	for i := range n {
		names[i] = fmt.Sprintf("etcd-%d", i+1)
		peers[i] = "http://" + FreeAddr(t)
		initial[i] = names[i] + "=" + peers[i]
	}
	e := &Etcd{}
	for i := range n {
		url := "http://" + FreeAddr(t)
		dir := t.TempDir()
		m := &EtcdMember{URL: url}
		m.server = newServer(t, names[i], filepath.Join(logs, names[i]+".log"), func() *exec.Cmd {
			return exec.Command(bin,
				"--name", names[i], "--data-dir", dir, "--log-level", "warn",
				"--listen-client-urls", url, "--advertise-client-urls", url,
				"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
				"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new")
		})
		e.Members = append(e.Members, m)
		m.server.Start()
	}
	for _, m := range e.Members {
		m.waitReady(30*time.Second, m.URL+"/readyz")
	}
	return e
}

// URLs are the members' client addresses, as --etcd takes them.
func (e *Etcd) URLs() string {
	urls := make([]string, len(e.Members))
	for i, m := range e.Members {
		urls[i] = m.URL
	}
	return strings.Join(urls, ",")
}
