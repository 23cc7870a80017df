package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func load(t *testing.T, args ...string) (*Config, error) {
	t.Helper()
	return LoadConfig(args, nil, &bytes.Buffer{})
}

func mustLoad(t *testing.T, args ...string) *Config {
	t.Helper()
	cfg, err := load(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tidemark.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsAreOneEmbeddedBroker(t *testing.T) {
	cfg := mustLoad(t)
	if !cfg.Embedded() || cfg.Listen != "127.0.0.1:9092" || cfg.Advertise != cfg.Listen || cfg.DataDir != "./data" {
		t.Errorf("defaults: %+v", cfg)
	}
	loc, err := cfg.StoreLocation()
	if err != nil || !filepath.IsAbs(loc.Dir) || !strings.HasSuffix(loc.Dir, "/data/bucket") {
		t.Errorf("embedded bucket at %+v, %v", loc, err)
	}
	if cfg.FlushSpacing != 2*time.Millisecond || cfg.FlushBudget != 0 {
		t.Errorf("flush settings of files: %v, %d", cfg.FlushSpacing, cfg.FlushBudget)
	}
}

func TestFlagBeatsEnvironmentBeatsFile(t *testing.T) {
	file := writeFile(t, "rack: from-file\nnum-partitions: 3\nlog-level: warn\netcd: [http://a:1, http://b:2]\nstore: s3://bkt\n")
	env := []string{"TIDEMARK_CONFIG=" + file, "TIDEMARK_RACK=from-env", "TIDEMARK_LOG_LEVEL=debug", "TIDEMARK_CLUSTER=", "OTHER=1"}
	cfg, err := LoadConfig([]string{"--rack", "from-flag"}, env, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Rack != "from-flag" || cfg.LogLevel != slog.LevelDebug || cfg.NumPartitions != 3 || cfg.Cluster != "tidemark" {
		t.Errorf("precedence: %+v", cfg)
	}
	if want := []string{"http://a:1", "http://b:2"}; !reflect.DeepEqual(cfg.Etcd, want) {
		t.Errorf("etcd = %v", cfg.Etcd)
	}
}

// Every setting can be given all three ways, and a value that cannot be read is
// an error naming its source, whichever way it came.
func TestEverySettingEveryWay(t *testing.T) {
	for _, s := range settings(defaultConfig()) {
		value := map[string]string{
			"HOST:PORT": "h:1", "NAME": "n", "DIR": "/d", "URL": "http://u:1", "URL[,URL]": "http://u:1,http://v:1",
			"DURATION": "1s", "UPLOADS/S": "7", "BYTES": "64MiB", "BYTES/S": "64MiB", "COUNT": "7", "true|false": "false",
			"debug|info|warn|error": "error", "text|json": "json", "POLICY": "upgrade",
		}[s.unit]
		if value == "" {
			t.Fatalf("--%s has a unit no test value is known for: %s", s.name, s.unit)
		}
		for way, in := range map[string]func(c []setting) error{
			"file": func(c []setting) error { return errors.Join(applyFile(c, writeFile(t, s.name+": "+value))...) },
			"text": func(c []setting) error { return find(c, s.name).set(value) },
		} {
			c := settings(defaultConfig())
			if err := in(c); err != nil {
				t.Errorf("%s by %s: %v", s.name, way, err)
			}
			if got := find(c, s.name).get(); got != value {
				t.Errorf("%s by %s: %q, want %q", s.name, way, got, value)
			}
		}
		if s.doc == "" {
			t.Errorf("--%s has no documentation", s.name)
		}
	}
}

func find(table []setting, name string) setting {
	for _, s := range table {
		if s.name == name {
			return s
		}
	}
	return setting{}
}

func TestFaultsNameTheirSource(t *testing.T) {
	for text, want := range map[string]string{
		"lissten: 127.0.0.1:1":         `:1: lissten: no such setting`,
		"rack: a\nrack: b":             `:2: rack: set twice`,
		"num-partitions: many":         `num-partitions: "many" is not a whole number`,
		"cache-bytes: 1.5GiB":          `cache-bytes: "1.5GiB" is not a number of bytes`,
		"drain-timeout: 5":             `"5" is not a duration`,
		"auto-create-topics-enable: 1": `neither true nor false`,
		"flush-spacing: -1ms":          `below 0`,
		"rack: {a: b}":                 `neither a value nor a list`,
		"rack:":                        `has no value`,
		"- rack":                       `not a mapping`,
		"rack: [":                      `yaml:`,
	} {
		_, err := load(t, "--config", writeFile(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
	for _, args := range [][]string{{"--no-such"}, {"stray"}, {"--config", "/does/not/exist"}, {"--num-partitions", "x"}} {
		if _, err := load(t, args...); err == nil {
			t.Errorf("%v: accepted", args)
		}
	}
}

func TestConflictsAreAllReported(t *testing.T) {
	_, err := load(t, "--etcd", "http://e:2379", "--http", "0.0.0.0:9092", "--num-partitions", "0", "--log-format", "xml")
	for _, want := range []string{"--etcd without --store", "--listen and --http", "--num-partitions", "--log-format"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not reported in: %v", want, err)
		}
	}
}

func TestRefused(t *testing.T) {
	both := []string{"--etcd", "http://e:1", "--store", "s3://bkt"}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"--store without --etcd", []string{"--store", "s3://bkt"}},
		{"--s3-endpoint without", []string{"--s3-endpoint", "http://m:9000"}},
		{"--etcd: \"e:1\"", []string{"--etcd", "e:1", "--store", "s3://bkt"}},
		{"--store: \"s3://UPPER\"", []string{"--etcd", "http://e:1", "--store", "s3://UPPER"}},
		{"--store: \"file://relative/dir\"", []string{"--etcd", "http://e:1", "--store", "file://relative/dir"}},
		{"--store: \"gs://bkt\"", []string{"--etcd", "http://e:1", "--store", "gs://bkt"}},
		{"--s3-endpoint: \"m:9000\"", append([]string{"--s3-endpoint", "m:9000"}, both...)},
		{"wildcard", []string{"--advertise", "0.0.0.0:9092"}},
		{"--listen: \"9092\"", []string{"--listen", "9092"}},
		{"--listen: \"h:0\"", []string{"--listen", "h:0"}},
		{"--cluster", []string{"--cluster", "a/b"}},
		{"--rack", []string{"--rack", "a b"}},
		{"--data-dir", []string{"--data-dir", ""}},
		{"--cache-bytes", []string{"--cache-bytes", "1MiB"}},
		{"--catch-up-bandwidth", []string{"--catch-up-bandwidth", "4MiB"}},
		{"--memory-tail-bytes", []string{"--memory-tail-bytes", "1MiB"}},
		{"--otlp-endpoint", []string{"--otlp-endpoint", "collector:4317"}},
		{"--drain-timeout", []string{"--drain-timeout", "0s"}},
	} {
		if _, err := load(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v; want %s", c.args, err, c.want)
		}
	}
}

func TestStoreDecidesFlushDefaults(t *testing.T) {
	f := func(spacing time.Duration, budget int, args ...string) {
		t.Helper()
		cfg := mustLoad(t, args...)
		if cfg.FlushSpacing != spacing || cfg.FlushBudget != budget {
			t.Errorf("%v: %v, %d", args, cfg.FlushSpacing, cfg.FlushBudget)
		}
	}
	f(25*time.Millisecond, 10, "--etcd", "http://e:1", "--store", "s3://bkt/prefix")
	f(2*time.Millisecond, 0, "--etcd", "http://e:1", "--store", "s3://bkt", "--s3-endpoint", "http://m:9000")
	f(2*time.Millisecond, 0, "--etcd", "http://e:1", "--store", "file:///srv/log")
	f(time.Second, 0, "--etcd", "http://e:1", "--store", "s3://bkt", "--flush-spacing", "1s", "--flush-budget", "0")
}

func TestWildcardAdvertisesTheMachine(t *testing.T) {
	own := func() (string, error) { return "10.1.2.3", nil }
	cfg := defaultConfig()
	cfg.Listen, cfg.Peer = "0.0.0.0:9092", "[::]:9093"
	cfg.derive(own)
	if cfg.Advertise != "10.1.2.3:9092" || cfg.PeerAdvertise != "10.1.2.3:9093" {
		t.Errorf("advertised %s and %s", cfg.Advertise, cfg.PeerAdvertise)
	}
	if host, err := ownAddress(); err == nil && (net.ParseIP(host) == nil || net.ParseIP(host).IsLoopback()) {
		t.Errorf("own address %q", host)
	}
	cfg = defaultConfig()
	cfg.Listen = ":9092"
	cfg.derive(func() (string, error) { return "", errors.New("no address") })
	if err := cfg.validate(); err == nil || !strings.Contains(err.Error(), "wildcard") {
		t.Errorf("nothing to advertise: %v", err)
	}
}

func TestHelpDocumentsEverySetting(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"help"}, nil, &out, &errs); code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	for _, s := range settings(defaultConfig()) {
		for _, want := range []string{"--" + s.name + " " + s.unit, s.env()} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("help lacks %s", want)
			}
		}
	}
	if code := run(context.Background(), []string{"serve", "--help"}, nil, &out, &errs); code != exitOK || !strings.Contains(errs.String(), "--listen HOST:PORT") {
		t.Errorf("serve --help: code %d: %s", code, errs.String())
	}
}

func TestExitCodes(t *testing.T) {
	f := func(want int, args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(context.Background(), args, nil, &out, &errs); got != want {
			t.Errorf("%v: exit code %d, want %d: %s", args, got, want, errs.String())
		}
	}
	f(exitOK, "version")
	f(exitUsage)
	f(exitUsage, "fly")
	f(exitUsage, "serve", "--etcd", "http://e:1")
	f(exitFailed, "create-bucket")
}

func TestBytes(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "1": 1, "1KiB": 1024, "3 MiB": 3 << 20, "4GiB": 4 << 30, "1TiB": 1 << 40} {
		if got, err := parseBytes(in); err != nil || got != want {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-1", "1kb", "MiB", "9223372036854775807KiB", "1e3"} {
		if got, err := parseBytes(in); err == nil {
			t.Errorf("%s: %d", in, got)
		}
	}
	for in, want := range map[int64]string{0: "0", 1: "1", 1 << 30: "1GiB", 1<<30 + 1024: "1048577KiB"} {
		if got := formatBytes(in); got != want {
			t.Errorf("%d: %s", in, got)
		}
	}
}

func TestReadmeListsEverySetting(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range settings(defaultConfig()) {
		if row := "| `--" + s.name + "` |"; !strings.Contains(string(readme), row) {
			t.Errorf("the settings table of README.md lacks --%s", s.name)
		}
	}
}

func TestRegionFromAWS(t *testing.T) {
	for _, c := range []struct {
		args, env []string
		want      string
	}{
		{nil, nil, "us-east-1"},
		{nil, []string{"AWS_DEFAULT_REGION=eu-north-1"}, "eu-north-1"},
		{nil, []string{"AWS_DEFAULT_REGION=eu-north-1", "AWS_REGION=eu-west-1"}, "eu-west-1"},
		{[]string{"--s3-region", "ap-east-1"}, []string{"AWS_REGION=eu-west-1"}, "ap-east-1"},
	} {
		cfg, err := LoadConfig(c.args, c.env, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.S3Region != c.want {
			t.Errorf("%v %v: region %s, want %s", c.args, c.env, cfg.S3Region, c.want)
		}
	}
}
