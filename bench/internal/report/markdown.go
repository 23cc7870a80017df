package report

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes one section for each result.
func Markdown(w io.Writer, results []*Result, plots map[string][]string) error {
	b := &strings.Builder{}
	for _, r := range results {
		r.section(b, plots[r.Workload])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Result) section(b *strings.Builder, plots []string) {
	fmt.Fprintf(b, "## %s\n\n%s\n\n", r.Workload, r.About)
	fmt.Fprintf(b, "%s, %d rounds, %.0f s; %d cores (%s), Linux %s, load average %.1f at the start, tree %s.\n\n",
		r.Started.Format("2006-01-02 15:04"), r.Rounds, r.Took, r.Host.Cores, r.Host.CPU, r.Host.Kernel, r.Host.Loaded, r.Host.Version)
	for _, c := range r.Cases {
		fmt.Fprintf(b, "- **%s**: %s", c.Name, c.System)
		if len(c.Args) > 0 {
			fmt.Fprintf(b, ", `%s`", strings.Join(c.Args, " "))
		}
		fmt.Fprintf(b, "; %s", describe(c))
		if c.Simulated != "" {
			fmt.Fprintf(b, ". **Simulated:** %s", c.Simulated)
		}
		b.WriteString(".\n")
	}
	b.WriteString("\n")
	for i := range r.Cases[0].Phases {
		r.table(b, i)
	}
	for _, p := range plots {
		fmt.Fprintf(b, "![%s](%s)\n\n", strings.TrimSuffix(p, ".png"), p)
	}
}

func describe(c Case) string {
	l := c.Load
	rate := "as much as is taken"
	if l.Rate > 0 {
		rate = fmt.Sprintf("%s MB/s open loop", number(l.Rate))
	}
	s := fmt.Sprintf("%s, records of %d bytes (%s), %d × %d partitions, %d producers, acks=%s, linger %v", rate,
		l.RecordSize, l.Payload, l.Topics, l.Partitions, l.Producers, l.Acks, l.Linger)
	if l.Idempotent {
		s += ", idempotent"
	}
	if l.Compression != "none" {
		s += ", " + l.Compression
	}
	if l.Idle > 0 {
		s += fmt.Sprintf(", %d idle partitions beside", l.Idle)
	}
	return s
}

// table is phase i of all cases side by side, with the first case over each other.
func (r *Result) table(b *strings.Builder, i int) {
	first := r.Cases[0]
	fmt.Fprintf(b, "### %s: %s\n\n| figure | unit |", r.Workload, first.Phases[i].Name)
	for _, c := range r.Cases {
		fmt.Fprintf(b, " %s |", c.Name)
	}
	for _, c := range r.Cases[1:] {
		fmt.Fprintf(b, " %s ÷ %s |", first.Name, c.Name)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", 2*len(r.Cases)-1) + "\n")
	for _, k := range kinds {
		r.row(b, i, k)
	}
	b.WriteString("\n")
}

func (r *Result) row(b *strings.Builder, i int, k kind) {
	var cells []string
	any := false
	for _, c := range r.Cases {
		s := cell(c.Phases[i].over(k.name))
		any = any || s != ""
		cells = append(cells, s)
	}
	if !any {
		return
	}
	for _, c := range r.Cases[1:] {
		s := ""
		if k.better != 0 {
			if m, _, _, ok := spread(ratios(r.Cases[0].Phases[i].over(k.name), c.Phases[i].over(k.name))); ok {
				s = number(m) + "×"
				if (m-1)*float64(k.better) >= 0 {
					s = "**" + s + "**" // at least as good
				}
			}
		}
		cells = append(cells, s)
	}
	fmt.Fprintf(b, "| %s | %s | %s |\n", k.name, k.unit, strings.Join(cells, " | "))
}
