package tcpproxy

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Owner tells which of some processes opened a loopback connection, from
// Linux's tables of sockets. Processes whose servers are told of one address by
// all of them (a broker's peers, an etcd member's) can be told apart by nothing
// else.
type Owner func() map[string]int // names and process ids now

// Of is the name of the process at the other end of the connection from addr,
// or "" if none of them has it.
func (o Owner) Of(addr net.Addr) string {
	inode := inodeOf(addr)
	if inode == "" {
		return ""
	}
	want := "socket:[" + inode + "]"
	for name, pid := range o() {
		if holds(pid, want) {
			return name
		}
	}
	return ""
}

// inodeOf finds the socket bound to addr.
func inodeOf(addr net.Addr) string {
	a, ok := addr.(*net.TCPAddr)
	ip := a.IP.To4()
	if !ok || ip == nil {
		return ""
	}
	// The kernel prints an address in the order of the host's bytes.
	raw := []byte{ip[3], ip[2], ip[1], ip[0]}
	want := fmt.Sprintf("%s:%04X", strings.ToUpper(hex.EncodeToString(raw)), a.Port)
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		// sl local_address rem_address st queues timer retrnsmt uid timeout inode
		if fields := strings.Fields(s.Text()); len(fields) > 9 && fields[1] == want && fields[9] != "0" {
			return fields[9]
		}
	}
	return ""
}

func holds(pid int, socket string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && to == socket {
			return true
		}
	}
	return false
}
