package failpoint

import (
	"slices"
	"testing"
)

func TestSpecs(t *testing.T) {
	f := func(text string, want Spec, ok bool) {
		t.Helper()
		got, err := ParseSpec(text)
		if (err == nil) != ok || ok && got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := ParseSpec(got.String()); ok && (err != nil || again != got) {
			t.Errorf("%q printed is %q, read again %+v, %v", text, got, again, err)
		}
	}
	f("kill", Spec{Kill, 0, 1}, true)
	f("stop,skip=3\n", Spec{Stop, 3, 1}, true)
	f("error,count=2,skip=1", Spec{Error, 1, 2}, true)
	f("", Spec{}, false)
	f("explode", Spec{}, false)
	f("kill,skip=-1", Spec{}, false)
	f("kill,often=2", Spec{}, false)
}

func TestArmedLists(t *testing.T) {
	got, err := parseArmed("before_put=kill,skip=3; after_txn=error,count=2;")
	if err != nil || len(got) != 2 || got[BeforePut] != (Spec{Kill, 3, 1}) || got[AfterTxn] != (Spec{Error, 0, 2}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"before_lunch=kill", "before_put", "before_put=maybe"} {
		if _, err := parseArmed(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if err := Arm(t.TempDir(), "before_lunch", Spec{Action: Kill}); err == nil {
		t.Error("a point that does not exist was armed")
	}
}

func TestPoints(t *testing.T) {
	all := Points()
	slices.Sort(all)
	if len(all) < 14 || len(slices.Compact(all)) != len(Points()) {
		t.Errorf("%d points, of which some twice", len(Points()))
	}
}
