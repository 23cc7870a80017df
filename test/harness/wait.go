package harness

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// pollEvery is how often a condition outside this process is looked at again.
const pollEvery = 25 * time.Millisecond

// Eventually waits until check returns nil and fails the test with its last
// error after limit.
func Eventually(t T, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(pollEvery)
	}
}

// okHTTP is nil when url answers 200.
func okHTTP(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

// waitReady waits for url to answer, and gives up at once if the process ends.
func (s *server) waitReady(limit time.Duration, url string) {
	s.t.Helper()
	Eventually(s.t, limit, s.name+" ready", func() error {
		select {
		case <-s.Done():
			s.t.Fatalf("%s ended while it was starting (%v):\n%s", s.name, s.process().err, tail(s.log))
		default:
		}
		return okHTTP(url)
	})
}
