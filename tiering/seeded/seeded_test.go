package seeded

import "testing"

// TestNothingIsSeeded is what stands between a seeded bug and a release.
func TestNothingIsSeeded(t *testing.T) {
	for _, b := range Bugs() {
		if b.On {
			t.Errorf("%s is in this program: %s", b.ID, b.What)
		}
	}
	if len(Bugs()) != 9 {
		t.Errorf("%d bugs can be seeded, want 9", len(Bugs()))
	}
}
