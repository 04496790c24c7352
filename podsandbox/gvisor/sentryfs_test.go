package gvisor

import (
	"fmt"
	"path"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/capability"
	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// What is known without asking is what the Sentry says, whatever the size and the
// ids of the sandbox.
func TestSentryFilesAreAsKnown(t *testing.T) {
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	for name, change := range map[string]func(*engine.Config){
		"as large as the node": func(*engine.Config) {},
		"small":                func(c *engine.Config) { c.MemoryLimit, c.CPUQuota, c.CPUPeriod = 64<<20, 10000, 100000 },
		"large":                func(c *engine.Config) { c.MemoryLimit, c.CPUQuota, c.CPUPeriod = 8<<30, 400000, 100000 },
		"with ids of its own":  func(c *engine.Config) { c.IDs = idmap.Mapping{UIDs: ids, GIDs: ids} },
		"on the host's network": func(c *engine.Config) {
			c.NetNS = ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPod(t, change)
			for target, want := range knownKinds {
				if got, err := p.control.kindOf(testContext(t), target); err != nil || got != want {
					t.Errorf("%s is of kind %d (%v), known is %d", target, got, err, want)
				}
			}
			for cpu := range 2 { // of any sandbox; see sizeFlags
				target := fmt.Sprintf("/sys/devices/system/cpu/cpu%d", cpu)
				if got, err := p.control.kindOf(testContext(t), target); cpu == 0 && (err != nil || got != directory) {
					t.Errorf("%s is of kind %d (%v), so what it lacks proves nothing", target, got, err)
				}
				target += "/thermal_throttle"
				want, known := knownKind(target)
				if got, err := p.control.kindOf(testContext(t), target); err != nil || !known || got != want {
					t.Errorf("%s is of kind %d (%v), known is %d, %t", target, got, err, want, known)
				}
			}
			if p.settings.hostNetwork {
				return // has the host's values, and is asked
			}
			for dir, files := range defaultSysctls {
				for name, want := range files {
					if got, err := p.control.readFile(testContext(t), path.Join(dir, name)); err != nil || string(got) != want {
						t.Errorf("%s/%s holds %q (%v), known is %q", dir, name, got, err, want)
					}
				}
			}
		})
	}
}

// The paths of a plain container need no question to its sandbox.
func TestKnownKindOfDefaultPaths(t *testing.T) {
	s, err := spec.Container(spec.Input{
		Pod: &runtimeapi.PodSandboxConfig{}, Container: &runtimeapi.ContainerConfig{Command: []string{"true"}}, RootPath: "/",
	})
	if err != nil {
		t.Fatal(err)
	}
	paths := append(s.Linux.MaskedPaths, s.Linux.ReadonlyPaths...)
	if len(paths) < 10 {
		t.Fatalf("default paths are %v", paths)
	}
	for _, target := range paths {
		if _, known := knownKind(target); !known {
			t.Errorf("%s has to be asked for", target)
		}
	}
}

// No answer of one sandbox, the first one of the engine, changes what containers
// of another pod see.
func TestProcSysImagesOfALyingSandbox(t *testing.T) {
	e := newTestEngine(t)
	restricted := shell(newRootfs(t), `for f in $(find /proc/sys -type f); do v=$(cat $f); (echo "$v" > $f) 2>/dev/null && echo WRITTEN $f; done
		cat /proc/sys/kernel/yama/ptrace_scope; wc -c < /proc/meminfo; wc -c < /proc/uptime; ls /sys/firmware /proc/acpi /proc/irq`)
	caps := restricted.Process.Capabilities
	caps.Bounding, caps.Effective, caps.Permitted = capability.All, capability.All, capability.All
	restricted.Linux.MaskedPaths = []string{"/proc/acpi", "/proc/keys", "/proc/meminfo", "/proc/uptime", "/sys/firmware", "/sys/devices/system/cpu/cpu0/thermal_throttle"}
	restricted.Linux.ReadonlyPaths = []string{"/proc/sys", "/proc/irq"}
	for _, lie := range []string{
		`{"success":false,"err":"no such file or directory"}`, `{"success":false,"err":"is a directory"}`, `{"success":true}`,
	} {
		liar := newBrokenOut(t, e, says(lie))
		for _, sysctls := range []map[string]string{nil, {"kernel.yama.ptrace_scope": "0"}} {
			liar.translator.cfg.Sysctls = sysctls
			prepared, err := liar.translator.prepareSpec(testContext(t), engine.Container{ID: "c", Spec: restricted})
			if err == nil {
				prepared.close()
			}
		}
		liar.translator.procSys.close()
		liar.mu.Lock()
		asked := liar.asked[methodReadFile]
		liar.mu.Unlock()
		if !asked {
			t.Error("the liar was not asked, so the test proves nothing")
		}
	}
	p := bootPod(t, e)
	if err := p.StartRoot(testContext(t)); err != nil {
		t.Fatal(err)
	}
	out, _ := p.run(restricted)
	if strings.Contains(out, "WRITTEN") || !strings.HasPrefix(out, "1\n0\n0\n") || !strings.Contains(out, "/proc/acpi: No such file") {
		t.Errorf("the honest pod sees:\n%s", out)
	}
}
