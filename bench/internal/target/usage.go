package target

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tidemark-io/tidemark/bench/internal/price"
	"github.com/tidemark-io/tidemark/test/harness"
)

// Usage is what a system has used so far. Processor time is in seconds.
type Usage struct {
	BrokerCPU, StoreCPU, EtcdCPU float64
	GeneratorCPU                 float64 // of this process, proxies before stores included
	Requests                     price.Requests
	EtcdRequests                 float64
	AllocBytes, Allocs           float64 // of the brokers, where they are Go
	ProxyRequests, ProxyOverruns float64
}

// Known tells what of a system can be read at all.
func (t *Target) Known() (processes, tidemark bool) {
	return t.kafka != nil || len(t.brokers) > 0, len(t.brokers) > 0
}

// Read is the usage so far.
func (t *Target) Read() (u Usage, err error) {
	for _, r := range []struct {
		pids []int
		into *float64
	}{
		{t.brokerPIDs(), &u.BrokerCPU}, {t.storePIDs(), &u.StoreCPU}, {t.etcdPIDs(), &u.EtcdCPU}, {[]int{os.Getpid()}, &u.GeneratorCPU},
	} {
		for _, pid := range r.pids {
			s, err := cpuSeconds(pid)
			if err != nil {
				return u, err
			}
			*r.into += s
		}
	}
	for _, b := range t.brokers {
		if err := u.addMetrics(b); err != nil {
			return u, err
		}
	}
	if t.proxy != nil {
		n, over := t.proxy.Counts()
		u.ProxyRequests, u.ProxyOverruns = float64(n), float64(over)
	}
	return u, nil
}

func (u *Usage) addMetrics(b *harness.Broker) error {
	m, err := b.Metrics()
	if err != nil {
		return err
	}
	for _, s := range []struct {
		into  *float64
		name  string
		label string
	}{
		{&u.Requests.Puts, "tidemark_store_requests_total", "op=create"},
		{&u.Requests.Gets, "tidemark_store_requests_total", "op=get"},
		{&u.Requests.Lists, "tidemark_store_requests_total", "op=list"},
		{&u.Requests.Deletes, "tidemark_store_requests_total", "op=delete"},
		{&u.Requests.PutBytes, "tidemark_store_bytes_total", "op=create"},
		{&u.Requests.GetBytes, "tidemark_store_bytes_total", "op=get"},
		{&u.EtcdRequests, "tidemark_etcd_requests_total", ""},
		{&u.AllocBytes, "go_memstats_alloc_bytes_total", ""},
		{&u.Allocs, "go_memstats_mallocs_total", ""},
	} {
		var labels []string
		if s.label != "" {
			labels = []string{s.label}
		}
		n, err := m.Sum(s.name, labels...)
		if err != nil {
			return err
		}
		*s.into += n
	}
	return nil
}

// Since is what was used between v and u.
func (u Usage) Since(v Usage) Usage {
	q, r := u.Requests, v.Requests
	return Usage{
		BrokerCPU: u.BrokerCPU - v.BrokerCPU, StoreCPU: u.StoreCPU - v.StoreCPU, EtcdCPU: u.EtcdCPU - v.EtcdCPU,
		GeneratorCPU: u.GeneratorCPU - v.GeneratorCPU, EtcdRequests: u.EtcdRequests - v.EtcdRequests,
		Requests: price.Requests{
			Puts: q.Puts - r.Puts, Gets: q.Gets - r.Gets, Lists: q.Lists - r.Lists, Deletes: q.Deletes - r.Deletes,
			PutBytes: q.PutBytes - r.PutBytes, GetBytes: q.GetBytes - r.GetBytes,
		},
		AllocBytes: u.AllocBytes - v.AllocBytes, Allocs: u.Allocs - v.Allocs,
		ProxyRequests: u.ProxyRequests - v.ProxyRequests, ProxyOverruns: u.ProxyOverruns - v.ProxyOverruns,
	}
}

func (t *Target) brokerPIDs() (pids []int) {
	for _, b := range t.brokers {
		pids = append(pids, b.PID())
	}
	if t.kafka != nil {
		pids = append(pids, t.kafka.PID())
	}
	return pids
}

func (t *Target) storePIDs() []int {
	if t.minio == nil {
		return nil
	}
	return []int{t.minio.PID()}
}

func (t *Target) etcdPIDs() (pids []int) {
	if t.etcd != nil {
		for _, m := range t.etcd.Members {
			pids = append(pids, m.PID())
		}
	}
	return pids
}

// ResetPeak makes PeakRSS begin anew.
func (t *Target) ResetPeak() error {
	for _, pid := range t.brokerPIDs() {
		if err := resetPeak(pid); err != nil {
			return err
		}
	}
	return nil
}

// PeakRSS is the largest resident size of all brokers since ResetPeak.
func (t *Target) PeakRSS() (sum float64, err error) {
	for _, pid := range t.brokerPIDs() {
		n, err := peakRSS(pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// LiveHeap is what the brokers' heaps hold after a collection.
func (t *Target) LiveHeap(ctx context.Context) (sum float64, err error) {
	for _, b := range t.brokers {
		if err := get(ctx, "http://"+b.HTTP+"/debug/pprof/heap?gc=1", io.Discard); err != nil {
			return 0, err
		}
		m, err := b.Metrics()
		if err != nil {
			return 0, err
		}
		n, err := m.Sum("go_memstats_heap_alloc_bytes")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Profile writes a CPU profile of the first broker over d to a file.
func (t *Target) Profile(ctx context.Context, d time.Duration, path string) error {
	if len(t.brokers) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	seconds := max(1, int(d.Seconds()))
	return get(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", t.brokers[0].HTTP, seconds), f)
}

func get(ctx context.Context, url string, into io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	_, err = io.Copy(into, resp.Body)
	return err
}
