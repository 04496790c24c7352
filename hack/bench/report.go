package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

const hostArch = runtime.GOARCH

// report is what is printed, and written as JSON.
type report struct {
	Date    string       `json:"date"`
	Machine machine      `json:"machine"`
	Targets []reportPart `json:"targets"`
}

type machine struct {
	Kernel    string `json:"kernel"`
	CPU       string `json:"cpu"`
	CPUs      int    `json:"cpus"`
	MemoryMiB int    `json:"memoryMiB"`
	Cgroup    string `json:"cgroup"`
}

type reportPart struct {
	Name     string   `json:"name"`
	Endpoint string   `json:"endpoint"`
	Results  []result `json:"results"`
}

func newReport(targets []*target) *report {
	r := &report{Date: time.Now().UTC().Format(time.DateOnly), Machine: thisMachine()}
	for _, t := range targets {
		r.Targets = append(r.Targets, reportPart{Name: t.name, Endpoint: t.endpoint})
	}
	return r
}

func (r *report) add(target int, results []result) {
	r.Targets[target].Results = append(r.Targets[target].Results, results...)
}

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// print writes a Markdown table: docs/benchmarks.md takes it as it is.
func (r *report) print(out io.Writer) {
	m := r.Machine
	fmt.Fprintf(out, "\n%s, Linux %s, %d CPUs (%s), %d MiB, cgroup %s\n\n", r.Date, m.Kernel, m.CPUs, m.CPU, m.MemoryMiB, m.Cgroup)
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	head, rule := "| measured\t| unit\t", "|---\t|---\t"
	for _, t := range r.Targets {
		head += "| " + t.Name + " p50\t| p90\t"
		rule += "|---\t|---\t"
	}
	if len(r.Targets) == 2 {
		head, rule = head+"| ratio\t", rule+"|---\t"
	}
	fmt.Fprintf(w, "%s|\n%s|\n", head, rule)
	for _, name := range r.names() {
		a := r.find(0, name)
		row := fmt.Sprintf("| %s\t| %s\t", name, r.unit(name))
		for i := range r.Targets {
			row += cells(r.find(i, name))
		}
		if len(r.Targets) == 2 {
			ratio := ""
			if b := r.find(1, name); a != nil && b != nil && b.P50 > 0 {
				ratio = fmt.Sprintf("%.2f", a.P50/b.P50)
			}
			row += "| " + ratio + "\t"
		}
		fmt.Fprintf(w, "%s|\n", row)
	}
	w.Flush()
}

func cells(r *result) string {
	if r == nil {
		return "| \t| \t"
	}
	if r.P90 == 0 {
		return "| " + number(r.P50) + "\t| \t"
	}
	return "| " + number(r.P50) + "\t| " + number(r.P90) + "\t"
}

// number keeps three digits, and all before the point.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// names of all results, in the order of the first target that has them.
func (r *report) names() []string {
	var out []string
	seen := map[string]bool{}
	for _, t := range r.Targets {
		for _, res := range t.Results {
			if !seen[res.Name] {
				seen[res.Name] = true
				out = append(out, res.Name)
			}
		}
	}
	return out
}

func (r *report) find(target int, name string) *result {
	for i := range r.Targets[target].Results {
		if res := &r.Targets[target].Results[i]; res.Name == name {
			return res
		}
	}
	return nil
}

func (r *report) unit(name string) string {
	for i := range r.Targets {
		if res := r.find(i, name); res != nil {
			return res.Unit
		}
	}
	return ""
}

// thisMachine says where the numbers come from; what cannot be read is left out.
func thisMachine() machine {
	m := machine{CPUs: runtime.NumCPU(), Cgroup: "v1"}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := bytes.Cut(b, []byte("model name\t: ")); ok {
			model, _, _ := bytes.Cut(rest, []byte("\n"))
			m.CPU = string(model)
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int
		if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kb); err == nil {
			m.MemoryMiB = kb >> 10
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		m.Cgroup = "v2"
	}
	return m
}
