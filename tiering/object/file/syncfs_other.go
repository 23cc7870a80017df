//go:build unix && !linux

package file

import "golang.org/x/sys/unix"

// syncfs makes every file system durable, where one cannot be named.
func syncfs(string) error { return unix.Sync() }
