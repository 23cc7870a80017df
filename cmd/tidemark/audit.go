package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/tidemark-io/tidemark/metadata/embedded"
	"github.com/tidemark-io/tidemark/tiering/audit"
	"github.com/tidemark-io/tidemark/tiering/object/file"
)

// Exit statuses of the audit, so that a script can tell a broken cluster from
// one that could not be looked at.
const (
	auditClean    = 0
	auditProblems = 1
	auditNotRun   = 2
)

const auditUsage = `Usage: tidemark audit [flags] [settings]

Checks the whole cluster from the outside and reports every broken invariant:
chains, manifests, records, and objects that nothing accounts for. It writes
nothing. The cluster is named by the settings that serve takes: --etcd and
--store, or --data-dir of an embedded broker, and --cluster, --s3-endpoint,
--s3-region and --config. Brokers of a cluster may go on running; an embedded
broker, which locks its directory, must be stopped first.

Exit status: 0 clean, 1 problems were found, 2 the audit could not be done.

Flags:
`

// auditFlags are the audit's own; everything else is a setting.
type auditFlags struct {
	quick, json bool
	parallel    int
	topic       string
	grace       time.Duration
	sweepGrace  time.Duration
	help        bool
	settings    []string // arguments for LoadConfig
}

func parseAuditFlags(args []string, usage io.Writer) (*auditFlags, error) {
	f := &auditFlags{}
	fs := pflag.NewFlagSet("audit", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.BoolVar(&f.quick, "quick", false, "check heads and manifests only; read no records")
	fs.BoolVar(&f.json, "json", false, "print the report as JSON")
	fs.IntVar(&f.parallel, "parallel", 16, "`number` of requests to the bucket at one time, 1 to 256")
	fs.StringVar(&f.topic, "topic", "", "check the partitions of this `topic` only; chains are always checked")
	fs.DurationVar(&f.grace, "grace", time.Hour, "`age` from which an object that nothing accounts for is a problem")
	fs.DurationVar(&f.sweepGrace, "sweep-grace", 48*time.Hour, "the same `age` for segments and manifest pages, which brokers leave alone for a day before they sweep")
	own := fs.FlagUsages()
	names := append([]string{configFlag}, settingNames()...)
	for _, name := range names {
		fs.String(name, "", "")
	}
	fs.Usage = func() {}
	err := fs.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(usage, auditUsage, own)
		f.help = true
		return f, nil
	case err != nil:
		return nil, err
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case f.parallel < 1 || f.parallel > 256:
		return nil, fmt.Errorf("--parallel: %d: not from 1 to 256", f.parallel)
	case f.sweepGrace < 0:
		return nil, fmt.Errorf("--sweep-grace: %v: below 0", f.sweepGrace)
	case f.grace < 0:
		return nil, fmt.Errorf("--grace: %v: below 0", f.grace)
	}
	fs.Visit(func(flag *pflag.Flag) {
		if slices.Contains(names, flag.Name) {
			f.settings = append(f.settings, "--"+flag.Name+"="+flag.Value.String())
		}
	})
	return f, nil
}

func settingNames() []string {
	var names []string
	for _, s := range settings(defaultConfig()) {
		names = append(names, s.name)
	}
	return names
}

// runAudit is the audit command: the report goes to stdout, the rest to stderr.
func runAudit(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	f, err := parseAuditFlags(args, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "tidemark: audit: %v\n", err)
		return auditNotRun
	}
	if f.help {
		return auditClean
	}
	cfg, err := LoadConfig(f.settings, env, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "tidemark: configuration:\n%v\n", err)
		return auditNotRun
	}
	report, err := auditCluster(ctx, cfg, f, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "tidemark: %v\n", err)
		return auditNotRun
	}
	if err := printReport(stdout, report, f.json); err != nil {
		fmt.Fprintf(stderr, "tidemark: audit: print the report: %v\n", err)
		return auditNotRun
	}
	if !report.Clean {
		return auditProblems
	}
	return auditClean
}

func printReport(w io.Writer, r *audit.Report, asJSON bool) error {
	if !asJSON {
		return r.WriteText(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// auditCluster opens both sides as serve does, but for what serve writes: no
// probe of the bucket and no identity for a cluster that has none.
func auditCluster(ctx context.Context, cfg *Config, f *auditFlags, stderr io.Writer) (*audit.Report, error) {
	if err := auditable(cfg); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	log, silence := auditLogger(cfg, stderr)
	b := &base{cfg: cfg, reg: prometheus.NewRegistry(), log: log, tracer: noop.NewTracerProvider().Tracer("")}
	defer b.close()
	defer silence() // an embedded etcd complains of being closed
	open, cancel := context.WithTimeoutCause(ctx, openTimeout, errors.New("gave up after "+openTimeout.String()))
	defer cancel()
	for _, step := range []func(context.Context) error{b.openStore, b.openMetadata} {
		if err := step(open); err != nil {
			if errors.Is(err, file.ErrLocked) || errors.Is(err, embedded.ErrInUse) {
				err = fmt.Errorf("stop the broker first: %w", err)
			}
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	return audit.Run(ctx, audit.Config{
		KV: b.kv, Store: b.store, Quick: f.quick, Topic: f.topic, Grace: f.grace, SweepGrace: f.sweepGrace, Parallel: f.parallel,
		Progress: func(p audit.Progress) { printProgress(stderr, p) },
	})
}

// auditLogger logs warnings, or what was asked for, until it is silenced:
// standard error is for progress.
func auditLogger(cfg *Config, w io.Writer) (log *slog.Logger, silence func()) {
	level := &slog.LevelVar{}
	level.Set(cfg.LogLevel)
	if cfg.LogLevel == slog.LevelInfo {
		level.Set(slog.LevelWarn)
	}
	options := &slog.HandlerOptions{Level: level}
	silence = func() { level.Set(slog.LevelError + 1) }
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), silence
	}
	return slog.New(slog.NewTextHandler(w, options)), silence
}

// auditable makes sure that opening a directory does not create a cluster there.
func auditable(cfg *Config) error {
	var need []string
	if cfg.Embedded() {
		need = append(need, filepath.Join(cfg.DataDir, "etcd", "member"))
	}
	loc, err := cfg.StoreLocation()
	if err != nil {
		return err
	}
	if loc.Dir != "" {
		need = append(need, filepath.Join(loc.Dir, "objects"))
	}
	for _, dir := range need {
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("no cluster there: %w", err)
		}
	}
	return nil
}

func printProgress(w io.Writer, p audit.Progress) {
	fmt.Fprintf(w, "audit: %d of %d chains, %d slots; %d of %d partitions, %d extents, %d MiB read; %d problems\n",
		p.ChainsDone, p.Chains, p.Slots, p.PartitionsDone, p.Partitions, p.Extents, p.Bytes>>20, p.Problems)
}
