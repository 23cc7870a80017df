// Package s3model makes a store on this machine take as long as one far away.
//
// A model draws how long a request takes; a proxy before a real store holds the
// answer back until then. The store does its work while the time runs, so a
// request takes the drawn time, or the store's own if that is longer, which is
// counted as an overrun. What is measured behind a proxy is a simulation, and
// results say so.
package s3model

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"go.yaml.in/yaml/v3"
)

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263478740408408

// Model is the latencies of one store.
type Model struct {
	Name  string
	Price string // price table that goes with it
	Put   Shape
	Get   Shape // of a LIST, HEAD or DELETE too
}

// Shape is the distribution of one operation's latency.
type Shape struct {
	Median         time.Duration
	P99            time.Duration
	BytesPerSecond float64       `yaml:"bytes-per-second"`
	SlowShare      float64       `yaml:"slow-share"`
	SlowMedian     time.Duration `yaml:"slow-median"`
}

// Parse reads models.
func Parse(data []byte) (map[string]Model, error) {
	var list []Model
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf("store models: %w", err)
	}
	models := make(map[string]Model, len(list))
	for _, m := range list {
		for _, s := range []Shape{m.Put, m.Get} {
			if err := s.check(); err != nil {
				return nil, fmt.Errorf("store model %q: %w", m.Name, err)
			}
		}
		models[m.Name] = m
	}
	return models, nil
}

func (s Shape) check() error {
	switch {
	case s.Median <= 0 || s.P99 < s.Median || s.P99 > time.Minute:
		return fmt.Errorf("median %v and 99th percentile %v", s.Median, s.P99)
	case !(s.BytesPerSecond > 0):
		return fmt.Errorf("bytes-per-second %v", s.BytesPerSecond)
	case !(s.SlowShare >= 0 && s.SlowShare <= .5) || s.SlowShare > 0 && (s.SlowMedian < s.Median || s.SlowMedian > time.Minute):
		return fmt.Errorf("slow-share %v and slow-median %v", s.SlowShare, s.SlowMedian)
	}
	return nil
}

// first draws the time until the first byte of an answer.
func (s Shape) first(rng *rand.Rand) time.Duration {
	median := float64(s.Median)
	if rng.Float64() < s.SlowShare {
		median = float64(s.SlowMedian)
	}
	sigma := math.Log(float64(s.P99)/float64(s.Median)) / z99
	return time.Duration(median * math.Exp(sigma*rng.NormFloat64()))
}

// transfer is how long n bytes take.
func (s Shape) transfer(n int64) time.Duration {
	return time.Duration(float64(max(n, 0)) / s.BytesPerSecond * float64(time.Second))
}
