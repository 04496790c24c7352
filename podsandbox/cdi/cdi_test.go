package cdi

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const vendorSpec = `{"cdiVersion": "0.7.0", "kind": "vendor.test/thing",
  "containerEdits": {"env": ["ALL=1"]},
  "devices": [
    {"name": "one", "containerEdits": {"env": ["ONE=1"], "mounts": [{"hostPath": "/etc", "containerPath": "/a"}], "additionalGids": [44]}},
    {"name": "two", "containerEdits": {"env": ["TWO=1"]}},
    {"name": "gone", "containerEdits": {"deviceNodes": [{"path": "/dev/nosuch"}]}}]}`

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func accept(*specs.Spec) error { return nil }

func newSpec() *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Env: []string{"A=b"}}, Linux: &specs.Linux{}}
}

func TestInject(t *testing.T) {
	dir := t.TempDir()
	d := Devices{SpecDirs: []string{filepath.Join(dir, "absent"), dir}}
	// Written after Devices was made: the directories are read at each use.
	write(t, dir, "vendor.json", vendorSpec)
	s := newSpec()
	if err := d.Inject(s, []string{"vendor.test/thing=one", "vendor.test/thing=two"}, accept); err != nil {
		t.Fatal(err)
	}
	if want := []string{"A=b", "ALL=1", "ONE=1", "TWO=1"}; !slices.Equal(s.Process.Env, want) {
		t.Errorf("environment = %q", s.Process.Env)
	}
	if len(s.Mounts) != 1 || s.Mounts[0].Destination != "/a" || !slices.Equal(s.Process.User.AdditionalGids, []uint32{44}) {
		t.Errorf("spec = %+v", s)
	}
}

func TestInjectFails(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "vendor.json", vendorSpec)
	write(t, dir, "broken.json", "{")
	refusal := errors.New("refused")
	refuseTwo := func(edits *specs.Spec) error {
		if slices.Contains(edits.Process.Env, "TWO=1") {
			return refusal
		}
		return nil
	}
	for name, tc := range map[string]struct {
		device string
		check  func(*specs.Spec) error
		class  error
		words  []string
	}{
		"unknown":     {"vendor.test/thing=three", accept, errdefs.ErrNotFound, []string{"thing=three", dir, "broken.json"}},
		"absent node": {"vendor.test/thing=gone", accept, errdefs.ErrFailedPrecondition, []string{"thing=gone", "/dev/nosuch"}},
		"refused":     {"vendor.test/thing=two", refuseTwo, refusal, []string{"thing=two"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpec()
			err := Devices{SpecDirs: []string{dir}}.Inject(s, []string{"vendor.test/thing=one", tc.device}, tc.check)
			if !errors.Is(err, tc.class) {
				t.Errorf("error %v", err)
			}
			for _, w := range tc.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
			if len(s.Process.Env) != 1 || len(s.Mounts) != 0 {
				t.Errorf("spec was changed: %+v", s)
			}
		})
	}
}

func TestRequested(t *testing.T) {
	c := &runtimeapi.ContainerConfig{
		CDIDevices:  []*runtimeapi.CDIDevice{{Name: "v.x/c=2"}, {Name: "v.x/c=1"}},
		Annotations: map[string]string{"cdi.k8s.io/p_1": "v.x/c=1,v.x/c=3", "other": "v.x/c=4"},
	}
	got, err := Requested(c)
	if want := []string{"v.x/c=2", "v.x/c=1", "v.x/c=3"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("requested %q, %v", got, err)
	}
	c.CDIDevices[0].Name = "gpu0"
	if _, err := Requested(c); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `"gpu0"`) {
		t.Errorf("error %v", err)
	}
}

// TestInjectReadsOnlyFiles: the library opens whatever has the right name.
func TestInjectReadsOnlyFiles(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"FIFO":   func(path string) error { return unix.Mkfifo(path, 0o600) },
		"device": func(path string) error { return os.Symlink("/dev/zero", path) },
		"huge": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "vendor.json", vendorSpec)
			if err := put(filepath.Join(dir, "other.yaml")); err != nil {
				t.Fatal(err)
			}
			answer := make(chan error, 1)
			go func() {
				answer <- Devices{SpecDirs: []string{dir}}.Inject(newSpec(), []string{"vendor.test/thing=one"}, accept)
			}()
			select {
			case err := <-answer:
				if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "other.yaml") {
					t.Errorf("error %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("it hangs")
			}
		})
	}
}
