package etcd

import "testing"

func TestCheckVersion(t *testing.T) {
	f := func(version string, ok bool) {
		t.Helper()
		if err := checkVersion(version); (err == nil) != ok {
			t.Errorf("%s: %v", version, err)
		}
	}
	f("3.7.3", true)
	f("3.4.25", true)
	f("3.4.24", false)
	f("3.3.27", false)
	f("3.5.8", true)
	f("3.5.7", false)
	f("3.6.0-alpha.0", true)
	f("4.0.0", true)
	f("2.3.8", false)
	f("", false)
	f("3.x.1", false)
}
