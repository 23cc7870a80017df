package file

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncfs makes everything on dir's file system durable.
func syncfs(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
