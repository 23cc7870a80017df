package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// What is paused does nothing more once Pause has returned.
func TestPause(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	counting := newServer(t, "counting", log, func() *exec.Cmd {
		return exec.Command("/bin/sh", "-c", "while :; do echo x; done")
	})
	counting.Start()
	size := func() int64 {
		info, err := os.Stat(log)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	for range 20 {
		Eventually(t, 10*time.Second, "it counts", func() error {
			if size() < 1000 {
				return os.ErrNotExist
			}
			return nil
		})
		counting.Pause()
		before := size()
		time.Sleep(20 * time.Millisecond)
		if after := size(); after != before {
			t.Fatalf("it wrote %d bytes while it was paused", after-before)
		}
		counting.Resume()
	}
}
