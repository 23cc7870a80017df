package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Etcd is an etcd cluster.
type Etcd struct {
	Members []*EtcdMember
}

// EtcdMember is one of its servers.
type EtcdMember struct {
	*server
	Name string
	URL  string // for clients
	Dir  string
	peer string // the URL its peers know

	initial, state string // how it finds the others at its first start
}

// EtcdOptions shape an etcd cluster.
type EtcdOptions struct {
	Members int // 1 when 0
	Args    []string
	// Via, if set, returns the address to tell peers for the address a member
	// listens at for them: that of a proxy.
	Via func(member int, listen string) string
	// Prepared is told of each member before its first start.
	Prepared func(*EtcdMember)
}

// StartEtcd runs a cluster of n members.
func StartEtcd(t T, n int) *Etcd {
	t.Helper()
	return StartEtcdWith(t, EtcdOptions{Members: n})
}

// StartEtcdWith runs a cluster and waits until every member is ready.
func StartEtcdWith(t T, o EtcdOptions) *Etcd {
	t.Helper()
	bin := Tool(t, "etcd")
	logs := logDir(t)
	e := &Etcd{}
	var initial []string
	for i := range max(o.Members, 1) {
		listen := FreeAddr(t)
		peer := listen
		if o.Via != nil {
			peer = o.Via(i, listen)
		}
		m := &EtcdMember{Name: fmt.Sprintf("etcd-%d", i+1), URL: "http://" + FreeAddr(t), Dir: filepath.Join(t.TempDir(), "etcd"),
			peer: "http://" + peer, state: "new"}
		initial = append(initial, m.Name+"="+m.peer)
		m.server = newServer(t, m.Name, filepath.Join(logs, m.Name+".log"), func() *exec.Cmd {
			return exec.Command(bin, append([]string{
				"--name", m.Name, "--data-dir", m.Dir, "--log-level", "warn",
				"--listen-client-urls", m.URL, "--advertise-client-urls", m.URL,
				"--listen-peer-urls", "http://" + listen, "--initial-advertise-peer-urls", m.peer,
				"--initial-cluster", m.initial, "--initial-cluster-state", m.state,
			}, o.Args...)...)
		})
		if o.Prepared != nil {
			o.Prepared(m)
		}
		e.Members = append(e.Members, m)
	}
	for _, m := range e.Members {
		m.initial = strings.Join(initial, ",")
		m.Start()
	}
	for _, m := range e.Members {
		m.WaitReady()
	}
	return e
}

// WaitReady waits until the member answers.
func (m *EtcdMember) WaitReady() {
	m.t.Helper()
	m.waitReady(30*time.Second, m.URL+"/readyz")
}

// Addr is the client address without the scheme.
func (m *EtcdMember) Addr() string { return strings.TrimPrefix(m.URL, "http://") }

// Client speaks to the cluster for the test itself; close it.
func (e *Etcd) Client() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: strings.Split(e.URLs(), ","), DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
}

// Leader is the index of the member that leads.
func (e *Etcd) Leader(ctx context.Context) (int, error) {
	cl, err := e.Client()
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	for i, m := range e.Members {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		st, err := cl.Status(ctx, m.URL)
		cancel()
		if err == nil && st.Leader != 0 && st.Leader == st.Header.MemberId {
			return i, nil
		}
	}
	return 0, fmt.Errorf("no member says that it leads")
}

// Replace removes a member that has lost its disk from the cluster and lets it
// join again, empty.
func (e *Etcd) Replace(ctx context.Context, i int) error {
	m := e.Members[i]
	m.Kill()
	cl, err := e.Client()
	if err != nil {
		return err
	}
	defer cl.Close()
	list, err := cl.MemberList(ctx)
	if err != nil {
		return fmt.Errorf("list members: %w", err)
	}
	var names []string
	for _, old := range list.Members {
		if old.Name != m.Name {
			names = append(names, old.Name+"="+old.PeerURLs[0])
			continue
		}
		if _, err := cl.MemberRemove(ctx, old.ID); err != nil {
			return fmt.Errorf("remove %s: %w", m.Name, err)
		}
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		return err
	}
	if _, err := cl.MemberAdd(ctx, []string{m.peer}); err != nil {
		return fmt.Errorf("add %s: %w", m.Name, err)
	}
	m.initial, m.state = strings.Join(append(names, m.Name+"="+m.peer), ","), "existing"
	m.Start()
	return nil
}

// URLs are the members' client addresses, as --etcd takes them.
func (e *Etcd) URLs() string {
	urls := make([]string, len(e.Members))
	for i, m := range e.Members {
		urls[i] = m.URL
	}
	return strings.Join(urls, ",")
}
