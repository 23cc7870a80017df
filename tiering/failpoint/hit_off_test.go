//go:build !failpoint

package failpoint

import "testing"

func TestNothingHappensInANormalBuild(t *testing.T) {
	t.Setenv(EnvArmed, "before_put=kill,count=1000")
	dir := t.TempDir()
	t.Setenv(EnvDir, dir)
	if err := Arm(dir, BeforePut, Spec{Action: Kill}); err != nil {
		t.Fatal(err)
	}
	if err := Hit(BeforePut); err != nil || Enabled {
		t.Errorf("%v, enabled %v", err, Enabled)
	}
	if n := testing.AllocsPerRun(100, func() { _ = Hit(AfterPut) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkHit measures the loop: nothing is left of the point in it.
func BenchmarkHit(b *testing.B) {
	for b.Loop() {
		if err := Hit(BeforePut); err != nil {
			b.Fatal(err)
		}
	}
}
