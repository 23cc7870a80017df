package broker

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// traffic is what real clients sent, by connection: testdata/traffic holds, for
// each connection, its frames as they were on the wire, thinned out. The topic
// "traffic" had the id that begins with 2. TestRecordTraffic in package test
// makes the files.
func traffic(t testing.TB) (connections [][][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "traffic", "*.frames"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var frames [][]byte
		for len(b) > 4 {
			n := int(binary.BigEndian.Uint32(b))
			if n < 8 || n > len(b)-4 {
				t.Fatalf("%s: a frame of %d bytes, and %d are left", file, n, len(b)-4)
			}
			frames = append(frames, b[4:4+n])
			b = b[4+n:]
		}
		connections = append(connections, frames)
	}
	return connections
}
