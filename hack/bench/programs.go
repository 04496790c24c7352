package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// programs are the paths, on the node, of the programs that containers run; empty
// where no measurement that is wanted needs it.
type programs struct{ filework, network string }

// build builds them into a temporary directory, which undo removes.
func (p *programs) build(ctx context.Context, only string, undo *[]func() error) error {
	dir, err := os.MkdirTemp("", "bench-programs-")
	if err != nil {
		return fmt.Errorf("make directory for programs: %w", err)
	}
	*undo = append(*undo, func() error { return os.RemoveAll(dir) })
	for scenario, program := range map[string]*string{"files": &p.filework, "net": &p.network} {
		if !wanted(only, scenario) {
			continue
		}
		name := map[string]string{"files": "filework", "net": "network"}[scenario]
		if *program, err = buildProgram(ctx, dir, name); err != nil {
			return err
		}
	}
	return nil
}

// buildProgram builds hack/bench/NAME, and returns its path in dir. Static, as it is
// to run on any image.
func buildProgram(ctx context.Context, dir, name string) (string, error) {
	repo, err := testenv.RepoRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./hack/bench/"+name)
	cmd.Dir = repo
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}
