// Command containerd runs containerd's own integration tests of CRI against the
// daemon, those of them that a runtime other than containerd can be asked. It sets a
// node up (hack/testenv), builds images that do what the suite's own do, and runs
// bin/containerd-integration. Arguments go to the tests, for example
// -test.run=TestNri.
//
// Three things differ from a run by hand:
//
//   - The paths of the NRI socket and of containerd's directory, which the tests ask
//     whether it can be idmapped, are replaced, byte for byte, in a copy of the
//     program.
//   - A program by the name of runc says that idmapped mounts can be had.
//   - The tests in skip.go are left out, each with its reason.
//
// What differs by decision, or since a Sentry cannot do it, is in the same file, and
// told as that and not as a failure.
//
// Without arguments it writes its section of docs/conformance.md, every test and its
// result. It exits with 1 when a test has failed, and when something is left behind.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cri-sandbox/cri-sandbox/hack/conformance"
	"github.com/cri-sandbox/cri-sandbox/hack/steps"
	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// config has what tests ask for: privileged pods, and plugins that take their time.
const config = "[security]\nprivileged_pods = 'sandbox'\n\n[nri]\nrequest_timeout = '30s'\n"

// Paths in the tests, for which there is no flag.
const (
	nriSocket = "/var/run/nri-test.sock"
	root      = "/var/lib/containerd-test"
)

// runc answers the one question that the tests have for it.
const runc = `#!/bin/sh
[ "$1" = features ] && echo '{"linux":{"mountExtensions":{"idmap":{"enabled":true}}}}'
`

func main() {
	steps.Main("containerd", time.Hour, func(ctx context.Context) error { return run(ctx, os.Args[1:]) })
}

func run(ctx context.Context, args []string) (err error) {
	env, err := testenv.New(ctx, testenv.Options{NoImages: true, NRI: true, DualStack: true, Config: config})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Close()) }()
	list, err := push(ctx, env)
	if err != nil {
		return err
	}
	program, err := patch(env)
	if err != nil {
		return err
	}
	all, suiteErr := suite(ctx, env, program, list, args)
	if suiteErr != nil {
		conformance.KeepLog(env, "containerd-integration")
	}
	var pageErr error
	if len(args) == 0 { // a choice of tests says nothing of the others
		pageErr = containerdSuite.Write(env.Repo, all)
	}
	return errors.Join(suiteErr, pageErr, conformance.Leftovers(ctx, env))
}

// patch copies the tests with other paths in them.
func patch(env *testenv.Env) (string, error) {
	b, err := os.ReadFile(filepath.Join(env.Repo, "bin", "containerd-integration"))
	if err != nil {
		return "", fmt.Errorf("read tests: %w (run `hack/setup.sh containerd`)", err)
	}
	for old, path := range map[string]string{nriSocket: env.NRISocket, root: env.Dir} {
		fresh, err := stretch(path, len(old))
		if err != nil {
			return "", err
		}
		if !bytes.Contains(b, []byte(old)) {
			return "", fmt.Errorf("patch tests: they do not hold %s; compare their version", old)
		}
		b = bytes.ReplaceAll(b, []byte(old), []byte(fresh))
	}
	program := filepath.Join(env.Dir, "containerd-integration")
	if err := os.WriteFile(program, b, 0o755); err != nil {
		return "", fmt.Errorf("write tests: %w", err)
	}
	return program, nil
}

// stretch makes a path longer without making it another.
func stretch(path string, length int) (string, error) {
	if len(path) > length {
		return "", fmt.Errorf("patch tests: %s is longer than %d characters", path, length)
	}
	return strings.Repeat("/", length-len(path)) + path, nil
}

// suite runs the tests and returns their results.
func suite(ctx context.Context, env *testenv.Env, program, list string, args []string) ([]conformance.Result, error) {
	bin := filepath.Join(env.Dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, fmt.Errorf("run tests: %w", err)
	}
	if err := os.WriteFile(filepath.Join(bin, "runc"), []byte(runc), 0o755); err != nil {
		return nil, fmt.Errorf("run tests: %w", err)
	}
	for _, s := range skips {
		fmt.Printf("left out: %s: %s\n", strings.Join(s.tests, ", "), s.why)
	}
	cmd := exec.CommandContext(ctx, program, append([]string{
		"-test.v", "-test.timeout=20m", "-test.skip=" + skipPattern(skips), "-cri-endpoint=" + env.Endpoint, "-image-list=" + list,
		"-containerd-bin=" + filepath.Join(bin, "none"), // so that no other's is ended
	}, args...)...)
	var out bytes.Buffer
	cmd.Dir = env.Dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, &out), os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	err := cmd.Run()
	all := results(out.String())
	if err := failed(all); err != nil {
		return all, fmt.Errorf("run tests: %w", err)
	}
	if !strings.HasSuffix(out.String(), "PASS\n") && !strings.HasSuffix(out.String(), "\nFAIL\n") {
		return all, fmt.Errorf("run tests: they have not come to their end: %v", err)
	}
	return all, nil
}
