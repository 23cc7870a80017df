package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-io/tidemark/test/harness"
)

// TestS6Cache damages the brokers' disk caches in every way while old data is
// read through them.
func TestS6Cache(t *testing.T) {
	small := smallDisk(t, 8<<20)
	r := newRig(t, "S6", rigOptions{
		plain:      true, // its counts of damage that readers see are for write-ahead objects
		brokerArgs: []string{"--memory-tail-bytes", "67108864"},
		prepare: func(i int, b *harness.Broker) {
			if i == 0 && small != "" { // this one's disk is full before its cache is
				b.Args = append(b.Args, "--cache-dir", filepath.Join(small, "cache"))
			}
		},
	})
	l := r.startLoad(loadOptions{reread: true})
	if small != "" {
		r.fillDisk(small)
	}
	time.Sleep(pick(3*time.Second, 20*time.Second)) // objects to read
	r.whileDown(r.all(), func() int { return 0 })
	values := figures{}
	want, flips, corrupt := pick(50, 1000), 0, 0
	for end := time.Now().Add(pick(30*time.Second, 20*time.Minute)); corrupt < want && time.Now().Before(end); {
		r.waitChunks()
		flips += r.whileDown(r.all(), func() int { return r.eachChunk(r.all(), flipFile) })
		time.Sleep(4 * time.Second)
		corrupt += r.sumMetric("tidemark_cache_errors_total", "kind=corrupt")
	}
	values["bits flipped in files"], values["found damaged when read"] = flips, corrupt
	for _, d := range []struct {
		name string
		do   func() int
	}{
		{"files cut short", func() int { return r.eachChunk(r.all(), truncateFile) }},
		{"files forged with checksums that match", func() int { return r.eachChunk(r.all(), forgeFile) }},
		{"files of another cluster", func() int { return r.foreign(1) }},
	} {
		r.waitChunks()
		values[d.name] = r.whileDown(r.all(), d.do)
	}
	r.waitChunks()
	// What follows happens under running brokers that read.
	values["files unlinked under readers"] = r.eachChunk(r.all(), os.Remove)
	time.Sleep(2 * time.Second)
	// The whole directory; a broker that writes to it may be a file ahead.
	harness.Eventually(t, 20*time.Second, "the cache's directory is gone", func() error { return os.RemoveAll(r.cacheDir(2)) })
	time.Sleep(2 * time.Second)
	if small != "" {
		r.whileDown([]int{0}, func() int { return r.readOnly(small, true) })
		time.Sleep(2 * time.Second)
		values["found read-only"] = r.whileDown([]int{0}, func() int { return r.readOnly(small, false) })
	}
	l.finish()
	values["a full disk of 8 MiB"] = small != ""
	r.report("cache", values)
	if corrupt < want {
		t.Errorf("%d bits flipped, of which %d were seen by a reader: want %d", flips, corrupt, want)
	}
	if e := r.exited(); e > 0 {
		t.Errorf("%d brokers ended by themselves", e)
	}
}

// smallDisk is a file system of its own, or "" where none may be mounted.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Logf("no file system of its own for a cache: %v; full and read-only disks are left out", err)
		return ""
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fillDisk leaves 64 KiB.
func (r *rig) fillDisk(dir string) {
	r.t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		r.t.Fatal(err)
	}
	free := int(st.Bavail) * int(st.Bsize)
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, max(0, free-64<<10)), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// readOnly makes a disk read-only or not. No broker may have it open: the kernel
// refuses while a file is open for writing.
func (r *rig) readOnly(dir string, on bool) int {
	r.t.Helper()
	flags := uintptr(syscall.MS_REMOUNT)
	if on {
		flags |= syscall.MS_RDONLY
	}
	if err := syscall.Mount("", dir, "", flags, ""); err != nil {
		r.t.Fatalf("remount: %v", err)
	}
	return 1
}

// whileDown kills brokers, does something, starts them and waits for them. What
// they had in memory is gone.
func (r *rig) whileDown(targets []int, do func() int) int {
	r.t.Helper()
	f := r.killed(targets...)
	n := do()
	f.heal()
	r.cluster.WaitReady()
	return n
}

// chunksLeast is how many chunks a cache shall hold before it is damaged.
const chunksLeast = 20

// waitChunks waits until the caches have filled, but for the one on the full
// disk.
func (r *rig) waitChunks() {
	r.t.Helper()
	for i := 1; i < len(r.brokers); i++ {
		harness.Eventually(r.t, 30*time.Second, r.brokers[i].Name+"'s cache fills", func() error {
			if n := r.eachChunk([]int{i}, func(string) error { return nil }); n < chunksLeast {
				return fmt.Errorf("%d chunks", n)
			}
			return nil
		})
	}
}

// cacheDir is where a broker keeps its cache.
func (r *rig) cacheDir(i int) string {
	args := r.brokers[i].Args
	for n, a := range args {
		if a == "--cache-dir" {
			return args[n+1]
		}
	}
	return filepath.Join(r.brokers[i].Dir, "cache")
}

// eachChunk does something to every chunk file of some brokers, and counts.
func (r *rig) eachChunk(targets []int, do func(path string) error) (n int) {
	r.t.Helper()
	for _, i := range targets {
		dir := r.cacheDir(i)
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || filepath.Dir(path) == dir { // lock and owner lie at the top
				return nil // gone meanwhile
			}
			if do(path) == nil {
				n++
			}
			return nil
		})
		if err != nil {
			r.t.Logf("walk %s: %v", dir, err)
		}
	}
	return n
}

func flipFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return fmt.Errorf("%s: %d bytes, %w", path, len(b), err)
	}
	b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
	return os.WriteFile(path, b, 0o644)
}

func truncateFile(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, st.Size()/2)
}

// The head of a chunk file, as package cache documents it.
const (
	chunkKeyLen, chunkDataCRC, chunkKey = 6, 20, 24
)

var errCutShort = errors.New("a chunk file that was cut short")

// forgeFile changes a chunk's data and makes its checksums right again, as a
// cache of another cluster would have them under the same names.
func forgeFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) < chunkKey {
		return errCutShort
	}
	head := chunkKey + int(binary.BigEndian.Uint16(b[chunkKeyLen:]))
	if len(b) <= head+4 {
		return errCutShort
	}
	data := b[head+4:]
	data[rand.IntN(len(data))] ^= 1 << rand.IntN(8)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.BigEndian.PutUint32(b[chunkDataCRC:], crc32.Checksum(data, table))
	binary.BigEndian.PutUint32(b[head:], crc32.Checksum(b[:head], table))
	return os.WriteFile(path, b, 0o644)
}

// foreign makes a broker's cache that of another cluster, with other data under
// the same names.
func (r *rig) foreign(i int) int {
	r.t.Helper()
	n := r.eachChunk([]int{i}, forgeFile)
	owner := filepath.Join(r.cacheDir(i), "owner")
	b, err := os.ReadFile(owner)
	if err != nil {
		r.t.Error(err)
		return n
	}
	words := strings.Fields(string(b))
	words[len(words)-1] = strings.Repeat("A", len(words[len(words)-1]))
	if err := os.WriteFile(owner, []byte(strings.Join(words, " ")+"\n"), 0o644); err != nil {
		r.t.Error(err)
	}
	return n
}

// sumMetric adds up a metric over the brokers that answer.
func (r *rig) sumMetric(name string, labels ...string) (sum int) {
	r.t.Helper()
	for _, b := range r.brokers {
		m, err := b.Metrics()
		if err != nil {
			r.t.Logf("metrics of %s: %v", b.Name, err)
			continue
		}
		v, err := m.Sum(name, labels...)
		if err != nil {
			r.t.Logf("metrics of %s: %v", b.Name, err)
			continue
		}
		sum += int(v)
	}
	return sum
}
