// Command bench measures brokers against each other and against the store they
// stand on, on one machine in one run. See README.md beside it.
//
//	bench [flags] WORKLOAD.yaml...   run workloads, each result into a file of its own
//	bench [flags] -report            tables and plots of all results there are
//
// A run ends with the report too. Every server is started by bench and stops
// with it; -bootstrap names one that is running already, for the workloads'
// cases whose system is external.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tidemark-io/tidemark/bench/internal/price"
	"github.com/tidemark-io/tidemark/bench/internal/report"
	"github.com/tidemark-io/tidemark/bench/internal/run"
	"github.com/tidemark-io/tidemark/bench/internal/s3model"
	"github.com/tidemark-io/tidemark/bench/internal/workload"
)

//go:embed prices.yaml
var prices []byte

//go:embed s3models.yaml
var models []byte

// tableName is the report of all results in their directory.
const tableName = "README.md"

func main() {
	out := flag.String("out", "bench/results", "directory of results")
	bootstrap := flag.String("bootstrap", "", "addresses of the cluster that cases of an external system use")
	profiles := flag.String("profiles", "", "directory for CPU profiles of the brokers, from one more round of each workload")
	pricesFile := flag.String("prices", "", "price tables to use instead of the built-in ones")
	modelsFile := flag.String("models", "", "store models to use instead of the built-in ones")
	reportOnly := flag.Bool("report", false, "run nothing, report what there is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := bench(ctx, options{*out, *bootstrap, *profiles, *pricesFile, *modelsFile, *reportOnly, flag.Args()})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: failed:", err)
		os.Exit(1)
	}
}

type options struct {
	out, bootstrap, profiles, prices, models string
	reportOnly                               bool
	workloads                                []string
}

func bench(ctx context.Context, o options) error {
	if !o.reportOnly && len(o.workloads) == 0 {
		return errors.New("no workload is named; there are some in bench/workloads")
	}
	env, err := o.env()
	if err != nil {
		return err
	}
	// All are read before the first runs: a slip in the last is found at once.
	var all []workload.Workload
	for _, path := range o.workloads {
		w, err := workload.Read(path)
		if err != nil {
			return err
		}
		all = append(all, w)
	}
	var faults []error
	for _, w := range all {
		if ctx.Err() != nil {
			break
		}
		// One that fails takes nothing from the others.
		if err := one(ctx, w, env, o.out); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			faults = append(faults, err)
		}
	}
	return errors.Join(append(faults, writeReport(o.out))...)
}

func one(ctx context.Context, w workload.Workload, env run.Env, out string) error {
	result, err := run.Run(ctx, w, env)
	if result != nil {
		err = errors.Join(err, result.Write(out))
	}
	return err
}

func (o options) env() (env run.Env, err error) {
	env = run.Env{Profiles: o.profiles, Version: version()}
	begun := time.Now()
	env.Logf = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
	}
	if o.bootstrap != "" {
		env.Bootstrap = strings.Split(o.bootstrap, ",")
	}
	data, err := either(o.prices, prices)
	if err != nil {
		return env, err
	}
	if env.Prices, err = price.Parse(data); err != nil {
		return env, err
	}
	if data, err = either(o.models, models); err != nil {
		return env, err
	}
	env.Models, err = s3model.Parse(data)
	return env, err
}

func either(path string, builtIn []byte) ([]byte, error) {
	if path == "" {
		return builtIn, nil
	}
	return os.ReadFile(path)
}

// version is the commit measured, as far as git tells.
func version() string {
	out, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(out))
}

// writeReport makes the table and the plots of everything in dir, and prints the table.
func writeReport(dir string) error {
	results, err := report.ReadAll(dir)
	if err != nil {
		return err
	}
	plots := make(map[string][]string)
	for _, r := range results {
		if plots[r.Workload], err = r.Plots(dir); err != nil {
			return err
		}
	}
	table := &strings.Builder{}
	table.WriteString("# Measured\n\nMade by `make bench`; what the figures are is in [../README.md](../README.md), what they mean in [../RESULTS.md](../RESULTS.md).\n\n")
	if err := report.Markdown(table, results, plots); err != nil {
		return err
	}
	fmt.Print(table)
	return os.WriteFile(filepath.Join(dir, tableName), []byte(table.String()), 0o644)
}
