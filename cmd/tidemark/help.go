package main

import (
	"fmt"
	"io"
	"strings"
)

const usage = `Tidemark is a Kafka broker whose log lives in object storage.

Usage:
  tidemark serve [settings]          run a broker
  tidemark audit [settings]          check a whole cluster; tidemark audit --help tells more
  tidemark create-bucket [settings]  create the bucket that --store names, if it is missing
  tidemark version                   print the version
  tidemark help                      print this help

Without --etcd and --store, serve keeps everything under --data-dir.

Settings, each a flag, an environment variable or a key in the --config file,
in that order of precedence:

`

const helpWidth = 88

func writeHelp(w io.Writer) {
	io.WriteString(w, usage)
	writeSettings(w, settings(defaultConfig()))
}

// writeSettings documents every setting with unit, default and variable.
func writeSettings(w io.Writer, table []setting) {
	fmt.Fprintf(w, "  --%s FILE\n", configFlag)
	writeWrapped(w, "YAML file of settings: the names below without dashes in front, each with its value.")
	fmt.Fprintf(w, "        default: none; environment: %s\n", configEnv)
	for _, s := range table {
		def := s.def
		if def == "" {
			def = s.get()
		}
		fmt.Fprintf(w, "  --%s %s\n", s.name, s.unit)
		writeWrapped(w, s.doc)
		fmt.Fprintf(w, "        default: %s; environment: %s\n", def, s.env())
	}
}

func writeWrapped(w io.Writer, text string) {
	const indent = "        "
	line := indent
	for _, word := range strings.Fields(text) {
		if len(line)+len(word) > helpWidth && line != indent {
			fmt.Fprintln(w, strings.TrimRight(line, " "))
			line = indent
		}
		line += word + " "
	}
	fmt.Fprintln(w, strings.TrimRight(line, " "))
}
