package run

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tidemark-io/tidemark/bench/internal/report"
)

// host describes this machine as far as /proc tells.
func host(version string) report.Host {
	h := report.Host{Cores: runtime.NumCPU(), CPU: "?", Kernel: "?", Version: version}
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				h.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		h.Loaded, _ = strconv.ParseFloat(strings.Fields(string(data))[0], 64)
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = string(bytes.TrimRight(u.Release[:], "\x00"))
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.Memory = float64(info.Totalram) * float64(info.Unit)
	}
	return h
}
