package main

import "testing"

func TestRanOut(t *testing.T) {
	const began = "fuzz: elapsed: 0s, gathering baseline coverage: 153/153 completed, now fuzzing with 2 workers\n"
	for _, c := range []struct {
		what, printed string
		want          bool
	}{
		{"the go tool's own deadline", began + "--- FAIL: FuzzKeys (4.54s)\n    context deadline exceeded\nFAIL\nexit status 1\n", true},
		{"an input that fails", began + "--- FAIL: FuzzKeys (0.31s)\n    --- FAIL: FuzzKeys (0.00s)\n        keys_test.go:9: context deadline exceeded\n    \n" +
			"    Failing input written to testdata/fuzz/FuzzKeys/771e938e4458e983\nFAIL\nexit status 1\n", false},
		{"a seed that fails", "--- FAIL: FuzzKeys (0.00s)\n    --- FAIL: FuzzKeys/seed#0 (0.00s)\n        keys_test.go:9: context deadline exceeded\nFAIL\n", false},
		{"a message of the target", began + "--- FAIL: FuzzKeys (0.00s)\n    keys_test.go:9: context deadline exceeded\nFAIL\n", false},
		{"more than the deadline", began + "--- FAIL: FuzzKeys (4.54s)\n    context deadline exceeded\n    keys_test.go:9: lost\nFAIL\n", false},
		{"a panic", "panic: runtime error\n--- FAIL: FuzzKeys (4.54s)\n    context deadline exceeded\nFAIL\n", false},
		{"a worker that hung", began + "--- FAIL: FuzzKeys (4.54s)\n    fuzzing process hung or terminated unexpectedly: exit status 2\nFAIL\n", false},
		{"a build that failed", "FAIL\tpkg [build failed]\n", false},
		{"another target", began + "--- FAIL: FuzzKeysToo (4.54s)\n    context deadline exceeded\nFAIL\n", false},
	} {
		if got := ranOut("FuzzKeys", c.printed); got != c.want {
			t.Errorf("%s: taken for the end of the run: %v, want %v", c.what, got, c.want)
		}
	}
}
