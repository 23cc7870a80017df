package main

import (
	"runtime"
	"runtime/debug"
)

// version is set by the linker from the Makefile.
var version = ""

// versionString names the release, or the commit it was built from, and the Go
// release it was built with.
func versionString() string {
	v := version
	if v == "" {
		v = "development"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
			v = info.Main.Version
		}
	}
	return v + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
