package nri

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestResources(t *testing.T) {
	for name, tc := range map[string]struct {
		wish  *api.LinuxResources
		want  *runtimeapi.LinuxContainerResources
		error string
	}{
		"nothing": {&api.LinuxResources{Memory: &api.LinuxMemory{}, Cpu: &api.LinuxCPU{}}, nil, ""},
		"all": {
			&api.LinuxResources{
				Memory: &api.LinuxMemory{Limit: api.Int64(7), Swap: api.Int64(8)}, Unified: map[string]string{"a.b": "1"},
				Cpu:            &api.LinuxCPU{Shares: api.UInt64(1), Quota: api.Int64(-1), Period: api.UInt64(3), Cpus: "0", Mems: "1"},
				HugepageLimits: []*api.HugepageLimit{{PageSize: "2MB", Limit: 0}},
			},
			&runtimeapi.LinuxContainerResources{
				MemoryLimitInBytes: 7, MemorySwapLimitInBytes: 8, CpuShares: 1, CpuQuota: -1, CpuPeriod: 3, CpusetCpus: "0", CpusetMems: "1",
				Unified: map[string]string{"a.b": "1"}, HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}},
			}, "",
		},
		"reservation": {&api.LinuxResources{Memory: &api.LinuxMemory{Reservation: api.Int64(1)}}, nil, "memory reservation"},
		"kernel":      {&api.LinuxResources{Memory: &api.LinuxMemory{Kernel: api.Int64(1)}}, nil, "kernel memory limit"},
		"kernel TCP":  {&api.LinuxResources{Memory: &api.LinuxMemory{KernelTcp: api.Int64(1)}}, nil, "kernel TCP memory limit"},
		"OOM killer":  {&api.LinuxResources{Memory: &api.LinuxMemory{DisableOomKiller: api.Bool(true)}}, nil, "disabled OOM killer"},
		"hierarchy":   {&api.LinuxResources{Memory: &api.LinuxMemory{UseHierarchy: api.Bool(true)}}, nil, "memory hierarchy"},
		"swappiness":  {&api.LinuxResources{Memory: &api.LinuxMemory{Swappiness: api.UInt64(1)}}, nil, "swappiness"},
		"real time":   {&api.LinuxResources{Cpu: &api.LinuxCPU{RealtimePeriod: api.UInt64(1)}}, nil, "real-time CPU"},
		"processes":   {&api.LinuxResources{Pids: &api.LinuxPids{Limit: 1}}, nil, "limit of processes"},
		"block I/O":   {&api.LinuxResources{BlockioClass: api.String("a")}, nil, "block I/O class"},
		"RDT":         {&api.LinuxResources{RdtClass: api.String("a")}, nil, "RDT class"},
		"device rule": {&api.LinuxResources{Devices: []*api.LinuxDeviceCgroup{{Allow: true}}}, nil, "device rule"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := resources(tc.wish)
			if tc.error != "" {
				if !errors.Is(err, engine.ErrNeedsHost) || !strings.Contains(err.Error(), tc.error) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || (got == nil) != (tc.want == nil) || !proto.Equal(got, tc.want) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// A limit that a request takes off stays off when a plugin changes something else.
func TestOverlayKeepsWhatIsTakenOff(t *testing.T) {
	got := overlay(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: -1, CpuShares: 1}, &runtimeapi.LinuxContainerResources{CpuShares: 2})
	if got.MemoryLimitInBytes != -1 || got.CpuShares != 2 {
		t.Errorf("got %v", got)
	}
}

// Every wish that is not of resources reaches the spec, where it is judged.
func TestAdjust(t *testing.T) {
	s := &specs.Spec{
		Process:     &specs.Process{Args: []string{"a"}, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Hard: 1, Soft: 1}}},
		Annotations: map[string]string{"gone": "x", "kept": "y", "changed": "z"},
		Mounts:      []specs.Mount{{Destination: "/gone"}, {Destination: "/a/b", Source: "old"}},
		Linux:       &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "pod"}}},
	}
	var injected []string
	change, err := adjust(s, &api.ContainerAdjustment{
		Annotations: map[string]string{"-gone": "", "-changed": "", "changed": "new"},
		Args:        []string{"b", "c"},
		Mounts:      []*api.Mount{{Destination: "-/gone"}, {Destination: "/a/b", Source: "new"}, {Destination: "/a", Source: "parent"}},
		Rlimits:     []*api.POSIXRlimit{{Type: "RLIMIT_CORE", Hard: 5, Soft: 4}},
		CDIDevices:  []*api.CDIDevice{{Name: "v/c=d"}},
		Hooks:       &api.Hooks{Poststop: []*api.Hook{{Path: "/h"}}},
		Linux: &api.LinuxContainerAdjustment{
			OomScoreAdj: api.Int(7), CgroupsPath: "/cg", Sysctl: map[string]string{"a.b": "1"},
			Namespaces:    []*api.LinuxNamespace{{Type: "-pid"}, {Type: "network", Path: "/n"}},
			Devices:       []*api.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 1, Minor: 2}},
			NetDevices:    map[string]*api.LinuxNetDevice{"eth9": {Name: "e"}},
			IoPriority:    &api.LinuxIOPriority{Class: api.IOPrioClass_IOPRIO_CLASS_BE},
			Scheduler:     &api.LinuxScheduler{Policy: api.LinuxSchedulerPolicy_SCHED_FIFO},
			MemoryPolicy:  &api.LinuxMemoryPolicy{Mode: api.MpolMode_MPOL_BIND},
			Rdt:           &api.LinuxRdt{ClosId: api.String("gold")},
			SeccompPolicy: &api.LinuxSeccomp{DefaultAction: "SCMP_ACT_ERRNO", Syscalls: []*api.LinuxSyscall{{Names: []string{"mkdir"}, Action: "SCMP_ACT_ALLOW"}}},
		},
	}, func(_ *specs.Spec, names []string) error { injected = names; return nil })
	if err != nil {
		t.Fatal(err)
	}
	l := s.Linux
	for what, ok := range map[string]bool{
		"OOM score":     change.GetOomScoreAdj() == 7,
		"CDI":           reflect.DeepEqual(injected, []string{"v/c=d"}),
		"annotations":   reflect.DeepEqual(s.Annotations, map[string]string{"kept": "y", "changed": "new"}),
		"arguments":     reflect.DeepEqual(s.Process.Args, []string{"b", "c"}),
		"mounts":        reflect.DeepEqual(s.Mounts, []specs.Mount{{Destination: "/a", Source: "parent"}, {Destination: "/a/b", Source: "new"}}),
		"rlimits":       reflect.DeepEqual(s.Process.Rlimits, []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Hard: 5, Soft: 4}}),
		"hooks":         s.Hooks != nil && len(s.Hooks.Poststop) == 1,
		"cgroup":        l.CgroupsPath == "/cg",
		"sysctl":        l.Sysctl["a.b"] == "1",
		"namespaces":    reflect.DeepEqual(l.Namespaces, []specs.LinuxNamespace{{Type: "network", Path: "/n"}}),
		"devices":       len(l.Devices) == 1 && l.Devices[0].Path == "/dev/x",
		"net devices":   l.NetDevices["eth9"].Name == "e",
		"I/O priority":  s.Process.IOPriority != nil,
		"scheduler":     s.Process.Scheduler != nil,
		"memory policy": l.MemoryPolicy != nil,
		"RDT":           l.IntelRdt != nil && l.IntelRdt.ClosID == "gold",
		"seccomp":       l.Seccomp != nil && l.Seccomp.DefaultAction == specs.ActErrno && len(l.Seccomp.Syscalls) == 1,
	} {
		if !ok {
			t.Errorf("%s: the spec is %+v, Linux %+v", what, s, l)
		}
	}
}

func TestPrepareSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "made", "s")
	if err := prepareSocket(path); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", stagedSocket(path))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := publishSocket(path); err != nil {
		t.Fatal(err)
	}
	if err := prepareSocket(path); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) {
		t.Errorf("a socket in use: %v", err)
	}
	l.Close()
	if err := prepareSocket(path); err != nil {
		t.Errorf("a socket that is left over: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := prepareSocket(file); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a file in its place: %v", err)
	}
}

// A daemon without plugins asks and tells nobody.
func TestPluginsNone(t *testing.T) {
	var p *Plugins
	if err := errors.Join(p.Start(Callbacks{}), p.RunPod(t.Context(), Pod{}), p.StartContainer(t.Context(), Pod{}, Container{})); err != nil {
		t.Error(err)
	}
	p.StopPod(t.Context(), Pod{})
	p.StopContainer(t.Context(), Pod{}, Container{})
	change := &runtimeapi.LinuxContainerResources{CpuShares: 1}
	if got, err := p.UpdateContainer(t.Context(), Pod{}, Container{}, change); err != nil || got != change {
		t.Errorf("got %v, %v", got, err)
	}
	p.Stop()
}
