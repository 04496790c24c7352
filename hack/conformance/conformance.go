// Package conformance is what the runs of other projects' suites share: the results as a
// section of docs/conformance.md, and what is done after a run. A section lies between two
// lines, and what is around them is written by people:
//
//	<!-- begin NAME -->
//	<!-- end NAME -->
package conformance

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// Result is what became of a test.
type Result struct{ Name, State, Why string }

// Suite is where its results are told, and how.
type Suite struct {
	Section string // of the page
	Each    string // what a test is called
	Program string // in the page
	Tools   string // directory of the go.mod that pins the version, in the repository
	Module  string
	// Summary counts in words.
	Summary func(count map[string]int) string
}

// Write replaces the suite's section of the page.
func (s Suite) Write(repo string, all []Result) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("read kernel version: %w", err)
	}
	list := exec.Command("go", "list", "-m", "-f", "{{.Version}}", s.Module)
	list.Dir = filepath.Join(repo, s.Tools)
	version, err := list.Output()
	if err != nil {
		return fmt.Errorf("read version of %s: %w", s.Module, err)
	}
	path := filepath.Join(repo, "docs", "conformance.md")
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("write section %s: %w", s.Section, err)
	}
	text, err := replace(string(old), s.Section, s.Table(all, strings.TrimSpace(string(version)), unix.ByteSliceToString(u.Release[:]), time.Now()))
	if err != nil {
		return fmt.Errorf("write section %s of %s: %w", s.Section, path, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write section %s: %w", s.Section, err)
	}
	fmt.Println("wrote docs/conformance.md")
	return nil
}

// Table is the results as a section of the documentation, ordered by name.
func (s Suite) Table(all []Result, version, kernel string, day time.Time) string {
	count := map[string]int{}
	for _, r := range all {
		count[r.State]++
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, %s, %s %s: **%s**.\n\n| %s | result | why not |\n|---|---|---|\n",
		day.Format(time.DateOnly), kernel, runtime.GOARCH, s.Program, version, s.Summary(count), s.Each)
	for _, r := range slices.SortedStableFunc(slices.Values(all), func(a, b Result) int { return cmp.Compare(a.Name, b.Name) }) {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", cell(r.Name), r.State, cell(r.Why))
	}
	return b.String()
}

func replace(text, section, content string) (string, error) {
	begin, end := "<!-- begin "+section+" -->\n", "<!-- end "+section+" -->\n"
	before, rest, ok := strings.Cut(text, begin)
	if !ok {
		return "", fmt.Errorf("the line %q is missing", strings.TrimSpace(begin))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("the line %q is missing", strings.TrimSpace(end))
	}
	return before + begin + strings.TrimRight(content, "\n") + "\n" + end + after, nil
}

// cell makes a text safe inside of a table, of which it takes the first line.
func cell(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	return strings.ReplaceAll(text, "|", "\\|")
}

// Leftovers removes the pods and images that a suite has left and looks for what else it
// leaves.
func Leftovers(ctx context.Context, env *testenv.Env) error {
	for _, args := range [][]string{{"rmp", "-fa"}, {"rmi", "-a"}} {
		if _, err := env.Crictl(ctx, args...); err != nil {
			return err
		}
	}
	return env.Audit(ctx)
}

// KeepLog saves the daemon's log from the directory that is about to be removed.
func KeepLog(env *testenv.Env, suite string) {
	b, err := os.ReadFile(env.LogFile())
	if err != nil {
		return
	}
	path := filepath.Join(os.TempDir(), suite+"-daemon.log")
	if os.WriteFile(path, b, 0o644) == nil {
		fmt.Fprintln(os.Stderr, "the daemon's log is in", path)
	}
}
