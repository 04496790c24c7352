// Command critest runs the CRI conformance suite of cri-tools against the daemon,
// on a machine without the Internet. It sets a node up (hack/testenv), builds
// images that do what the suite's own do, serves them to the daemon in place of
// the two registries that the suite names (hosts.toml), and runs bin/critest.
// Arguments go to critest, for example --ginkgo.focus=Networking.
//
// Two things differ from a run of critest by hand:
//
//   - The digest that one test pulls by is replaced, byte for byte, in a copy of
//     the program: no image built here can have it.
//   - The groups of tests in skip.go are left out, each with its reason, unless an
//     argument is --all.
//
// Without arguments it writes its section of docs/conformance.md, every spec and
// its result. It exits with critest's status. After the suite it looks for what it left
// behind, and exits 1 when there is something.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/cri-sandbox/cri-sandbox/hack/conformance"
	"github.com/cri-sandbox/cri-sandbox/hack/steps"
	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

// registries are the ones that the suite's image names begin with.
var registries = []string{"registry.k8s.io", "k8s.gcr.io", "gcr.io"}

// config differs from the default: a number of specs run in privileged pods and
// look at something else, and plugins of others take their time.
const config = "[security]\nprivileged_pods = 'sandbox'\n\n[nri]\nrequest_timeout = '30s'\n"

func main() {
	steps.Main("critest", time.Hour, func(ctx context.Context) error { return run(ctx, os.Args[1:]) })
}

func run(ctx context.Context, args []string) (err error) {
	env, err := testenv.New(ctx, testenv.Options{NoImages: true, NoStart: true, NRI: true, Config: config})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Close()) }()
	digest, err := push(ctx, env)
	if err != nil {
		return err
	}
	if err := mirror(env); err != nil {
		return err
	}
	program, err := patch(env, digest)
	if err != nil {
		return err
	}
	if _, err := env.Start(ctx); err != nil {
		return err
	}
	if err := env.MarkBaseline(); err != nil {
		return err
	}
	report := filepath.Join(env.Dir, "critest.json")
	suiteErr := suite(ctx, env, program, append([]string{"--ginkgo.json-report", report}, args...))
	if suiteErr != nil {
		conformance.KeepLog(env, "critest")
	}
	var pageErr error
	if len(args) == 0 { // a choice of specs says nothing of the others
		pageErr = writeConformance(env.Repo, report)
	}
	return errors.Join(suiteErr, pageErr, conformance.Leftovers(ctx, env))
}

// push pushes the images and returns the digest of the one that is pulled by it.
func push(ctx context.Context, env *testenv.Env) (string, error) {
	all, err := images(ctx, env.Repo)
	if err != nil {
		return "", err
	}
	for name, img := range all {
		if err := testimages.PushImage(ctx, env.Registry+"/"+name, img); err != nil {
			return "", err
		}
	}
	d, err := all[digestOf+":latest"].Digest()
	if err != nil {
		return "", fmt.Errorf("get digest of %s: %w", digestOf, err)
	}
	return d.String(), nil
}

// mirror sends the daemon to the local registry instead of the suite's.
func mirror(env *testenv.Env) error {
	for _, r := range registries {
		dir := filepath.Join(env.CertsDir, r)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("write mirror of %s: %w", r, err)
		}
		conf := fmt.Sprintf("server = \"http://%[1]s\"\n\n[host.\"http://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", env.Registry)
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(conf), 0o644); err != nil {
			return fmt.Errorf("write mirror of %s: %w", r, err)
		}
	}
	return nil
}

// patch copies critest with another digest in it.
func patch(env *testenv.Env, digest string) (string, error) {
	b, err := os.ReadFile(filepath.Join(env.Repo, "bin", "critest"))
	if err != nil {
		return "", fmt.Errorf("read critest: %w (run `hack/setup.sh critest`)", err)
	}
	if len(digest) != len(sourceDigest) || !bytes.Contains(b, []byte(sourceDigest)) {
		return "", fmt.Errorf("patch critest: it does not hold %s; compare its version", sourceDigest)
	}
	path := filepath.Join(env.Dir, "critest")
	if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte(sourceDigest), []byte(digest)), 0o755); err != nil {
		return "", fmt.Errorf("write critest: %w", err)
	}
	return path, nil
}

// suite runs critest. Its temporary directory lies on a shared mount, where the tests
// of mount propagation need it.
func suite(ctx context.Context, env *testenv.Env, program string, args []string) error {
	full := []string{"--runtime-endpoint", env.Endpoint, "--image-endpoint", env.Endpoint, "--nri-socket", env.NRISocket, "--config", filepath.Join(env.Dir, "crictl.yaml")}
	if i := slices.Index(args, "--all"); i >= 0 {
		args = slices.Delete(slices.Clone(args), i, i+1)
	} else {
		full = append(full, "--ginkgo.skip", skipPattern(skips))
		for _, s := range skips {
			fmt.Printf("left out: %s: %s\n", s.pattern, s.why)
		}
	}
	tmp, done, err := sharedTemp(env)
	if err != nil {
		return err
	}
	defer done()
	defer removeSegments(segments())
	cmd := exec.CommandContext(ctx, program, append(full, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run suite: %w", err)
	}
	return nil
}
