package price

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(1, math.Abs(b)) }

func shipped(t *testing.T) map[string]Table {
	t.Helper()
	data, err := os.ReadFile("../../prices.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tables, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

func TestDollars(t *testing.T) {
	tables := shipped(t)
	standard, express := tables["s3-standard"], tables["s3-express"]
	for _, c := range []struct {
		what  string
		table Table
		r     Requests
		want  float64
	}{
		{"nothing", standard, Requests{}, 0},
		{"1,000 of each", standard, Requests{Puts: 1000, Gets: 1000, Lists: 1000, Deletes: 1000}, .005 + .0004 + .005},
		{"bytes are free within a region", standard, Requests{PutBytes: 5e9, GetBytes: 5e9}, 0},
		{"express", express, Requests{Puts: 1000, Gets: 1000, PutBytes: 2e9, GetBytes: 3e9}, .00113 + .00003 + .0064 + .0018},
		// One broker that flushes every 250 ms for 30 days.
		{"a month of 4 a second", standard, Requests{Puts: 4 * 86400 * 30}, 51.84},
	} {
		if got := c.table.Dollars(c.r); !near(got, c.want) {
			t.Errorf("%s: $%v, want $%v", c.what, got, c.want)
		}
	}
}

func TestUploads(t *testing.T) {
	const buffer = 4 << 20
	for _, c := range []struct {
		rate    float64
		spacing time.Duration
		budget  float64
		want    float64
	}{
		{1e6, 25 * time.Millisecond, 10, 10},
		{1e6, 25 * time.Millisecond, 0, 40},
		{1e6, 250 * time.Millisecond, 10, 4},
		{100e6, 25 * time.Millisecond, 10, 100e6 / buffer}, // full buffers are never held back
		{0, 25 * time.Millisecond, 10, 10},
	} {
		if got := Uploads(c.rate, c.spacing, c.budget, buffer); !near(got, c.want) {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestTablesSayWhereTheyAreFrom(t *testing.T) {
	for _, text := range []string{
		"- {name: x, put-per-1000: 1}",
		"- {name: x, date: d, source: s, put-per-1000: -1}",
		"- {name: x, date: d, source: s, get-per-gb: .nan}",
		"- {name: x, date: d, source: s, put: 1}",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "prices:") {
			t.Errorf("%s gave %v", text, err)
		}
	}
}
