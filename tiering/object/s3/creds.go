package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	// retrieveTimeout bounds one look in the standard places. Away from a
	// cloud, the instance's metadata service does not answer at all.
	retrieveTimeout = 5 * time.Second
	// refreshEarly is how long before they expire credentials are renewed, in
	// the background, so that no request waits for that.
	refreshEarly = 5 * time.Minute
	// refreshPause spaces failed renewals.
	refreshPause = 10 * time.Second
)

// errNoCredentials tells that none of the standard places has any.
var errNoCredentials = errors.New("no credentials found in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
	"the shared AWS files, or a role of the instance or container")

// keyring holds the credentials. One retrieval runs at a time and is shared;
// requests use the old ones until they have really expired.
type keyring struct {
	retrieve func(context.Context) (credentials.Value, error)
	running  sync.WaitGroup // retrievals; Store.close waits for them

	mu      sync.Mutex // guards the fields below; never held across I/O
	value   credentials.Value
	valid   bool
	flight  *retrieval // nil when none runs
	notTill time.Time  // no renewal before this
}

type retrieval struct {
	done chan struct{} // closed when value and err are set
	val  credentials.Value
	err  error
}

func newKeyring(cfg Config) *keyring {
	if cfg.AccessKey != "" {
		own := credentials.Value{
			AccessKeyID: cfg.AccessKey, SecretAccessKey: cfg.SecretKey, SignerType: credentials.SignatureV4,
		}
		return &keyring{retrieve: func(context.Context) (credentials.Value, error) { return own, nil }}
	}
	return &keyring{retrieve: fromStandardPlaces}
}

// fromStandardPlaces looks anew each time, so that rotated files are seen.
func fromStandardPlaces(ctx context.Context) (credentials.Value, error) {
	client := &http.Client{Timeout: retrieveTimeout}
	defer client.CloseIdleConnections()
	chain := credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.FileAWSCredentials{},
		&credentials.IAM{Client: client},
	})
	v, err := chain.GetWithContext(&credentials.CredContext{Client: client, Context: ctx})
	if err == nil && (v.AccessKeyID == "" || v.SecretAccessKey == "") {
		err = errNoCredentials
	}
	return v, err
}

// get returns credentials that have not expired.
func (k *keyring) get(ctx context.Context) (credentials.Value, error) {
	k.mu.Lock()
	if k.valid && !k.stale(refreshEarly) {
		defer k.mu.Unlock()
		return k.value, nil
	}
	usable := k.valid && !k.stale(0)
	if usable && time.Now().Before(k.notTill) {
		defer k.mu.Unlock()
		return k.value, nil
	}
	f, value := k.startLocked(ctx), k.value
	k.mu.Unlock()
	if usable {
		return value, nil
	}
	select {
	case <-f.done:
		return f.val, f.err
	case <-ctx.Done():
		return credentials.Value{}, ctx.Err()
	}
}

// stale reports whether the value expires within d.
func (k *keyring) stale(d time.Duration) bool {
	return !k.value.Expiration.IsZero() && time.Until(k.value.Expiration) < d
}

// startLocked starts a retrieval unless one runs. It outlives ctx, because
// others may be waiting for it.
func (k *keyring) startLocked(ctx context.Context) *retrieval {
	if k.flight != nil {
		return k.flight
	}
	f := &retrieval{done: make(chan struct{})}
	k.flight = f
	k.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), retrieveTimeout)
		defer cancel()
		f.val, f.err = k.retrieve(ctx)
		if f.err != nil {
			f.err = fmt.Errorf("credentials: %w", f.err)
		}
		k.finish(f)
		close(f.done)
	})
	return f
}

func (k *keyring) finish(f *retrieval) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.flight = nil
	k.notTill = time.Now().Add(refreshPause)
	if f.err == nil {
		k.value, k.valid = f.val, true
	}
}

// reject drops credentials that the server called expired.
func (k *keyring) reject(v credentials.Value) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.value.AccessKeyID == v.AccessKeyID && k.value.SessionToken == v.SessionToken {
		k.valid = false
	}
}
