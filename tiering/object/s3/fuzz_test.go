package s3

import (
	"fmt"
	"testing"
)

// FuzzContentRange reads what a store says it sent; only ranges that can be are
// believed.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-4/10", "bytes 0-9/*", "bytes */10", "bytes -1-2/3", "", "bytes 0-18446744073709551615/18446744073709551616"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, err := parseContentRange(s)
		if err != nil {
			return
		}
		if first < 0 || first > last || last >= total {
			t.Errorf("%q is bytes %d to %d of %d", s, first, last, total)
		}
		if a, b, c, err := parseContentRange(fmt.Sprintf("bytes %d-%d/%d", first, last, total)); err != nil || a != first || b != last || c != total {
			t.Errorf("%q does not come back: %v", s, err)
		}
	})
}
