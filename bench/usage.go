package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/tidemark-io/tidemark/test/harness"
)

// clockTicks is the unit of processor time in /proc/<pid>/stat, the same on
// every Linux a Go program meets (USER_HZ).
const clockTicks = 100

// usage is what the servers have used and asked for so far.
type usage struct {
	brokerCPU, storeCPU, etcdCPU float64 // seconds
	storeRequests, etcdRequests  float64
	creates, createdBytes        float64
}

func (u usage) since(v usage) usage {
	return usage{
		u.brokerCPU - v.brokerCPU, u.storeCPU - v.storeCPU, u.etcdCPU - v.etcdCPU,
		u.storeRequests - v.storeRequests, u.etcdRequests - v.etcdRequests,
		u.creates - v.creates, u.createdBytes - v.createdBytes,
	}
}

func read(c *harness.Cluster) (u usage, err error) {
	for _, b := range c.Brokers {
		cpu, err := cpuSeconds(b.PID())
		if err != nil {
			return u, err
		}
		u.brokerCPU += cpu
		m, err := b.Metrics()
		if err != nil {
			return u, err
		}
		for _, s := range []struct {
			into   *float64
			name   string
			labels []string
		}{
			{&u.storeRequests, "tidemark_store_requests_total", nil},
			{&u.etcdRequests, "tidemark_etcd_requests_total", nil},
			{&u.creates, "tidemark_store_requests_total", []string{"op=create", "outcome=ok"}},
			{&u.createdBytes, "tidemark_store_bytes_total", []string{"op=create"}},
		} {
			n, err := m.Sum(s.name, s.labels...)
			if err != nil {
				return u, err
			}
			*s.into += n
		}
	}
	if u.storeCPU, err = cpuSeconds(c.MinIO.PID()); err != nil {
		return u, err
	}
	for _, m := range c.Etcd.Members {
		cpu, err := cpuSeconds(m.PID())
		if err != nil {
			return u, err
		}
		u.etcdCPU += cpu
	}
	return u, nil
}

// cpuSeconds is the user and system time a process has used.
func cpuSeconds(pid int) (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(stat))
}

// parseStat reads fields 14 and 15 of proc(5). The name in field 2 may hold
// spaces and parentheses, so counting begins after its last one.
func parseStat(stat string) (float64, error) {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 13 {
		return 0, errors.New("short /proc stat line")
	}
	var ticks float64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return ticks / clockTicks, nil
}
