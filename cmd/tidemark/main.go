// Command tidemark is a Kafka broker whose log lives in object storage.
//
//	tidemark serve           run a broker
//	tidemark audit           check a cluster from the outside
//	tidemark create-bucket   create the bucket that --store names
//	tidemark version         print the version
//	tidemark help            print all settings
//
// This package turns flags, environment and file into a Config, wires the
// parts together and turns the outcome into an exit code: 0 for a clean stop, 1
// for a failure, 2 for a command line or configuration that cannot be.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// A second signal ends the process at once, the way it would without us.
	go func() { <-ctx.Done(); stop() }()
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func run(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		writeHelp(stderr)
		return exitUsage
	}
	switch command := args[0]; command {
	case "serve":
		return withConfig(ctx, args[1:], env, stderr, serve)
	case "audit":
		return runAudit(ctx, args[1:], env, stdout, stderr)
	case "create-bucket":
		return withConfig(ctx, args[1:], env, stderr, createBucket)
	case "version", "--version":
		fmt.Fprintln(stdout, "tidemark", versionString())
		return exitOK
	case "help", "--help", "-h":
		writeHelp(stdout)
		return exitOK
	default:
		fmt.Fprintf(stderr, "tidemark: no command %q; see tidemark help\n", command)
		return exitUsage
	}
}

func withConfig(ctx context.Context, args, env []string, stderr io.Writer, do func(context.Context, *Config) error) int {
	cfg, err := LoadConfig(args, env, stderr)
	if errors.Is(err, ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "tidemark: configuration:\n%v\n", err)
		return exitUsage
	}
	if err := do(ctx, cfg); err != nil {
		fmt.Fprintf(stderr, "tidemark: %v\n", err)
		return exitFailed
	}
	return exitOK
}
