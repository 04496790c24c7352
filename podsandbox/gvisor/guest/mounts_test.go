package guest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func program(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// The program does on Linux what it does in the Sentry.
func TestMounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	mounts := program(t, "mounts", Mounts())
	holder := func() string {
		cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		pid := strconv.Itoa(cmd.Process.Pid)
		own, _ := os.Readlink("/proc/self/ns/mnt")
		for {
			if ns, _ := os.Readlink("/proc/" + pid + "/ns/mnt"); ns != "" && ns != own {
				return pid
			}
		}
	}
	a, b := holder(), holder()
	dir := t.TempDir()
	for _, d := range []string{"src/sub", "dst"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("nsenter", "--mount", "--target", a, "mount", "-t", "tmpfs", "x", filepath.Join(dir, "src")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	inA := "/proc/" + a + "/root" + dir
	if err := os.MkdirAll(inA+"/src/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	flags := strconv.Itoa(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID)
	join := []string{"n", a, "o", dir + "/src/sub", "n", b, "m", dir + "/dst", "f", flags, "r", dir + "/dst"}
	if out, err := exec.Command(mounts, join...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(inA+"/src/sub/x", []byte("from a"), 0o644); err != nil {
		t.Fatal(err)
	}
	inB := "/proc/" + b + "/root" + dir + "/dst"
	if got, err := os.ReadFile(inB + "/x"); string(got) != "from a" {
		t.Errorf("b reads %q, %v", got, err)
	}
	if err := os.WriteFile(inB+"/y", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("b writes: %v", err)
	}
	if err := exec.Command(mounts, "n", b, "u", dir+"/dst", "d", dir+"/dst").Run(); err != nil {
		t.Errorf("to undo it: %v", err)
	}
	if _, err := os.Stat(dir + "/dst"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
	for want, args := range map[int][]string{
		1: {"n", "0"}, 2: {"n", a, "o", "/no/such"}, 3: {"n", a, "f", "1", "x", "y"}, 4: {"n", a, "o", dir + "/src", "n", b, "m", "/no/such"},
	} {
		var exit *exec.ExitError
		if err := exec.Command(mounts, args...).Run(); !errors.As(err, &exit) || exit.ExitCode() != want {
			t.Errorf("%s: %v, want exit code %d", strings.Join(args, " "), err, want)
		}
	}
}

func TestGate(t *testing.T) {
	gate := program(t, GateName, Gate())
	dir := t.TempDir()
	closed, denied, broken := filepath.Join(dir, "closed"), filepath.Join(dir, "denied"), filepath.Join(dir, "broken")
	for name, mode := range map[string]os.FileMode{closed: 0o444, denied: 0o644, broken: 0o755} {
		if err := os.WriteFile(name, []byte("\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(gate, closed, "/no/such", denied, "/bin/echo", "", "echo", "a", "", "b")
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if name, _ := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/comm"); strings.TrimSpace(string(name)) != GateName {
		t.Errorf("the gate is called %q", name)
	}
	if err := os.Remove(closed); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || out.String() != "a  b\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	for want, path := range map[int]string{GateMissing: "/no/such", GateDenied: denied, GateBroken: broken} {
		cmd := exec.Command(gate, closed, path, "", "x")
		_ = cmd.Run()
		if st := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); int(st.Signal()) != want {
			t.Errorf("%s: %v, want signal %d", path, cmd.ProcessState, want)
		}
	}
}
