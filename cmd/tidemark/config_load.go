package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// ErrHelp is returned by LoadConfig after it has printed the help it was asked for.
var ErrHelp = errors.New("help was asked for")

const (
	configFlag = "config"
	configEnv  = "TIDEMARK_CONFIG"
)

// LoadConfig makes the configuration of a broker from command-line arguments
// (without the program and command names), the environment and the YAML file
// that either of them names. A flag beats an environment variable, which beats
// the file. Every fault found is in the returned error, one a line. Help, when
// asked for, goes to stderr.
func LoadConfig(args []string, env []string, stderr io.Writer) (*Config, error) {
	cfg := defaultConfig()
	table := settings(cfg)
	flags, file, err := parseFlags(table, args, stderr)
	if err != nil {
		return nil, err
	}
	vars := environment(env)
	if file == "" {
		file = vars[configEnv]
	}
	// The AWS variables are the default, not one of ours: anything beats them.
	for _, name := range []string{"AWS_DEFAULT_REGION", "AWS_REGION"} {
		if v := vars[name]; v != "" {
			cfg.S3Region = v
		}
	}
	var faults []error
	if file != "" {
		faults = append(faults, applyFile(table, file)...)
	}
	for _, s := range table {
		// An empty variable counts as unset: that is how compose files and
		// shells pass on what nobody set.
		if v := vars[s.env()]; v != "" {
			faults = append(faults, apply(s, v, s.env()))
		}
		if v, ok := flags[s.name]; ok {
			faults = append(faults, apply(s, v, "--"+s.name))
		}
	}
	// A value that could not be read has left its default behind; judging the
	// rest by that would report faults that nobody made.
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	cfg.derive(ownAddress)
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// parseFlags returns the flags that were given, by name, and the --config file.
func parseFlags(table []setting, args []string, stderr io.Writer) (map[string]string, string, error) {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() { writeSettings(stderr, table) }
	file := fs.String(configFlag, "", "")
	raw := make(map[string]*string, len(table))
	for _, s := range table {
		raw[s.name] = fs.String(s.name, "", s.doc)
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			err = ErrHelp
		}
		return nil, "", err
	}
	if fs.NArg() > 0 {
		return nil, "", fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	given := make(map[string]string)
	fs.Visit(func(f *pflag.Flag) {
		if v, ok := raw[f.Name]; ok {
			given[f.Name] = *v
		}
	})
	return given, *file, nil
}

// environment maps names to values. Unknown names with our prefix are ignored:
// schedulers set TIDEMARK_SERVICE_HOST and the like for every service.
func environment(env []string) map[string]string {
	vars := make(map[string]string)
	for _, kv := range env {
		if name, value, ok := strings.Cut(kv, "="); ok {
			vars[name] = value
		}
	}
	return vars
}

func apply(s setting, value, source string) error {
	if err := s.set(value); err != nil {
		return fmt.Errorf("%s: %q is %w", source, value, err)
	}
	return nil
}

// applyFile reads a YAML mapping from setting names to values.
func applyFile(table []setting, path string) []error {
	data, err := os.ReadFile(path)
	if err != nil {
		return []error{fmt.Errorf("configuration file: %w", err)}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return []error{fmt.Errorf("%s: %w", path, err)}
	}
	if doc.Kind == 0 { // empty, or comments alone
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return []error{fmt.Errorf("%s: not a mapping from setting names to values", path)}
	}
	byName := make(map[string]setting, len(table))
	for _, s := range table {
		byName[s.name] = s
	}
	seen := make(map[string]bool)
	var faults []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		at := fmt.Sprintf("%s:%d: %s", path, key.Line, key.Value)
		s, known := byName[key.Value]
		switch {
		case !known:
			faults = append(faults, fmt.Errorf("%s: no such setting", at))
			continue
		case seen[key.Value]:
			faults = append(faults, fmt.Errorf("%s: set twice", at))
			continue
		}
		seen[key.Value] = true
		value, err := scalar(node)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", at, err))
			continue
		}
		faults = append(faults, apply(s, value, at))
	}
	return faults
}

// scalar is a node's value as a flag would give it; a list of scalars is joined
// by commas.
func scalar(n *yaml.Node) (string, error) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "", errors.New("has no value")
		}
		return n.Value, nil
	case yaml.SequenceNode:
		parts := make([]string, 0, len(n.Content))
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return "", errors.New("is neither a value nor a list of values")
			}
			parts = append(parts, item.Value)
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("is neither a value nor a list of values")
}
