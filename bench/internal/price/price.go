// Package price says what a store would charge for the requests that were made.
package price

import (
	"bytes"
	"fmt"
	"math"
	"time"

	"go.yaml.in/yaml/v3"
)

// Table is the rates of one store.
type Table struct {
	Name       string
	Date       string  // when the rates were read
	Source     string  // where
	PutPer1000 float64 `yaml:"put-per-1000"` // PUT, POST, LIST
	GetPer1000 float64 `yaml:"get-per-1000"`
	PutPerGB   float64 `yaml:"put-per-gb"`
	GetPerGB   float64 `yaml:"get-per-gb"`
}

// Requests is what was asked of a store.
type Requests struct {
	Puts, Gets, Lists, Deletes float64
	PutBytes, GetBytes         float64
}

// Parse reads tables; each must say when and where its rates were read.
func Parse(data []byte) (map[string]Table, error) {
	var list []Table
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf("prices: %w", err)
	}
	tables := make(map[string]Table, len(list))
	for _, t := range list {
		if t.Name == "" || t.Date == "" || t.Source == "" {
			return nil, fmt.Errorf("prices: table %q needs a name, a date and a source", t.Name)
		}
		for _, v := range []float64{t.PutPer1000, t.GetPer1000, t.PutPerGB, t.GetPerGB} {
			if !(v >= 0) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("prices: table %q has the rate %v", t.Name, v)
			}
		}
		tables[t.Name] = t
	}
	return tables, nil
}

const gb = 1e9

// Dollars is the price of requests.
func (t Table) Dollars(r Requests) float64 {
	return (r.Puts+r.Lists)/1000*t.PutPer1000 + r.Gets/1000*t.GetPer1000 + r.PutBytes/gb*t.PutPerGB + r.GetBytes/gb*t.GetPerGB
}

// Uploads is how many flushes a second a broker makes, by calculation, of a
// steady bytesPerSecond: as often as spacing and budget (0: unlimited) allow,
// or, where more than buffer would gather meanwhile, one for each full buffer.
func Uploads(bytesPerSecond float64, spacing time.Duration, budget, buffer float64) float64 {
	timed := math.Inf(1)
	if spacing > 0 {
		timed = 1 / spacing.Seconds()
	}
	if budget > 0 {
		timed = min(timed, budget)
	}
	return max(timed, bytesPerSecond/buffer)
}
