package etcd

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/tidemark-io/tidemark/metadata"
)

// explainAll says for each endpoint what is wrong with it, found out by asking
// it in plainer ways than gRPC.
func (k *KV) explainAll(ctx context.Context, budget time.Duration, answers []statusAnswer) error {
	ctx, cancel := context.WithTimeout(ctx, max(budget, 500*time.Millisecond))
	defer cancel()
	reasons := make([]error, len(k.members))
	var wg sync.WaitGroup
	for i, m := range k.members {
		wg.Go(func() { reasons[i] = fmt.Errorf("%s: %w", m.endpoint, k.explain(ctx, m.endpoint, answers[i].err)) })
	}
	wg.Wait()
	return fmt.Errorf("%w: no etcd member can be reached: %w", metadata.ErrUnavailable, errors.Join(reasons...))
}

func (k *KV) explain(ctx context.Context, endpoint string, cause error) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err // names the address, and whether it was refused or timed out
	}
	_ = conn.Close()

	etcd, err := k.askVersion(ctx, endpoint)
	switch {
	case etcd:
		return fmt.Errorf("an etcd answers there, but not to clients (is this its peer port?): %s", status.Convert(cause).Message())
	case u.Scheme == "https" && k.speaksPlain(ctx, u.Host, err):
		return errors.New("it does not speak TLS: use http://")
	case u.Scheme == "http" && speaksTLS(ctx, u.Host):
		return errors.New("it speaks TLS: use https://")
	case err != nil:
		return fmt.Errorf("it is not an etcd client port: %w", err)
	}
	return errors.New("it is not an etcd client port: it answers HTTP, but not as etcd does")
}

// askVersion reports whether the endpoint answers GET /version as etcd does.
func (k *KV) askVersion(ctx context.Context, endpoint string) (bool, error) {
	transport := &http.Transport{TLSClientConfig: k.cfg.TLS, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/version", nil)
	if err != nil {
		return false, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	var v struct {
		Server string `json:"etcdserver"`
	}
	return err == nil && json.Unmarshal(body, &v) == nil && strings.Contains(v.Server, "."), nil
}

// speaksPlain reports whether an https endpoint, which failed with err, answers
// without TLS. etcd just hangs up on a TLS greeting it did not expect.
func (k *KV) speaksPlain(ctx context.Context, host string, err error) bool {
	if errors.Is(err, http.ErrSchemeMismatch) {
		return true
	}
	etcd, _ := k.askVersion(ctx, "http://"+host)
	return etcd
}

func speaksTLS(ctx context.Context, host string) bool {
	// Only whether it speaks TLS at all is asked; nothing is sent to it.
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // see above
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
