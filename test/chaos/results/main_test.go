package main

import (
	"strings"
	"testing"
)

func TestNewestFigure(t *testing.T) {
	newest := make(map[string]line)
	err := read(strings.NewReader(`
{"date":"2026-01-02T00:00:00Z","commit":"b","scenario":"S1","figure":"kill -9","values":{"kills":200,"lost":0},"seed":7,"seconds":60}
{"date":"2026-01-01T00:00:00Z","commit":"a","scenario":"S1","figure":"kill -9","values":{"kills":3},"seed":8,"seconds":6}
{"date":"2026-01-01T00:00:00Z","commit":"a","scenario":"S2","figure":"SIGSTOP","values":{},"failed":true}`[1:]), newest)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	write(&b, newest)
	for _, want := range []string{
		"| S1 | kill -9 | kills **200**, lost **0** | 60 | 2026-01-02T00:00:00Z | b | 7 |\n", "| S2 | SIGSTOP | **the test failed** |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if err := read(strings.NewReader("nonsense"), newest); err == nil {
		t.Error("nonsense was taken")
	}
}
