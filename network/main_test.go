package network

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// nodeEnv marks the process that runs in namespaces of its own.
const nodeEnv = "NETWORK_TEST_NODE"

// failcniDir is where the failing plugin was built.
var failcniDir string

// TestMain runs the tests, if it is root, in a network and a mount namespace of
// their own: a node without bridges and rules, all of which ends with the process.
func TestMain(m *testing.M) {
	if helper := os.Getenv(helperEnv); helper != "" {
		runHelper(helper)
		return
	}
	if os.Geteuid() == 0 && os.Getenv(nodeEnv) == "" {
		os.Exit(runOnNode())
	}
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runOnNode() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), nodeEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "start the tests in namespaces of their own:", err)
		return 1
	}
	return 0
}

func runTests(m *testing.M) (int, error) {
	if os.Getenv(nodeEnv) != "" {
		if err := loopbackUp(); err != nil {
			return 0, fmt.Errorf("set loopback up: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "network-test-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	failcniDir = dir
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "failcni"), "../hack/failcni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build failcni: %w: %s", err, out)
	}
	return m.Run(), nil
}

// needsRoot skips a test that makes namespaces.
func needsRoot(t testing.TB) {
	t.Helper()
	if os.Getenv(nodeEnv) == "" {
		t.Skip("needs root")
	}
}

// pluginDir returns the directory of the real plugins, or skips the test.
func pluginDir(t testing.TB) string {
	t.Helper()
	needsRoot(t)
	dir, err := filepath.Abs("../bin/cni")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bridge", "host-local", "portmap", "firewall", "bandwidth"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Skipf("needs the CNI plugins, built by make setup: %v", err)
		}
	}
	return dir
}

// processesOf returns the running processes of a program.
func processesOf(t testing.TB, program string) []string {
	t.Helper()
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, exe := range exes {
		if target, err := os.Readlink(exe); err == nil && target == program {
			pids = append(pids, strings.Split(exe, "/")[2])
		}
	}
	return pids
}

// newNamespace pins a namespace for the test.
func newNamespace(t testing.TB) string {
	t.Helper()
	needsRoot(t)
	path := filepath.Join(t.TempDir(), "netns", "pod")
	if err := CreateNamespace(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := RemoveNamespace(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

// mounted says how often something is mounted at path.
func mounted(t testing.TB, path string) int {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(info), " "+path+" ")
}

// kill ends one process that the test started.
func kill(t testing.TB, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(n, syscall.SIGKILL)
}
