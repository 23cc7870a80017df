package main

import (
	"fmt"
	"io"
	"path/filepath"
)

// announce is what a person sees when the broker is ready.
func announce(w io.Writer, cfg *Config) {
	fmt.Fprintf(w, "Tidemark %s\n", versionString())
	fmt.Fprintf(w, "  Kafka clients   %s\n", cfg.Advertise)
	if cfg.HTTP != "" {
		fmt.Fprintf(w, "  Health, metrics http://%s/readyz http://%[1]s/metrics\n", cfg.HTTP)
	}
	dir := cfg.DataDir
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if cfg.Embedded() {
		fmt.Fprintf(w, "  Data            %s (etcd and bucket embedded)\n", dir)
		return
	}
	fmt.Fprintf(w, "  Data            %s (cache)\n", dir)
	fmt.Fprintf(w, "  Cluster         %s, log in %s\n", cfg.Cluster, cfg.Store)
}
