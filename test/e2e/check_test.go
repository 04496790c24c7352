package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checked is what `check --output json` says.
type checked struct {
	Ready    bool `json:"ready"`
	Findings []struct{ Check, Level, Message, Mend string }
	Left     []struct {
		Kind, Pod, What, Mend, Error string
		Removed                      bool
	} `json:"leftovers"`
}

// kinds lists the kinds of leftovers, each once.
func (c checked) kinds() []string {
	var kinds []string
	for _, l := range c.Left {
		if !slices.Contains(kinds, l.Kind) {
			kinds = append(kinds, l.Kind)
		}
	}
	return kinds
}

// program runs the daemon's program with a verb and the daemon's directories.
func (k kit) program(args ...string) (stdout, stderr string, code int) {
	k.Helper()
	cmd := exec.CommandContext(k.ctx, filepath.Join(k.env.Repo, "bin", "cri-sandbox"), args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		k.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// check runs the verb on this node; an exit code other than 0 is fatal.
func (k kit) check(args ...string) checked {
	k.Helper()
	args = append(append([]string{"check", "--output", "json"}, k.env.ServeArgs()[1:]...), args...)
	out, errs, code := k.program(args...)
	if code != 0 {
		k.Fatalf("check: exit code %d: %s\n%s", code, errs, out)
	}
	var c checked
	k.must(json.Unmarshal([]byte(out), &c))
	return c
}

// everyKind is what a forgotten pod leaves.
var everyKind = []string{"process", "attachment", "mount", "layer", "namespace", "cgroup", "directory"}

// TestCheckFindsAndRepairsLeftovers forgets a pod beside one that is remembered.
func TestCheckFindsAndRepairsLeftovers(t *testing.T) {
	k := ownNode(t, nodeOptions)
	if c := k.check("--boot"); !c.Ready || len(c.Left) != 0 {
		t.Errorf("a node that is in use: %+v", c)
	}
	keepID, keep := k.pod()
	k.start(keepID, keep, k.shell("keep", "exec sleep 600"))
	dir := t.TempDir()
	k.must(os.Chmod(dir, 0o755))
	id, pod := k.pod()
	k.start(id, pod, k.shell("lost", "exec sleep 600", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: dir}}
	}))
	if c := k.check(); len(c.Left) != 0 {
		t.Errorf("what is in use counts as left: %+v", c.Left)
	}

	k.must(k.env.Kill())
	k.must(os.RemoveAll(filepath.Join(k.env.Root, "pods", id)))
	// An address that nobody has an attachment for.
	lease := filepath.Join(k.env.LeaseDir, k.env.Name, strings.TrimSuffix(k.env.Subnet.Addr().String(), "0")+"200")
	k.must(os.WriteFile(lease, []byte(strings.Repeat("f", 64)+"\r\neth0"), 0o644))

	c := k.check()
	if want := append([]string{"lease"}, everyKind...); !sameSet(c.kinds(), want) {
		t.Errorf("left are %v, want %v:\n%+v", c.kinds(), want, c.Left)
	}
	for _, l := range c.Left {
		if strings.Contains(l.What, keepID) || l.Pod == keepID {
			t.Errorf("a pod with a record counts as left: %+v", l)
		}
		if l.Mend == "" || l.Removed {
			t.Errorf("before a repair: %+v", l)
		}
	}
	for _, l := range k.check("--repair").Left {
		if !l.Removed {
			t.Errorf("stays: %+v", l)
		}
	}
	if c := k.check(); len(c.Left) != 0 {
		t.Errorf("left after the repair: %+v", c.Left)
	}
	if _, err := os.Lstat(lease); err == nil {
		t.Error("the lease is still there")
	}
	// The other pod lives, and all of the lost one is gone.
	_, err := k.env.Start(k.ctx)
	k.must(err)
	k.must(k.env.Client.RemovePod(k.ctx, keepID))
	k.must(os.RemoveAll(keep.LogDirectory))
	k.must(os.RemoveAll(pod.LogDirectory))
	k.must(k.env.Audit(k.ctx))
}

// TestRecoverSweepsWhatNothingLeadsTo: without a record, and without the directory
// that carries the pod's id.
func TestRecoverSweepsWhatNothingLeadsTo(t *testing.T) {
	k := ownNode(t, nodeOptions)
	id, pod := k.pod()
	k.start(id, pod, k.shell("lost", "exec sleep 600"))
	k.must(k.env.Kill())
	k.must(os.RemoveAll(filepath.Join(k.env.Root, "pods", id)))
	dir := filepath.Join(k.env.State, "pods", id)
	mounts, err := filepath.Glob(filepath.Join(dir, "*", "rootfs"))
	k.must(err)
	for _, m := range mounts {
		k.must(unix.Unmount(m, unix.MNT_DETACH))
	}
	k.must(os.RemoveAll(dir))
	k.must(unix.Unmount(filepath.Join(k.env.State, "netns", id), unix.MNT_DETACH))
	k.must(os.Remove(filepath.Join(k.env.State, "netns", id)))
	if c := k.check(); !slices.Contains(c.kinds(), "process") || !slices.Contains(c.kinds(), "cgroup") {
		t.Errorf("left are %+v", c.Left)
	}
	_, err = k.env.Start(k.ctx)
	k.must(err)
	k.must(os.RemoveAll(pod.LogDirectory))
	k.must(k.env.Audit(k.ctx))
}

func TestCheckRefusesRepairWhileADaemonRuns(t *testing.T) {
	k := newKit(t)
	_, errs, code := k.program(append([]string{"check", "--repair"}, k.env.ServeArgs()[1:]...)...)
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	k.wants(errs, "another daemon owns")
}

func TestCheckSaysWhatIsMissing(t *testing.T) {
	k := newKit(t)
	out, errs, code := k.program("check", "--config", os.DevNull, "--root", t.TempDir(), "--state", t.TempDir(),
		"--listen", "unix://"+filepath.Join(t.TempDir(), "s.sock"), "--cni-conf-dir", t.TempDir())
	if code != 1 {
		t.Errorf("exit code %d without a network", code)
	}
	k.wants(out, "error    network     no network is configured", "→ Install a network")
	k.wants(errs, "the node is not ready")
}

func TestConfigVerbs(t *testing.T) {
	k := newKit(t)
	out, errs, code := k.program("config", "default")
	if code != 0 {
		t.Fatal(errs)
	}
	path := filepath.Join(t.TempDir(), "config.toml")
	k.must(os.WriteFile(path, []byte(strings.Replace(out, "log_level = 0", "log_level = 3", 1)), 0o600))
	if _, errs, code := k.program("config", "validate", "--config", path); code != 0 {
		t.Errorf("the default is refused: %s", errs)
	}
	out, errs, code = k.program("config", "dump", "--config", path)
	if code != 0 {
		t.Error(errs)
	}
	k.wants(out, "log_level = 3")
	k.must(os.WriteFile(path, []byte("state = '/s'\nno_such_key = 1\n"), 0o600))
	_, errs, code = k.program("config", "validate", "--config", path)
	if code != 1 {
		t.Errorf("exit code %d for an unknown key", code)
	}
	k.wants(errs, path, "line 2", "no_such_key")
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
