package target

import (
	"os"
	"testing"
	"time"
)

func TestProcessorTime(t *testing.T) {
	got, err := parseStat("7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20")
	if err != nil || got != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseStat("7 (x) S 1"); err == nil {
		t.Error("a short line was read")
	}
	for begun := time.Now(); time.Since(begun) < 50*time.Millisecond; {
	}
	if got, err := cpuSeconds(os.Getpid()); err != nil || got <= 0 {
		t.Errorf("own time %v, %v", got, err)
	}
}

func TestPeak(t *testing.T) {
	got, err := parsePeak("Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t   1024 kB\nVmRSS:\t 5 kB\n")
	if err != nil || got != 1<<20 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parsePeak("Name: x\n"); err == nil {
		t.Error("a peak was found where none is")
	}
	big := make([]byte, 64<<20)
	for i := 0; i < len(big); i += 4096 {
		big[i] = 1
	}
	if got, err := peakRSS(os.Getpid()); err != nil || got < 64<<20 {
		t.Errorf("own peak %v, %v", got, err)
	}
	if big[0] != 1 {
		t.Error("unreachable; keeps the memory alive")
	}
}

func TestUsageSince(t *testing.T) {
	a := Usage{BrokerCPU: 1, Allocs: 2, EtcdRequests: 3, ProxyOverruns: 1}
	a.Requests.Puts, a.Requests.GetBytes = 5, 7
	b := Usage{BrokerCPU: 4, Allocs: 5, EtcdRequests: 9, ProxyOverruns: 3}
	b.Requests.Puts, b.Requests.GetBytes = 15, 27
	d := b.Since(a)
	if d.BrokerCPU != 3 || d.Allocs != 3 || d.EtcdRequests != 6 || d.Requests.Puts != 10 || d.Requests.GetBytes != 20 || d.ProxyOverruns != 2 {
		t.Errorf("%+v", d)
	}
}
