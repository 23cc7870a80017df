package s3

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string // the URL of the bucket, or words of the error
	}{
		{Config{Bucket: "logs"}, "https://logs.s3.us-east-1.amazonaws.com"},
		{Config{Bucket: "logs", Region: "eu-west-3"}, "https://logs.s3.eu-west-3.amazonaws.com"},
		{Config{Bucket: "logs", Region: "cn-north-1"}, "https://logs.s3.cn-north-1.amazonaws.com.cn"},
		{Config{Bucket: "lo.gs", Region: "eu-west-3"}, "https://s3.eu-west-3.amazonaws.com/lo.gs"},
		{Config{Bucket: "logs", Endpoint: "http://127.0.0.1:9000"}, "http://127.0.0.1:9000/logs"},
		{Config{Bucket: "logs", Endpoint: "http://minio.example/"}, "http://minio.example/logs"},
		{Config{Bucket: "Logs"}, "error: bucket"},
		{Config{}, "error: bucket"},
		{Config{Bucket: "logs", Endpoint: "127.0.0.1:9000"}, "error: endpoint"},
		{Config{Bucket: "logs", Endpoint: "http://h/path"}, "error: must have no path"},
		{Config{Bucket: "logs", Endpoint: "ftp://h"}, "error: want http"},
		{Config{Bucket: "logs", Prefix: "a/../b"}, "error: prefix"},
		{Config{Bucket: "logs", AccessKey: "a"}, "error: secret key"},
	} {
		s, err := Open(c.cfg)
		if words, bad := strings.CutPrefix(c.want, "error: "); bad {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("%+v: %v, want %q", c.cfg, err, words)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c.cfg, err)
		} else if s.base.String() != c.want {
			t.Errorf("%+v: %s, want %s", c.cfg, s.base, c.want)
		}
	}
}

func TestStandardPlaces(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	file := filepath.Join(dir, "credentials")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	text := "[default]\naws_access_key_id = from-file\naws_secret_access_key = s\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := fromStandardPlaces(t.Context()); err != nil || v.AccessKeyID != "from-file" {
		t.Errorf("from the file: %q, %v", v.AccessKeyID, err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "from-env")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
	t.Setenv("AWS_SESSION_TOKEN", "token")
	if v, err := fromStandardPlaces(t.Context()); err != nil || v.AccessKeyID != "from-env" || v.SessionToken != "token" {
		t.Errorf("from the environment: %+v, %v", v.AccessKeyID, err)
	}
}

// TestKeyring: retrievals are shared, run before the credentials expire, and
// hold up no request that has usable ones.
func TestKeyring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, fail := 0, false
		k := &keyring{retrieve: func(context.Context) (credentials.Value, error) {
			calls++
			time.Sleep(time.Second)
			if fail {
				return credentials.Value{}, errors.New("no answer")
			}
			return credentials.Value{AccessKeyID: "a", SecretAccessKey: "s", Expiration: time.Now().Add(time.Hour)}, nil
		}}
		get := func(want bool) time.Duration {
			t.Helper()
			start := time.Now()
			if v, err := k.get(t.Context()); (err == nil) != want || want && v.AccessKeyID != "a" {
				t.Errorf("get = %v, %v", v.AccessKeyID, err)
			}
			return time.Since(start)
		}
		for range 5 {
			k.running.Go(func() { get(true) })
		}
		k.running.Wait()
		if calls != 1 {
			t.Errorf("%d retrievals for 5 first requests", calls)
		}
		time.Sleep(58 * time.Minute)
		fail = true
		if d := get(true); d != 0 {
			t.Errorf("waited %v for a renewal", d)
		}
		k.running.Wait()
		if d := get(true); d != 0 || calls != 2 {
			t.Errorf("waited %v, %d retrievals right after a failed one", d, calls)
		}
		time.Sleep(3 * time.Minute)
		get(false) // expired, and there are no new ones
		fail = false
		get(true)
		v, _ := k.get(t.Context())
		k.reject(v)
		before := calls
		if get(true); calls != before+1 {
			t.Error("rejected credentials were used again")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		k.reject(v)
		if _, err := k.get(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("get = %v", err)
		}
		k.running.Wait()
	})
}
