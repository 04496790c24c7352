package record

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

var update = flag.Bool("update", false, "write the golden files of the present version")

// golden has a directory for each version of the records. Those of versions that were
// released stay as they are: nodes have them on disk.
const golden = "testdata"

func goldenID(n int) string { return fmt.Sprintf("%064x", n) }

// writeGolden writes records with every field, and in every phase that a daemon
// leaves when it stops.
func writeGolden(t *testing.T, dir string) {
	t.Helper()
	s := open(t, dir)
	const parent = "/kubepods/pod-golden"
	resources := Message[*runtimeapi.LinuxContainerResources]{&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuQuota: 50000, CpuPeriod: 100000}}
	for i, phase := range []lifecycle.Phase{lifecycle.Ready, lifecycle.Dead, lifecycle.Stopped, lifecycle.Stopping} {
		id := goldenID(i + 1)
		p, err := s.CreatePod(PodMeta{
			ID: id, Handler: "gvisor", CreatedAt: 1_700_000_000_000_000_000 + int64(i),
			Config: Message[*runtimeapi.PodSandboxConfig]{&runtimeapi.PodSandboxConfig{
				Metadata: &runtimeapi.PodSandboxMetadata{Name: "golden", Namespace: "default", Uid: "uid-golden", Attempt: uint32(i)},
				Hostname: "golden", LogDirectory: "/var/log/pods/default_golden_uid-golden",
				DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"10.0.0.10"}},
				PortMappings: []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 8080}},
				Labels:       map[string]string{"app": "golden"},
				Annotations:  map[string]string{"example.com/a": "b"},
				Linux: &runtimeapi.LinuxPodSandboxConfig{
					CgroupParent: parent, Sysctls: map[string]string{"net.ipv4.ip_local_port_range": "1024 65000"},
				},
			}},
		}, PodStatus{
			Phase: phase, BootID: "11111111-2222-3333-4444-555555555555",
			Process: engine.Process{PID: 4_000_001, StartTime: 1<<53 + 1},
			IPs:     []string{"10.88.0.2", "fd00::2"},
			Message: "why", Resources: &resources, Overhead: &resources,
		})
		if err != nil {
			t.Fatal(err)
		}
		for j, phase := range []lifecycle.Phase{lifecycle.Created, lifecycle.Running, lifecycle.Exited} {
			writeGoldenContainer(t, p, goldenID(16*(i+1)+j), phase)
		}
	}
}

func writeGoldenContainer(t *testing.T, p *Pod, id string, phase lifecycle.Phase) {
	t.Helper()
	st := ContainerStatus{Phase: phase}
	if phase != lifecycle.Created {
		st.StartedAt = 1_700_000_001_000_000_000
		st.User = &Message[*runtimeapi.ContainerUser]{&runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{Uid: 1000, Gid: 1000}}}
		st.Resources = &Message[*runtimeapi.LinuxContainerResources]{&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20}}
	}
	if phase == lifecycle.Exited {
		st.FinishedAt, st.ExitCode, st.Reason, st.Message, st.OOMKilled = 1_700_000_002_000_000_000, 137, "OOMKilled", "too much", true
	}
	c, err := p.CreateContainer(ContainerMeta{
		ID: id, PodID: p.Meta.ID, CreatedAt: 1_700_000_000_500_000_000,
		Config: Message[*runtimeapi.ContainerConfig]{&runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: string(phase)}, Image: &runtimeapi.ImageSpec{Image: "example.com/app:1"},
			Command: []string{"/bin/app"}, LogPath: string(phase) + "/0.log",
			Mounts: []*runtimeapi.Mount{{ContainerPath: "/data", HostPath: "/srv/data", Readonly: true}},
		}},
		ImageID: "sha256:" + strings.Repeat("ab", 32), ImageRef: "example.com/app@sha256:" + strings.Repeat("cd", 32),
		LogPath:    "/var/log/pods/default_golden_uid-golden/" + string(phase) + "/0.log",
		StopSignal: 15,
	}, st)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SaveSpec(&specs.Spec{Version: "1.3.0", Hostname: "golden", Process: &specs.Process{Args: []string{"/bin/app"}, Cwd: "/"}}); err != nil {
		t.Fatal(err)
	}
}

// TestLoadGoldenRecords loads what daemons of each version have left, and finds
// in it what the newest writer would write: a field that is renamed, or read
// otherwise, is missing then.
func TestLoadGoldenRecords(t *testing.T) {
	now := filepath.Join(golden, fmt.Sprintf("v%d", Version))
	if *update {
		if err := os.RemoveAll(now); err != nil {
			t.Fatal(err)
		}
		writeGolden(t, now)
	}
	want := t.TempDir()
	writeGolden(t, want)
	versions, err := filepath.Glob(filepath.Join(golden, "v*"))
	if err != nil || len(versions) == 0 {
		t.Fatalf("golden versions: %v, %v", versions, err)
	}
	for _, version := range versions {
		t.Run(filepath.Base(version), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(version)); err != nil {
				t.Fatal(err)
			}
			pods, damaged, err := open(t, dir).Load()
			if err != nil || len(damaged) > 0 {
				t.Fatalf("load: %v, damaged %v", err, damaged)
			}
			wanted, _, err := open(t, want).Load()
			if err != nil {
				t.Fatal(err)
			}
			if len(pods) != len(wanted) {
				t.Fatalf("%d pods, want %d", len(pods), len(wanted))
			}
			for i := range pods {
				comparePods(t, pods[i], wanted[i])
			}
		})
	}
}

func comparePods(t *testing.T, got, want Loaded) {
	t.Helper()
	compare(t, got.Pod.Meta.ID, got.Pod.Meta, want.Pod.Meta)
	compare(t, got.Pod.Meta.ID, got.Pod.Status(), want.Pod.Status())
	if len(got.Containers) != len(want.Containers) {
		t.Fatalf("pod %s has %d containers, want %d", got.Pod.Meta.ID, len(got.Containers), len(want.Containers))
	}
	for i, c := range got.Containers {
		compare(t, c.Meta.ID, c.Meta, want.Containers[i].Meta)
		compare(t, c.Meta.ID, c.Status(), want.Containers[i].Status())
		spec, err := c.Spec()
		wantSpec, werr := want.Containers[i].Spec()
		if err != nil || werr != nil || !reflect.DeepEqual(spec, wantSpec) {
			t.Errorf("spec of %s: %+v, %v", c.Meta.ID, spec, err)
		}
	}
}

// compare goes by what would be written: messages hold state that is not theirs.
func compare(t *testing.T, id string, got, want any) {
	t.Helper()
	var files [2][]byte
	for i, v := range []any{got, want} {
		path := filepath.Join(t.TempDir(), "v.json")
		if err := writeJSON(path, v); err != nil {
			t.Fatal(err)
		}
		files[i], _ = os.ReadFile(path)
		// protojson varies its white space on purpose.
		files[i] = bytes.ReplaceAll(files[i], []byte(" "), nil)
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Errorf("%s reads\n%s\nwant\n%s", id, files[0], files[1])
	}
}
